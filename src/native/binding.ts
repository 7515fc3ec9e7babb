/**
 * THE contract with C++: every type that crosses. Whole objects only: `null`, never `undefined`;
 * defaults live above this seam; field order as in addon/engine/{request,event,engine}.h.
 *
 * TypeScript speaks names, text and policy. C++ speaks token ids, handles, absolute positions and
 * rows of floats.
 */

/** Bumped when anything here changes; the addon refuses another number. */
export const NATIVE_API_VERSION = 3;

export type DTypeName = "f32" | "f16" | "bf16";
export type WeightFormat = "auto" | "bf16" | "int8" | "fp8";

export interface NativeLlamaConfig {
  hiddenSize: number;
  intermediateSize: number;
  layers: number;
  queryHeads: number;
  kvHeads: number;
  headSize: number;
  vocabSize: number;
  contextTokens: number;
  normEpsilon: number;
  ropeTheta: number;
  ropeScaling: {
    factor: number;
    lowFrequencyFactor: number;
    highFrequencyFactor: number;
    originalContextTokens: number;
  } | null;
  /** Rope type "linear": positions are divided by this; 1 = none. */
  ropeLinearFactor: number;
  tiedEmbeddings: boolean;
  attentionBias: boolean;
  mlpBias: boolean;
}

export interface NativeTensorLocation {
  name: string;
  dtype: DTypeName;
  shape: number[];
  /** Index into `NativeCheckpoint.paths`. */
  file: number;
  /** From the start of the file. */
  offsetBytes: number;
  sizeBytes: number;
}

export interface NativeCheckpoint {
  paths: string[];
  tensors: NativeTensorLocation[];
}

export type NativeLoraModule = "q" | "k" | "v" | "o" | "gate" | "up" | "down";

/** y += scale * B (A x) beside one projection. */
export interface NativeLoraTarget {
  layer: number;
  module: NativeLoraModule;
  rank: number;
  /** alpha / rank, or alpha / sqrt(rank). */
  scale: number;
  /** [rank, inputs] */
  a: NativeTensorLocation;
  /** [outputs, rank] */
  b: NativeTensorLocation;
}

export interface NativeAdapter {
  /** At least 1; 0 is the base model. */
  handle: number;
  /** sha256 of the content, 32 bytes. */
  digest: Uint8Array;
  /** `NativeTensorLocation.file` counts in these. */
  paths: string[];
  targets: NativeLoraTarget[];
}

export interface NativeEngineOptions {
  apiVersion: number;
  config: NativeLlamaConfig;
  checkpoint: NativeCheckpoint;
  device: string;
  cpuIsa: string;
  weightFormat: WeightFormat;
  kvDtype: "bf16" | "f32";
  /** 0 = one for each core. */
  threads: number;
  kvCacheBytes: number;
  maxBatchTokens: number;
  maxRunningSequences: number;
  maxSteeringsPerRequest: number;
  captureStagingBytes: number;
  prefixCache: boolean;
  /** Added to the weights as they are loaded; null: none. Its handle means nothing. */
  mergedAdapter: NativeAdapter | null;
  /** Of all adapters that the engine holds. */
  maxAdapterBytes: number;
  /**
   * UTF-8 bytes of every token as it stands in text: token t is bytes
   * [tokenOffsets[t], tokenOffsets[t + 1]). Both empty: no request may look for text.
   */
  tokenBytes: Uint8Array;
  /** [vocabSize + 1], ascending. */
  tokenOffsets: Uint32Array;
}

export interface NativeSampling {
  temperature: number;
  topP: number;
  topK: number;
  minP: number;
  repetitionPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  seed: bigint;
  /** The EOS set included, unless it is to be ignored. */
  stopTokenIds: Uint32Array;
  logitBiasTokenIds: Uint32Array;
  logitBiasValues: Float32Array;
  logprobs: boolean;
  topLogprobs: number;
}

export type NativeSteerKind = "add" | "project_out" | "clamp" | "scale_component";

export type NativeGateMetric = "dot" | "cosine";
export type NativeGateComparator = "above" | "below";
export type NativeGateScope = "each_token" | "prompt_last_token" | "prompt_mean";

/**
 * The condition of a steering: a score of the residual stream after block `layer`, before the
 * steerings of that block, strictly above or below the threshold.
 */
