/** The one interface of judges. */
import type { Judgement, StudyPrompt } from "../records.js";

export interface JudgedAnswer {
  row: string;
  text: string;
  prompt: StudyPrompt;
}

export interface Judge {
  /** Its name in the study file. */
  readonly name: string;
  readonly kind: "code" | "sentiment";
  /** What judged, with its version: "bandit 1.9.4"; goes into the report. */
  version(signal: AbortSignal): Promise<string>;
  /**
   * One judgement an answer, in order. The same answers get the same judgements, in any batch. Throws an
   * Error that says what to install or what the tool said; never leaves an answer out.
   */
  judge(answers: readonly JudgedAnswer[], signal: AbortSignal): Promise<Judgement[]>;
}
