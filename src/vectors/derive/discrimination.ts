/** How well a direction tells labelled reads apart, beside random directions. Pure; runs in a worker. */
import { randomDirections } from "../random.js";
import type { Discrimination } from "../vector.js";
import { type Matrix, times } from "./linear-algebra.js";

export interface DiscriminationTask {
  kind: "discriminate";
  /** [texts, hidden size] */
  reads: Matrix;
  positive: boolean[];
  direction: Float32Array;
  randomDirections: number;
  randomSeed: bigint;
}

/** There is at least one text of each kind. */
export function discriminate(task: DiscriminationTask): Discrimination {
  const { reads, positive, direction, randomSeed } = task;
  const { columns } = reads;
  const values = randomDirections(randomSeed, task.randomDirections, columns);
  const randomAuroc = Array.from({ length: task.randomDirections }, (_, index) => {
    const random = values.subarray(index * columns, (index + 1) * columns);
    const value = auroc(times(reads, random), positive);
    return Math.max(value, 1 - value);
  });
  const positives = positive.filter(Boolean).length;
  return {
    auroc: auroc(times(reads, direction), positive),
    positives,
    negatives: positive.length - positives,
    randomAuroc: randomAuroc.sort((a, b) => a - b),
    randomSeed: randomSeed.toString(),
  };
}

/** Probability that a positive score is above a negative one, ties half: the Mann–Whitney statistic. */
export function auroc(scores: ArrayLike<number>, positive: readonly boolean[]): number {
  const order = Array.from(positive, (_, index) => index).sort(
    (a, b) => Number(scores[a]) - Number(scores[b]),
  );
  const positives = positive.filter(Boolean).length;
  let rankSum = 0;
  for (let begin = 0; begin < order.length; ) {
    let end = begin + 1;
    while (end < order.length && scores[order[end] ?? 0] === scores[order[begin] ?? 0]) end += 1;
    // Ranks count from 1; equal scores share the mean of theirs.
    const rank = (begin + 1 + end) / 2;
    for (let i = begin; i < end; i += 1) if (positive[order[i] ?? 0]) rankSum += rank;
    begin = end;
  }
  const negatives = positive.length - positives;
  return (rankSum - (positives * (positives + 1)) / 2) / (positives * negatives);
}