export interface NativeGate {
  vector: number;
  layer: number;
  metric: NativeGateMetric;
  comparator: NativeGateComparator;
  threshold: number;
  scope: NativeGateScope;
  /**
   * The prompt of the prompt scopes is positions [0, promptTokens); 0: all that is submitted. In a
   * scored sequence the continuation is no part of it.
   */
  promptTokens: number;
}

/** The end of a position range that never closes. */
export const OPEN_END = 0x7fffffff;

export interface NativeSteering {
  vector: number;
  kind: NativeSteerKind;
  coefficient: number;
  clampMin: number;
  clampMax: number;
  /** Ascending, each held by the vector. */
  layers: Int32Array;
  preserveNorm: boolean;
  /** Acts on absolute positions in [positionBegin, positionEnd). */
  positionBegin: number;
  positionEnd: number;
  gate: NativeGate | null;
  /**
   * UTF-8. Not empty: acts only on tokens after the one that completes this text for the first time
   * in prompt and completion.
   */
  afterText: Uint8Array;
}

export type NativeCaptureSite = "resid_pre" | "attn_out" | "mlp_out" | "resid_post" | "final_norm";

export interface NativeCapture {
  sites: NativeCaptureSite[];
  layers: Int32Array;
  positionBegin: number;
  positionEnd: number;
  mean: boolean;
  beforeSteering: boolean;
  dtype: DTypeName;
  /** Most likely tokens of unembed(final_norm(x)) for each captured row; 0: none. */
  lensTopK: number;
  /** As in NativeSteering; empty: none. */
  afterText: Uint8Array;
}

/** A score of the steered residual stream after block `layer`: r · d. */
export interface NativeProbe {
  vector: number;
  layer: number;
  /** "each_token": at the positions whose logits give a generated token. */
  read: "each_token" | "prompt_last" | "after_text";
  /** UTF-8, for "after_text": read at the token that completes it for the first time. */
  afterText: Uint8Array;
}

/** What an entry of the lens counts against the credit of captured bytes. */
export const LENS_ENTRY_BYTES = 64;

export interface NativeRequest {
  id: number;
  promptTokenIds: Uint32Array;
  completions: number;
  /** 0 = prefill only (scoring, capture). */
  maxNewTokens: number;
  sampling: NativeSampling;
  steering: NativeSteering[];
  capture: NativeCapture | null;
  /** Logprobs of prompt tokens at positions >= this (at least 1). */
  promptLogprobsFrom: number | null;
  /** Token or activation events that may be sent before `grant`. */
  credits: number;
  /**
   * Bytes of captured rows that may be sent before `grant`: an event counts with `eventBytes` of
   * engine.ts. At least one token's rows, unless a mean is captured; 0 without a capture.
   */
  captureCreditBytes: number;
  /**
   * In the proof, prompt tokens from here on count as generated: the continuation of a scored
   * sequence. 0: none.
   */
  proofPromptTokens: number;
  cacheSalt: string;
  /** `process.hrtime.bigint()` clock (CLOCK_MONOTONIC); 0n = none. */
  deadlineNs: bigint;
  /** From `putAdapter`; 0: the base model. */
  adapter: number;
  probes: NativeProbe[];
  /** Report KL(steered || unsteered) with every token. */
  compareUnsteered: boolean;
}

export interface NativeVector {
  handle: number;
  /** sha256 of the content, 32 bytes. */
  digest: Uint8Array;
  layers: Int32Array;
  /** [layers * hiddenSize], row-major. */
  rows: Float32Array;
}

export type NativeFinishReason = "none" | "stop" | "length" | "cancelled";

export interface NativeTokenLogprob {
  tokenId: number;
  logprob: number;
}

export interface NativeScoredToken {
  tokenId: number;
  logprob: number;
  top: NativeTokenLogprob[];
}

export interface NativeStatus {
  /** A google.rpc.Code; 0 = ok. */
  code: number;
  message: string;
}

export interface NativeApplied {
  promptTokens: number;
  generatedTokens: number;
  steeredRows: number;
  meanDeltaRatio: number;
  /** Tokens at which its gate was evaluated, or 1 for a gate on the prompt. */
  gateEvaluations: number;
  /** Of those, how often it acted. */
  gateFired: number;
  /** First position that it is meant for, one a completion; -1: `afterText` has not appeared. */
  firstPositions: Int32Array;
}

export interface NativeTimings {
  queueNs: number;
  prefillNs: number;
  decodeNs: number;
  timeToFirstTokenNs: number;
}

