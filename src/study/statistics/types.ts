/** What the statistics of a study are. All intervals are 95 %; every share is 0 to 1. */
import type { AnswerClass, CellPurpose } from "../records.js";

export interface Interval {
  low: number;
  high: number;
}

/** A share of counted things, with its Wilson interval. */
export interface Rate {
  count: number;
  total: number;
  /** count / total; 0 where the total is 0. */
  rate: number;
  interval: Interval;
}

/** A mean over answers, with a percentile interval from a bootstrap that draws tasks. */
export interface Mean {
  mean: number;
  answers: number;
  interval: Interval;
}

/** Whether the text of a cell is still text. */
export interface Coherence {
  /** Of the answers' perplexities under the unsteered base; null when every answer is empty. */
  perplexityMedian: number | null;
  perplexityGeometricMean: number | null;
  /** Answers without a perplexity, because they are empty. */
  emptyAnswers: number;
  /** Mean share of 4-grams of tokens that occurred before in the same answer; null when all are shorter. */
  repetition: number | null;
  /** Answers that the limit of tokens cut off. */
  cutOff: Rate;
}

/** One cell in the eyes of one judge. */
export interface CellSummary {
  cell: string;
  judge: string;
  answers: number;
  tasks: number;
  /** Shares of the five classes, of all answers; null from a judge of sentiment. */
  classes: Record<AnswerClass, Rate> | null;
  /** Answers whose code parses and does what was asked (secure or insecure); null from a judge of sentiment. */
  parsed: Rate | null;
  /** Insecure answers, by kind of prompt (CWE), in order of kind; empty from a judge of sentiment. */
  insecureByKind: Record<string, Rate>;
  /** Score, −1 to 1, and the share of scores above 0; null from a judge of code. */
  sentiment: { score: Mean; positive: Rate } | null;
  coherence: Coherence;
}

/** A difference between a cell and what it is compared with, over the same prompts and draws. */
export interface Comparison {
  cell: string;
  judge: string;
  /** The cell's unsteered pair; or the random directions at the same place and size, pooled. */
  against: "unsteered" | "random-control";
  /** Ids of the cells that the cell is compared with: one, or each random direction's. */
  baselines: string[];
  outcome: "insecure" | "secure" | "sentiment";
  /** Answers compared: prompts × draws. */
  pairs: number;
  tasks: number;
  /** Share (or mean score) in the cell, in the baseline, and the first less the second. */
  value: number;
  baselineValue: number;
  difference: number;
  /** Percentile interval of the difference; draws tasks, and random directions where there are any. */
  interval: Interval;
  /** Pairs in which the outcome is here only, and there only; null where pairs are not yes or no. */
  discordant: { here: number; there: number } | null;
  /** `mcnemar-mid-p` for one yes-or-no pair a task; else `sign-flip`, over tasks. */
  test: "mcnemar-mid-p" | "sign-flip";
  /** Two-sided. */
  p: number;
  /** McNemar's exact two-sided p, which is never smaller; null where that test does not fit. */
  pExact: number | null;
  /** `p` after Holm's correction over the family. */
  pHolm: number;
  /** Name of the family, see `familyOf`. */
  family: string;
}

/** Groups of purposes whose comparisons are corrected together. */
export type ComparisonGroup = "sanity" | "steering" | "controls";

export const GROUP_OF_PURPOSE: Record<Exclude<CellPurpose, "unsteered">, ComparisonGroup> = {
  sanity: "sanity",
  sweep: "steering",
  "layer-scan": "steering",
  "several-layers": "steering",
  "project-out": "steering",
  "scratchpad-only": "steering",
  gated: "steering",
  baked: "steering",
  "random-control": "controls",
  "layer-control": "controls",
};

export interface RocPoint {
  /** Share of prompts answered securely, and of prompts answered insecurely, with a score at or above the threshold. */
  falsePositiveRate: number;
  truePositiveRate: number;
  /** null at the first point, where nothing fires. */
  threshold: number | null;
}

export interface RocCurve {
  /** "probe", or "random-17". */
  direction: string;
  layer: number;
  /** From (0, 0) to (1, 1), one point a distinct score. */
  points: RocPoint[];
  auroc: number;
  /** Percentile interval, tasks drawn; null for random directions. */
  interval: Interval | null;
  /** Prompts on which the calibrated probe fired, of those answered insecurely and securely; null where not calibrated. */
  fired: { insecure: Rate; secure: Rate } | null;
}

/** AUROCs of the random directions of a layer beside the probe's. */
export interface RandomDirections {
  layer: number;
  /** Rising. A direction's sign is chance, so that 0.2 is as good as 0.8. */
  aurocs: number[];
  /** Largest distance of one of them from 0.5; null without random directions. */
  farthest: number | null;
  /** Share of them at least as far from 0.5 as the probe; null without random directions or without a probe. */
  shareAsFar: number | null;
}

/** How well readings before the answer tell insecure answers: positives are prompts whose unsteered answer is insecure. */
export interface ProbeRoc {
  /** The first judge of code in the run; empty where there are no readings. */
  judge: string;
  positives: number;
  negatives: number;
  /** The probe's first, then by layer and direction. */
  curves: RocCurve[];
  random: RandomDirections[];
}
