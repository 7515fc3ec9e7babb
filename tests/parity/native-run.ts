/** Runs requests through the real addon and gathers what they gave. */

import { openCheckpoint } from "../../src/model/checkpoint.js";
import type {
  NativeActivationEvent,
  NativeCaptureSite,
  NativeDoneEvent,
  NativeEngineOptions,
  NativeReadyEvent,
  NativeSampling,
  NativeScoredToken,
  NativeSteering,
} from "../../src/native/binding.js";
import { NATIVE_API_VERSION } from "../../src/native/binding.js";
import { Engine } from "../../src/native/engine.js";
import { loadNativeBinding } from "../../src/native/load.js";

export const GREEDY: NativeSampling = {
  temperature: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  seed: 0n,
  stopTokenIds: new Uint32Array(),
  logitBiasTokenIds: new Uint32Array(),
  logitBiasValues: new Float32Array(),
  logprobs: false,
  topLogprobs: 0,
};

export function engineOptions(
  folder: string,
  overrides: Partial<NativeEngineOptions> = {},
): NativeEngineOptions {
  const checkpoint = openCheckpoint(folder);
  return {
    apiVersion: NATIVE_API_VERSION,
    config: checkpoint.config,
    checkpoint: checkpoint.native,
    device: "cpu",
    cpuIsa: "auto",
    weightFormat: "auto",
    kvDtype: "f32",
    threads: 2,
    kvCacheBytes: 16 << 20,
    maxBatchTokens: 64,
    maxRunningSequences: 8,
    maxSteeringsPerRequest: 8,
    captureStagingBytes: 16 << 20,
    prefixCache: true,
    mergedAdapter: null,
    maxAdapterBytes: 256 << 20,
    tokenBytes: new Uint8Array(),
    tokenOffsets: new Uint32Array(),
    ...overrides,
  };
}

export async function startEngine(
  folder: string,
  overrides: Partial<NativeEngineOptions> = {},
): Promise<{ engine: Engine; ready: NativeReadyEvent }> {
  const engine = new Engine(loadNativeBinding(), engineOptions(folder, overrides));
  return { engine, ready: await engine.ready };
}

export interface RunOptions {
  prompt: Uint32Array;
  maxNewTokens: number;
  steering?: NativeSteering[];
  adapter?: number;
  stopTokenIds?: Uint32Array;
  /** Log-probabilities of this many tokens, for prompt positions from 1 on and what is generated. */
  topLogprobs?: number;
  capture?: { sites: NativeCaptureSite[]; layers: number[]; from: number; to: number };
}

export interface RunResult {
  tokens: NativeScoredToken[];
  /** Of the prompt's tokens from position 1 on. */
  promptLogprobs: NativeScoredToken[];
  activations: NativeActivationEvent[];
  done: NativeDoneEvent;
}

const PLENTY = 1 << 20;
const PLENTY_BYTES = 2 ** 40;

export async function runRequest(engine: Engine, options: RunOptions): Promise<RunResult> {
  const topLogprobs = options.topLogprobs ?? 0;
  const stream = engine.submit({
    promptTokenIds: options.prompt,
    completions: 1,
    maxNewTokens: options.maxNewTokens,
    sampling: {
      ...GREEDY,
      stopTokenIds: options.stopTokenIds ?? new Uint32Array(),
      logprobs: topLogprobs > 0,
      topLogprobs,
    },
    steering: options.steering ?? [],
    capture: options.capture
      ? {
          sites: options.capture.sites,
          layers: Int32Array.from(options.capture.layers),
          positionBegin: options.capture.from,
          positionEnd: options.capture.to,
          mean: false,
          beforeSteering: false,
          dtype: "f32",
          lensTopK: 0,
          afterText: new Uint8Array(),
        }
      : null,
    promptLogprobsFrom: topLogprobs > 0 && options.prompt.length > 1 ? 1 : null,
    credits: PLENTY,
    captureCreditBytes: PLENTY_BYTES,
    proofPromptTokens: 0,
    cacheSalt: "",
    deadlineNs: 0n,
    adapter: options.adapter ?? 0,
    probes: [],
    compareUnsteered: false,
  });
  const result: Omit<RunResult, "done"> = { tokens: [], promptLogprobs: [], activations: [] };
  for await (const batch of stream) {
    for (const event of batch) {
      if (event.type === "token") result.tokens.push(event.token);
      if (event.type === "prompt_logprobs") result.promptLogprobs.push(...event.tokens);
      if (event.type === "activations") result.activations.push(event);
      if (event.type === "done") return { ...result, done: event };
    }
  }
  throw new Error("the stream ended without a done event");
}
