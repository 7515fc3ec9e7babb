/** Limits on requests. Each is configured, checked before any work is done, and told by GetModel. */
import type { Config } from "../config/schema.js";

type LimitName =
  | "maxCompletions"
  | "maxSteerings"
  | "maxCoefficient"
  | "maxStopTexts"
  | "maxStopTextBytes"
  | "maxStopTokenIds"
  | "maxLogprobs"
  | "maxLogitBiases"
  | "maxChatMessages"
  | "maxPromptBytes"
  | "maxContinuations"
  | "maxCaptureInputs"
  | "maxProbes"
  | "maxAfterTextBytes"
  | "maxLensTopK"
  | "maxPairs"
  | "maxDeriveBytes"
  | "maxImportBytes"
  | "maxProbeInputs"
  | "maxRandomDirections";

/** What validation needs to know. */
export interface RequestLimits extends Pick<Config, LimitName> {
  contextTokens: number;
  vocabSize: number;
  layers: number;
}
