/** What a generation observed of itself: divergence from the unsteered model, scores of probes. */
import type { AppliedProbe, ProbeScores } from "../../client/client.js";
import { formatNumber, shortDigest } from "./proof.js";

/** Of one completion, gathered from the parts in which it came. */
export class Observations {
  readonly #kl: number[] = [];
  readonly #probes: { applied: AppliedProbe; scores: number[]; positions: number[] }[];

  /** `probes`: those of the request. */
  constructor(probes: readonly AppliedProbe[]) {
    this.#probes = probes.map((applied) => ({ applied, scores: [], positions: [] }));
  }

  add(part: { klToUnsteered: readonly number[]; probeScores: readonly ProbeScores[] }): void {
    this.#kl.push(...part.klToUnsteered);
    for (const { probeIndex, scores, positions } of part.probeScores) {
      const probe = this.#probes[probeIndex];
      probe?.scores.push(...scores);
      probe?.positions.push(...positions);
    }
  }

  /** One line for each thing that was asked for. */
  lines(): string[] {
    const probes = this.#probes.map(({ applied, scores, positions }) =>
      probeLine(applied, scores, positions),
    );
    return this.#kl.length > 0 ? [klLine(this.#kl), ...probes] : probes;
  }
}

/** `KL(steered ‖ unsteered)  mean 0.12 nats  largest 2.1 at generated token 7` */
export function klLine(kl: readonly number[]): string {
  const mean = kl.reduce((sum, value) => sum + value, 0) / kl.length;
  const largest = Math.max(...kl);
  return [
    "KL(steered ‖ unsteered)",
    `mean ${formatNumber(mean)} nats`,
    `largest ${formatNumber(largest)} at generated token ${kl.indexOf(largest) + 1}`,
  ].join("  ");
}

/**
 * `probe defection@sha256:0123456789ab  layer 4  48 scores  mean 0.3  largest 2.4 at position 31
 * 3 above the threshold 1.2`, or the one score.
 */
export function probeLine(
  { probeId, digest, layer, threshold }: AppliedProbe,
  scores: readonly number[],
  positions: readonly number[],
): string {
  const parts = [`probe ${probeId}@${shortDigest(digest)}`, `layer ${layer}`];
  const largest = Math.max(...scores);
  if (scores.length === 0) parts.push("no score: its text did not appear");
  else if (scores.length === 1) {
    parts.push(`${formatNumber(largest)} at position ${positions[0]}`);
  } else {
    const mean = scores.reduce((sum, value) => sum + value, 0) / scores.length;
    parts.push(
      `${scores.length} scores`,
      `mean ${formatNumber(mean)}`,
      `largest ${formatNumber(largest)} at position ${positions[scores.indexOf(largest)]}`,
    );
  }
  if (threshold !== undefined && scores.length > 0) {
    const above = scores.filter((score) => score > threshold).length;
    parts.push(`${above} above the threshold ${formatNumber(threshold)}`);
  }
  return parts.join("  ");
}
