/** A vector of the registry, as lines for people. */
import type { Vector } from "../../client/client.js";
import { formatLayers } from "../arguments/numbers.js";
import { formatNumber, shortDigest } from "./proof.js";

/** `sentiment@sha256:0123456789ab  layers 3-5  method=mean-difference` */
export function vectorSummary(vector: Vector): string {
  const labels = Object.entries(vector.labels).map(([key, value]) => `${key}=${value}`);
  return [
    `${vector.vectorId}@${shortDigest(vector.digest)}`,
    `${vector.layers.length === 1 ? "layer" : "layers"} ${formatLayers(vector.layers)}`,
    ...labels,
  ].join("  ");
}

export function printVector(vector: Vector, { json }: { json?: boolean }): void {
  if (json) {
    process.stdout.write(`${JSON.stringify(vector)}\n`);
    return;
  }
  process.stdout.write(`${vectorSummary(vector)}\n`);
  for (const { layer, l2Norm } of vector.stats) {
    process.stdout.write(`  layer ${layer}  ‖v‖ ${formatNumber(l2Norm)}\n`);
  }
}
