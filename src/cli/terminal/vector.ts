/** A vector of the registry, as lines for people. */
import type { Derivation, LayerDiagnostics, Vector } from "../../client/client.js";
import { formatLayers } from "../arguments/numbers.js";
import { formatNumber, shortDigest } from "./proof.js";
import { percent, table } from "./table.js";

/** `sentiment@sha256:0123456789ab  layers 3-5  set=train` */
export function vectorSummary(vector: Vector): string {
  return [
    `${vector.vectorId}@${shortDigest(vector.digest)}`,
    `${vector.layers.length === 1 ? "layer" : "layers"} ${formatLayers(vector.layers)}`,
    ...labelsOf(vector.labels),
  ].join("  ");
}

export const labelsOf = (labels: Readonly<Record<string, string>>) =>
  Object.entries(labels).map(([key, value]) => `${key}=${value}`);

export function printVector(vector: Vector, { json }: { json?: boolean }): void {
  process.stdout.write(json ? `${JSON.stringify(vector)}\n` : describeVector(vector));
}

function describeVector(vector: Vector): string {
  const { derivation, stats } = vector;
  const head = `${vectorSummary(vector)}\n`;
  if (derivation?.diagnostics.length) {
    return `${head}  ${derivationLine(derivation)}\n${diagnosticsTable(vector, derivation)}`;
  }
  const rows = stats.map(({ layer, l2Norm }) => [String(layer), formatNumber(l2Norm)]);
  return head + table([{ title: "layer" }, { title: "‖v‖" }], rows);
}

/** `MEAN DIFFERENCE  LAST  64 pairs  on sha256:0123456789ab` */
export function derivationLine(derivation: Derivation): string {
  const { method, tokenRule, tokenText, pairs, normalized, adapterId } = derivation;
  const words = (name: string) => name.replace(/^(METHOD|TOKEN_RULE)_/, "").replaceAll("_", " ");
  return [
    words(method) + (normalized ? ", unit length" : ""),
    tokenText ? `${words(tokenRule)} ${JSON.stringify(tokenText)}` : words(tokenRule),
    `${pairs} ${pairs === 1 ? "pair" : "pairs"}`,
    `on ${shortDigest(derivation.modelFingerprint)}${adapterId ? ` with adapter ${adapterId}` : ""}`,
  ].join("  ");
}

/** What tells a direction from noise, one line a block; docs/steering.md says how to read it. */
function diagnosticsTable({ stats }: Vector, { diagnostics }: Derivation): string {
  const norms = new Map(stats.map(({ layer, l2Norm }) => [layer, l2Norm]));
  const rows = diagnostics.map((figures: LayerDiagnostics) => [
    String(figures.layer),
    formatNumber(norms.get(figures.layer) ?? 0),
    formatNumber(figures.normRatio),
    percent(figures.separatedShare),
    `${percent(figures.randomSeparatedMean)} … ${percent(figures.randomSeparatedMax)}`,
    figures.splitHalfCosine === undefined ? "–" : figures.splitHalfCosine.toFixed(3),
  ]);
  const titles = ["layer", "‖v‖", "‖v‖/‖h‖", "separates", "random directions", "split halves"];
  return table(
    titles.map((title) => ({ title })),
    rows,
  );
}
