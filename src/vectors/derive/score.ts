/**
 * Scores of reads along a direction, and how well they tell labelled reads apart, beside random
 * directions. Pure; runs in a worker.
 */
import { randomDirections } from "../random.js";
import type { Discrimination } from "../vector.js";
import { type Matrix, times } from "./linear-algebra.js";

export interface ScoreTask {
  kind: "score";
  /** [texts, hidden size] */
  reads: Matrix;
  direction: Float32Array;
  /** h·d as the engine has them; null: worked out here, in float64. */
  scores: Float64Array | null;
  /** One a text; null: not labelled. */
  positive: (boolean | null)[];
  /** Of the control, for labelled texts. */
  randomDirections: number;
  randomSeed: bigint;
}

export interface ScoreResult {
  /** h·d */
  scores: Float64Array;
  /** Over the labelled texts; null unless there are both kinds. */
  discrimination: Discrimination | null;
}

export function scoreReads(task: ScoreTask): ScoreResult {
  const scores = task.scores ?? times(task.reads, task.direction);
  return { scores, discrimination: discriminate(task, scores) };
}

function discriminate(task: ScoreTask, scores: Float64Array): Discrimination | null {
  const { reads, randomSeed } = task;
  const labelled = [...task.positive.keys()].filter((row) => task.positive[row] !== null);
  const positive = labelled.map((row) => task.positive[row] === true);
  const positives = positive.filter(Boolean).length;
  if (positives === 0 || positives === labelled.length) return null;
  const aurocOf = (all: Float64Array) =>
    auroc(
      labelled.map((row) => all[row] ?? 0),
      positive,
    );
  const { columns } = reads;
  const values = randomDirections(randomSeed, task.randomDirections, columns);
  const randomAuroc = Array.from({ length: task.randomDirections }, (_, index) => {
    const random = values.subarray(index * columns, (index + 1) * columns);
    const value = aurocOf(times(reads, random));
    return Math.max(value, 1 - value);
  });
  return {
    auroc: aurocOf(scores),
    positives,
    negatives: labelled.length - positives,
    randomAuroc: randomAuroc.sort((a, b) => a - b),
    randomSeed: randomSeed.toString(),
  };
}

/** Probability that a positive score is above a negative one, ties half: the Mann–Whitney statistic. */
export function auroc(scores: readonly number[], positive: readonly boolean[]): number {
  const order = [...scores.keys()].sort((a, b) => (scores[a] ?? 0) - (scores[b] ?? 0));
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
