/** Sampling options; absent ones get the defaults of the contract. */

import type { Sampling__Output } from "../generated/llamasteer/v1/Sampling.js";
import type { SamplingSpec } from "../generation/sampling.js";
import type { Checker } from "./checker.js";
import type { RequestLimits } from "./limits.js";
import { checkTokenIds } from "./validate-input.js";

const MAX_TEMPERATURE = 100;
const MAX_PENALTY = 100;
const MAX_UINT32 = 2 ** 32 - 1;

export function readSampling(
  sampling: Sampling__Output | null,
  limits: RequestLimits,
  check: Checker,
): SamplingSpec {
  const number = (
    name: string,
    value: number | undefined,
    fallback: number,
    range: { min: number; max: number; openMin?: boolean },
  ) => check.number(`sampling.${name}`, value, fallback, range);
  const penalty = { min: -MAX_PENALTY, max: MAX_PENALTY };
  const s = sampling ?? undefined;
  const { maxCompletions } = limits;
  const spec: SamplingSpec = {
    // The context bounds it, together with the prompt; see checkFits.
    maxNewTokens:
      s?.maxNewTokens === undefined
        ? null
        : number("max_new_tokens", s.maxNewTokens, 0, { min: 1, max: MAX_UINT32 }),
    temperature: number("temperature", s?.temperature, 1, { min: 0, max: MAX_TEMPERATURE }),
    topP: number("top_p", s?.topP, 1, { min: 0, max: 1, openMin: true }),
    topK: number("top_k", s?.topK, 0, { min: 0, max: MAX_UINT32 }),
    minP: number("min_p", s?.minP, 0, { min: 0, max: 1 }),
    repetitionPenalty: number("repetition_penalty", s?.repetitionPenalty, 1, {
      min: 0,
      max: MAX_PENALTY,
      openMin: true,
    }),
    presencePenalty: number("presence_penalty", s?.presencePenalty, 0, penalty),
    frequencyPenalty: number("frequency_penalty", s?.frequencyPenalty, 0, penalty),
    seed: s?.seed === undefined ? null : BigInt(s.seed),
    completions: number("n", s?.n, 1, { min: 1, max: maxCompletions }),
    stop: s?.stop ?? [],
    stopTokenIds: s?.stopTokenIds ?? [],
    ignoreEos: s?.ignoreEos ?? false,
    logprobs: number("logprobs", s?.logprobs, 0, { min: 0, max: limits.maxLogprobs }),
    logitBias: readLogitBias(s?.logitBias ?? {}, limits, check),
  };
  checkStops(spec, limits, check);
  return spec;
}

function checkStops(spec: SamplingSpec, limits: RequestLimits, check: Checker): void {
  check.atMost("sampling.stop", spec.stop.length, limits.maxStopTexts, "texts");
  for (const [index, text] of spec.stop.slice(0, limits.maxStopTexts).entries()) {
    const field = `sampling.stop[${index}]`;
    if (text === "") check.add(field, "is empty");
    check.atMost(field, Buffer.byteLength(text), limits.maxStopTextBytes, "bytes");
  }
  const field = "sampling.stop_token_ids";
  check.atMost(field, spec.stopTokenIds.length, limits.maxStopTokenIds, "ids");
  checkTokenIds(field, spec.stopTokenIds, limits, check);
}

function readLogitBias(
  entries: Record<number, number>,
  limits: RequestLimits,
  check: Checker,
): Map<number, number> {
  const bias = new Map(Object.entries(entries).map(([id, value]) => [Number(id), value]));
  check.atMost("sampling.logit_bias", bias.size, limits.maxLogitBiases, "entries");
  if (bias.size > limits.maxLogitBiases) return new Map();
  for (const [id, value] of bias) {
    const field = `sampling.logit_bias[${id}]`;
    if (id >= limits.vocabSize) {
      check.add(field, `the vocabulary has ${limits.vocabSize} tokens`);
    }
    check.number(field, value, 0, { min: -MAX_PENALTY, max: MAX_PENALTY });
  }
  return bias;
}
