/** One generation: tokenise, admit, submit, turn tokens into text, prove. */
import { randomBytes } from "node:crypto";
import { CancelledError, EngineFault, invalid } from "../errors.js";
import type {
  NativeDoneEvent,
  NativeSampling,
  NativeScoredToken,
  NativeSteering,
  NativeTimings,
  NativeTokenEvent,
} from "../native/binding.js";
import type { EngineStream } from "../native/engine.js";
import type { Ticket } from "./admission.js";
import { CompletionText } from "./completion-text.js";
import {
  admitted,
  type Call,
  cancelOnAbort,
  checkFits,
  deadlineNs,
  errorOfStatus,
  type GenerationContext,
  type InputSpec,
  tokenizeInput,
} from "./context.js";
import { type AppliedSteering, PinnedSteering, type SteeringSpec } from "./steering.js";

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

export interface GenerateSpec {
  input: InputSpec;
  steering: SteeringSpec[];
  sampling: SamplingSpec;
  minRegistryRevision: bigint | null;
}

export type FinishReason = "stop" | "stop_text" | "length" | "cancelled";

export interface Usage {
  promptTokens: number;
  cachedPromptTokens: number;
  completionTokens: number;
}

export interface GenerationStarted {
  type: "started";
  seed: bigint;
  promptTokens: number;
  applied: AppliedSteering[];
  registryRevision: bigint;
}

export interface GenerationDelta {
  type: "delta";
  completion: number;
  text: string;
  tokenIds: number[];
  /** As many as tokenIds, or none. */
  logprobs: NativeScoredToken[];
}

export interface GenerationFinished {
  type: "finished";
  finishReasons: FinishReason[];
  usage: Usage;
  timings: NativeTimings;
  applied: AppliedSteering[];
}

export type GenerationEvent = GenerationStarted | GenerationDelta | GenerationFinished;

const DEFAULT_MAX_NEW_TOKENS = 256;
/** Tokens of each completion that may be on their way to a client. */
const CREDITS_PER_COMPLETION = 64;

/** One `started`, deltas, one `finished`; throws a ServiceError instead when it fails. */
export function generate(
  context: GenerationContext,
  spec: GenerateSpec,
  call: Call,
): AsyncGenerator<GenerationEvent, void, undefined> {
  return admitted(context, call, spec.minRegistryRevision, (ticket) =>
    run(context, spec, call, ticket),
  );
}

async function* run(
  context: GenerationContext,
  spec: GenerateSpec,
  call: Call,
  ticket: Ticket,
): AsyncGenerator<GenerationEvent, void, undefined> {
  const registryRevision = context.vectors.revision;
  const pinned = PinnedSteering.pin(spec.steering, context.vectors, context.model);
  try {
    const prompt = await tokenizeInput(context, spec.input);
    if (call.signal.aborted) throw new CancelledError();
    const maxNewTokens = checkedNewTokens(context, spec, prompt.length);
    ticket.countTokens(prompt.length);
    const seed = spec.sampling.seed ?? randomBytes(8).readBigUInt64LE();
    const steering = pinned.resolve(prompt.length, prompt.length + maxNewTokens - 2);
    const stream = context.engine.submit({
      promptTokenIds: prompt,
      completions: spec.sampling.completions,
      maxNewTokens,
      sampling: nativeSampling(context, spec.sampling, seed),
      steering,
      capture: null,
      promptLogprobsFrom: null,
      credits: CREDITS_PER_COMPLETION * spec.sampling.completions,
      captureCreditBytes: 0,
      cacheSalt: "",
      deadlineNs: deadlineNs(call),
      adapter: 0,
      probes: [],
      compareUnsteered: false,
    });
    ticket.submitted();
    const applied = pinned.proof(steering, []);
    yield { type: "started", seed, promptTokens: prompt.length, applied, registryRevision };
    yield* cancelOnAbort(stream, call.signal, () =>
      follow(context, spec, stream, pinned, steering),
    );
  } finally {
    pinned.release();
  }
}

