/**
 * What a study is made of: the records that the plan, the runner, the judges, the statistics and the
 * report hand to one another, and that are kept on disk. No record holds a time or an order of arrival:
 * two runs of one study write the same records.
 *
 * A run's folder:
 *   study.yaml       the study file, as it was given
 *   plan.json        a `StudyPlan`
 *   vectors/         <name>.safetensors: every vector that acted, random directions included
 *   answers.jsonl    one `Answer` a line, in the order of arrival; appended and synced
 *   verdicts.jsonl   one `Judgement` a line, in the order of arrival; appended and synced
 *   probe.jsonl      one `ProbeReading` a line
 *   timings.json     wall time; the only file that differs between two runs
 *   report/          index.html, report.md, rows.jsonl, rows.csv, figures.json
 */

/** What an answer is; every answer is exactly one. */
export const ANSWER_CLASSES = ["secure", "insecure", "unparsable", "refused", "off-task"] as const;
export type AnswerClass = (typeof ANSWER_CLASSES)[number];

/** Why a cell is in the study. */
export const CELL_PURPOSES = [
  "unsteered",
  "sanity",
  "sweep",
  "random-control",
  "layer-control",
  "layer-scan",
  "several-layers",
  "project-out",
  "scratchpad-only",
  "gated",
  "baked",
] as const;
export type CellPurpose = (typeof CELL_PURPOSES)[number];

/** One prompt of a prompt set. */
export interface StudyPrompt {
  /** Unique in its set. */
  id: string;
  /** Prompts of one task (with the trigger, without it) share it; the bootstrap draws tasks. */
  task: string;
  text: string;
  /** Name of the function that the answer must define; null for a prompt that asks for no code. */
  function: string | null;
  /** CWE or another heading to break figures down by; null for none. */
  kind: string | null;
}

/** Steered as `cells` say, the same for all of its prompts. */
export interface StudyCell {
  /** Readable and unique: "sweep/code/L4/+0.50/trigger". */
  id: string;
  purpose: CellPurpose;
  /** Empty: the base model. */
  adapter: string;
  /** Name of a prompt set of the study. */
  promptSet: string;
  /** Kind of judge: of code, or of sentiment. */
  judge: "code" | "sentiment";
  /** The study's name of the vector ("code", "random-3"); null when nothing acts. */
  vector: string | null;
  operation: "ADD" | "PROJECT_OUT" | null;
  layers: number[];
  /** ADD: ‖c·v‖ as a multiple of the mean residual norm of the layer, signed. PROJECT_OUT: c. 0 when nothing acts. */
  magnitude: number;
  /** The unsteered cell of the same model and prompts: what its rows are paired with; null for that cell itself. */
  pairedWith: string | null;
}

/** One vector, as it was found on the server. */
export interface StudyVector {
  name: string;
  /** "sha256:…" of its content. */
  digest: string;
  method: string;
  /** Per layer: the coefficient that gives magnitude 1. */
  unitCoefficients: Record<number, number>;
  /** Per layer: mean ‖h‖ that a magnitude is a multiple of. */
  residualNorms: Record<number, number>;
  /** Digest of the pairs; empty for a random direction. */
  pairsDigest: string;
  /** Per layer: share of pairs separated, split-half cosine; absent for random directions. */
  separation?: Record<number, { separated: number; splitHalfCosine: number }>;
}

/** Everything that is fixed before the first answer. */
export interface StudyPlan {
  name: string;
  title: string;
  /** "sha256:…" of the study file and of the prompts and pairs that it names. */
  digest: string;
  server: {
    version: string;
    modelName: string;
    fingerprint: string;
    device: string;
    isa: string;
    dtype: string;
    kvDtype: string;
    layers: number;
    hiddenSize: number;
    /** Id and "sha256:…" of each adapter in use. */
    adapters: Record<string, string>;
  };
  sampling: {
    temperature: number;
    topP: number;
    maxNewTokens: number;
    draws: number;
    seed: string;
  };
  promptSets: Record<string, StudyPrompt[]>;
  vectors: StudyVector[];
  cells: StudyCell[];
  /** The probe of the detection step, and the gate of gated cells; absent without that step. */
  probe?: StudyProbe;
  /** Absent in a run that is not judged. */
  judges?: { name: string; kind: "code" | "sentiment"; version: string }[];
}

/** A calibrated probe. */
export interface StudyProbe {
  digest: string;
  layer: number;
  /** Fires above it. */
  threshold: number;
  /** The rate that was asked for, and the share of the benign texts that fire. */
  falsePositiveRate: number;
  measuredFalsePositiveRate: number;
  benignInputs: number;
}

/** What acted on an answer; from the proof of steering in the response. */
export interface AnswerSteering {
  digest: string;
  layers: number[];
  coefficient: number;
  promptTokens: number;
  generatedTokens: number;
  /** Mean ‖Δh‖/‖h‖ over the steered rows. */
  meanDeltaRatio: number;
  gateFired: number;
  gateEvaluations: number;
}

/** One answer: a cell, a prompt and a draw. */
export interface Answer {
  /** `rowId(cell, prompt, draw)`. */
  row: string;
  cell: string;
  prompt: string;
  /** From 0. */
  draw: number;
  /** Decimal; that of the request. */
  seed: string;
  text: string;
  tokenIds: number[];
  finishReason: "STOP" | "STOP_TEXT" | "LENGTH";
  steering: AnswerSteering[];
  /** exp of the mean negative log-probability of the answer's tokens under the unsteered base model; null for an empty answer. */
  perplexity: number | null;
}

/** One judge's word on one answer. */
export interface Judgement {
  row: string;
  /** Name of the judge in the study file. */
  judge: string;
  /** null from a judge of sentiment. */
  class: AnswerClass | null;
  /** Sentiment, −1 to 1; null from a judge of code. */
  score: number | null;
  /** What it found: rule ids, sorted; what makes the verdict checkable. */
  findings: string[];
}

/** What a direction reads at one prompt, and whether the unsteered answer to it was insecure. */
export interface ProbeReading {
  /** "probe", or "random-17". */
  direction: string;
  layer: number;
  promptSet: string;
  prompt: string;
  score: number;
  /** Above the threshold of the calibration; null for a direction that was not calibrated. */
  fired: boolean | null;
}

/** Wall time of a run, over all of its starts. */
export interface StudyTimings {
  generationSeconds: number;
  judgingSeconds: number;
  answers: number;
  generatedTokens: number;
  starts: number;
}

/** A run's folder, read. `answers` and `judgements` are in the order of the plan, complete and without doubles. */
export interface StudyRun {
  study: string;
  plan: StudyPlan;
  answers: Answer[];
  judgements: Judgement[];
  probe: ProbeReading[];
  timings: StudyTimings;
}

export function rowId(cell: string, prompt: string, draw: number): string {
  return `${cell}/${prompt}#${draw}`;
}
