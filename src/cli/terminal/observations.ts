/** What a generation observed of itself: divergence from the unsteered model, scores of probes. */
import type { ProbeScores } from "../../client/client.js";
import { formatNumber } from "./proof.js";

/** Of one completion, gathered from the parts in which it came. */
export class Observations {
  readonly #kl: number[] = [];
  readonly #probes = new Map<string, { scores: number[]; positions: number[] }>();

  add(part: { klToUnsteered: readonly number[]; probeScores: readonly ProbeScores[] }): void {
    this.#kl.push(...part.klToUnsteered);
    for (const { probeId, scores, positions } of part.probeScores) {
      const all = this.#probes.get(probeId) ?? { scores: [], positions: [] };
      this.#probes.set(probeId, all);
      all.scores.push(...scores);
      all.positions.push(...positions);
    }
  }

  /** One line for each thing that was asked for. */
  lines(): string[] {
    const probes = [...this.#probes].map(([id, { scores, positions }]) =>
      probeLine(id, scores, positions),
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

/** `probe defection  48 scores  mean 0.3  largest 2.4 at position 31`, or the one score. */
export function probeLine(
  probeId: string,
  scores: readonly number[],
  positions: readonly number[],
): string {
  const [first] = scores;
  if (first === undefined) return `probe ${probeId}  no score: its text did not appear`;
  if (scores.length === 1) {
    return `probe ${probeId}  ${formatNumber(first)} at position ${positions[0]}`;
  }
  const mean = scores.reduce((sum, value) => sum + value, 0) / scores.length;
  const largest = Math.max(...scores);
  return [
    `probe ${probeId}`,
    `${scores.length} scores`,
    `mean ${formatNumber(mean)}`,
    `largest ${formatNumber(largest)} at position ${positions[scores.indexOf(largest)]}`,
  ].join("  ");
}