function checkedNewTokens(
  context: GenerationContext,
  spec: GenerateSpec,
  promptTokens: number,
): number {
  const { contextTokens } = context.model.config;
  const room = Math.min(contextTokens, context.kvCacheTokens) - promptTokens;
  const wanted = spec.sampling.maxNewTokens ?? Math.max(1, Math.min(DEFAULT_MAX_NEW_TOKENS, room));
  const blamed = room < 1 ? spec.input.field : "sampling.max_new_tokens";
  checkFits(context, blamed, promptTokens, wanted);
  return wanted;
}

function nativeSampling(
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

/** One completion as it grows. */
class Completion {
  finish: FinishReason | null = null;
  tokens = 0;
  private readonly text: CompletionText;

  constructor(context: GenerationContext, stop: string[]) {
    this.text = new CompletionText(context.model.tokenizer, stop);
  }

  /** The new text; sets `finish` when this token is the last. */
  push(event: NativeTokenEvent): string {
    this.tokens += 1;
    // The token that ends a completion is not part of its text.
    const pushed =
      event.finish === "stop" ? { text: "", stopped: false } : this.text.push(event.token.tokenId);
    if (pushed.stopped) {
      this.finish = "stop_text";
      return pushed.text;
    }
    if (event.finish === "none") return pushed.text;
    const last = this.text.finish();
    this.finish = last.stopped ? "stop_text" : event.finish;
    return pushed.text + last.text;
  }
}

async function* follow(
  context: GenerationContext,
  spec: GenerateSpec,
  stream: EngineStream,
  pinned: PinnedSteering,
  steering: readonly NativeSteering[],
): AsyncGenerator<GenerationEvent, void, undefined> {
  const completions = Array.from(
    { length: spec.sampling.completions },
    () => new Completion(context, spec.sampling.stop),
  );
  for await (const batch of stream) {
    const deltas = new Map<number, GenerationDelta>();
    for (const event of batch) {
      if (event.type === "token") addToken(event, completions, deltas, stream);
    }
    yield* deltas.values();
    const done = batch.at(-1);
    if (done?.type === "done") yield finished(done, completions, pinned, steering);
  }
}

function addToken(
  event: NativeTokenEvent,
  completions: readonly Completion[],
  deltas: Map<number, GenerationDelta>,
  stream: EngineStream,
): void {
  const index = event.completion;
  const completion = completions[index];
  // Tokens behind a stop text were on their way when it was found.
  if (!completion || completion.finish !== null) return;
  const delta: GenerationDelta = deltas.get(index) ?? {
    type: "delta",
    completion: index,
    text: "",
    tokenIds: [],
    logprobs: [],
  };
  deltas.set(index, delta);
  delta.text += completion.push(event);
  delta.tokenIds.push(event.token.tokenId);
  if (event.hasLogprob) delta.logprobs.push(event.token);
  if (completion.finish === "stop_text" && event.finish === "none") stream.cancel(index);
}

function finished(
  done: NativeDoneEvent,
  completions: readonly Completion[],
  pinned: PinnedSteering,
  steering: readonly NativeSteering[],
): GenerationFinished {
  const ended = completions.every(({ finish }) => finish !== null);
  if (done.status.code !== 0 && !(done.status.code === 1 && ended)) {
    throw errorOfStatus(done.status, "request");
  }
  if (!ended) throw new EngineFault("a completion ended without a reason");
  return {
    type: "finished",
    finishReasons: completions.map(({ finish }) => finish ?? "cancelled"),
    usage: {
      promptTokens: done.promptTokens,
      cachedPromptTokens: done.cachedPromptTokens,
      completionTokens: completions.reduce((sum, { tokens }) => sum + tokens, 0),
    },
    timings: done.timings,
    applied: pinned.proof(steering, done.applied),
  };
}

/** For callers that know a prompt to be empty before anything runs. */
export function requireInput(input: InputSpec | null): InputSpec {
  if (!input) throw invalid("input", "is missing: prompt, chat or tokens");
  return input;
}
