/** Sampling options of a request. */
import { randomBytes } from "node:crypto";
import type { NativeSampling } from "../native/binding.js";
import { checkFits, type GenerationContext, type InputSpec } from "./context.js";

export interface SamplingSpec {
  /** Null: the default, or what the context leaves. */
  maxNewTokens: number | null;
  temperature: number;
  topP: number;
  topK: number;
  minP: number;
  repetitionPenalty: number;
  presencePenalty: number;
  frequencyPenalty: number;
  /** Null: drawn. */
  seed: bigint | null;
  completions: number;
  stop: string[];
  stopTokenIds: number[];
  ignoreEos: boolean;
  /** 0: none; k: each token's and the k most likely. */
  logprobs: number;
  logitBias: Map<number, number>;
}

const DEFAULT_MAX_NEW_TOKENS = 256;

/** How many tokens a completion may get. Throws InvalidArgumentError when they do not fit. */
export function checkedNewTokens(
  context: GenerationContext,
  sampling: SamplingSpec,
  input: InputSpec,
  promptTokens: number,
): number {
  const { contextTokens } = context.model.config;
  const room = Math.min(contextTokens, context.kvCacheTokens) - promptTokens;
  const wanted = sampling.maxNewTokens ?? Math.max(1, Math.min(DEFAULT_MAX_NEW_TOKENS, room));
  const blamed = room < 1 ? input.field : "sampling.max_new_tokens";
  checkFits(context, blamed, promptTokens, wanted);
  return wanted;
}

/** The seed that was asked for, or a new one. */
export function seedOf(sampling: SamplingSpec): bigint {
  return sampling.seed ?? randomBytes(8).readBigUInt64LE();
}

export function nativeSampling(
  context: GenerationContext,
  sampling: SamplingSpec,
  seed: bigint,
): NativeSampling {
  const eos = sampling.ignoreEos ? [] : context.model.checkpoint.eosTokenIds;
  return {
    temperature: sampling.temperature,
    topP: sampling.topP,
    topK: sampling.topK,
    minP: sampling.minP,
    repetitionPenalty: sampling.repetitionPenalty,
    presencePenalty: sampling.presencePenalty,
    frequencyPenalty: sampling.frequencyPenalty,
    seed,
    stopTokenIds: Uint32Array.from([...eos, ...sampling.stopTokenIds]),
    logitBiasTokenIds: Uint32Array.from(sampling.logitBias.keys()),
    logitBiasValues: Float32Array.from(sampling.logitBias.values()),
    logprobs: sampling.logprobs > 0,
    topLogprobs: sampling.logprobs,
  };
}
