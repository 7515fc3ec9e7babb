/** Receiver operating characteristic of scores. */
import type { RocPoint } from "./types.js";

export interface Scored {
  score: number;
  positive: boolean;
}

/** From nothing fires to everything fires; prompts with the same score fire together. */
export function rocPoints(scored: readonly Scored[]): RocPoint[] {
  const positives = scored.filter(({ positive }) => positive).length;
  const negatives = scored.length - positives;
  const falling = [...scored].sort((a, b) => b.score - a.score);
  const points: RocPoint[] = [{ falsePositiveRate: 0, truePositiveRate: 0, threshold: null }];
  let hits = 0;
  let alarms = 0;
  for (const [place, { score, positive }] of falling.entries()) {
    if (positive) hits += 1;
    else alarms += 1;
    if (falling[place + 1]?.score === score) continue;
    points.push({
      falsePositiveRate: alarms / negatives,
      truePositiveRate: hits / positives,
      threshold: score,
    });
  }
  return points;
}

/** Chance that a positive scores above a negative, ties counting half; item i occurs `times(i)` times. NaN without both. */
export function auroc(scored: readonly Scored[], times: (place: number) => number): number {
  const rising = scored.map((_, place) => place);
  rising.sort((a, b) => (scored[a]?.score ?? 0) - (scored[b]?.score ?? 0));
  return aurocOfSorted(scored, rising, times);
}

/** As `auroc`, with the places in rising order of score: a resample does not sort again. */
export function aurocOfSorted(
  scored: readonly Scored[],
  rising: readonly number[],
  times: (place: number) => number,
): number {
  let below = 0;
  let positives = 0;
  let wins = 0;
  for (let start = 0; start < rising.length; ) {
    const score = scored[rising[start] ?? 0]?.score;
    let tiedPositives = 0;
    let tiedNegatives = 0;
    let end = start;
    for (; end < rising.length; end += 1) {
      const place = rising[end] ?? 0;
      const item = scored[place];
      if (item === undefined || item.score !== score) break;
      if (item.positive) tiedPositives += times(place);
      else tiedNegatives += times(place);
    }
    wins += tiedPositives * (below + tiedNegatives / 2);
    positives += tiedPositives;
    below += tiedNegatives;
    start = end;
  }
  return wins / (positives * below);
}