export interface NativeReadyEvent {
  type: "ready";
  device: { kind: string; name: string; isa: string; threads: number };
  /** Why `auto` came to the CPU; empty when it did not. */
  deviceFallback: string;
  weightDtype: string;
  kvDtype: string;
  weightBytes: number;
  kvBytes: number;
  kvBlocks: number;
  kvBlockTokens: number;
}
export interface NativeLoadProgressEvent {
  type: "load_progress";
  doneBytes: number;
  totalBytes: number;
}
export interface NativeFatalEvent {
  type: "fatal";
  status: NativeStatus;
}
export interface NativePromptLogprobsEvent {
  type: "prompt_logprobs";
  id: number;
  firstPosition: number;
  tokens: NativeScoredToken[];
}
export interface NativeTokenEvent {
  type: "token";
  id: number;
  completion: number;
  token: NativeScoredToken;
  hasLogprob: boolean;
  /** Not "none": this is the last token of this completion. */
  finish: NativeFinishReason;
  /**
   * KL(steered || unsteered) in nats of the distribution that the token was drawn from, before
   * sampling options; null when it was not asked for.
   */
  klToUnsteered: number | null;
}
/** Scores of one probe at consecutive positions. Takes no credit. */
export interface NativeProbeEvent {
  type: "probe_scores";
  id: number;
  /** -1: positions of the prompt, shared by all completions. */
  completion: number;
  /** Index in `NativeRequest.probes`. */
  probe: number;
  positions: Int32Array;
  scores: Float32Array;
}
export interface NativeActivationEvent {
  type: "activations";
  id: number;
  site: NativeCaptureSite;
  layer: number;
  positions: Int32Array;
  tokenIds: Uint32Array;
  dtype: DTypeName;
  rows: number;
  cols: number;
  /** Little-endian, row-major. */
  data: Uint8Array;
  /** One a row: the most likely tokens by falling logprob; empty without a lens. */
  lens: NativeTokenLogprob[][];
  /** -1: rows of the prompt. */
  completion: number;
}
/** Ends a request: exactly one, always the last event of its id. */
export interface NativeDoneEvent {
  type: "done";
  id: number;
  status: NativeStatus;
  finishReasons: NativeFinishReason[];
  promptTokens: number;
  cachedPromptTokens: number;
  completionTokens: number;
  timings: NativeTimings;
  applied: NativeApplied[];
}

export type NativeEvent =
  | NativeLoadProgressEvent
  | NativeReadyEvent
  | NativeFatalEvent
  | NativePromptLogprobsEvent
  | NativeTokenEvent
  | NativeProbeEvent
  | NativeActivationEvent
  | NativeDoneEvent;

export interface NativeStats {
  waitingRequests: number;
  runningRequests: number;
  waitingPromptTokens: number;
  kvBlocks: number;
  kvBlocksUsed: number;
  kvBlocksCached: number;
  steps: number;
  lastStepAgeSeconds: number;
  preemptions: number;
  promptTokens: number;
  cachedPromptTokens: number;
  generatedTokens: number;
  nonfiniteRows: number;
  captureBytes: number;
  residentVectors: number;
  residentVectorBytes: number;
  residentAdapters: number;
  residentAdapterBytes: number;
  /** Of requests that have ended. */
  gateEvaluations: number;
  gateFired: number;
  /** Rows of each step since the last call (newest 4096). */
  recentBatchTokens: number[];
}

/** Every method returns at once. Methods throw a TypeError on a malformed argument only. */
export interface NativeEngine {
  submit(request: NativeRequest): void;
  /** `completion` < 0: all completions. */
  cancel(id: number, completion: number): void;
  grant(id: number, credits: number, captureBytes: number): void;
  /** Throws an Error with a numeric `code` (google.rpc.Code) when the vector cannot be held. */
  putVector(vector: NativeVector): void;
  dropVector(handle: number): void;
  /** As `putVector`. Reads and checks the files before it returns. */
  putAdapter(adapter: NativeAdapter): void;
  dropAdapter(handle: number): void;
  stats(): NativeStats;
  /** Ends every request, joins the engine thread within one step; idempotent. */
  close(): void;
}

export interface NativeBinding {
  readonly apiVersion: number;
  /**
   * Returns at once; loading is told by events. `onEvents` is called on the JavaScript thread with
   * every event since the last call, in order. Throws when a second engine asks for a busy device.
   */
  openEngine(options: NativeEngineOptions, onEvents: (events: NativeEvent[]) => void): NativeEngine;
}
