/** Log-probabilities of continuations: one prefill each, the prompt shared by the prefix cache. */
import { EngineFault, invalid } from "../errors.js";
import type { NativeApplied, NativeScoredToken, NativeSteering } from "../native/binding.js";
import type { Ticket } from "./admission.js";
import {
  admitted,
  type Call,
  cancelOnAbort,
  checkFits,
  deadlineNs,
  errorOfStatus,
  type GenerationContext,
  type InputSpec,
  NO_SAMPLING,
  tokenizeInput,
} from "./context.js";
import type { Usage } from "./generate.js";
import { mapInFlight } from "./in-flight.js";
import {
  type AppliedSteering,
  addReports,
  PinnedSteering,
  type SteeringSpec,
  splitPromptCount,
} from "./steering.js";

export type ContinuationSpec = { kind: "text"; text: string } | { kind: "tokens"; ids: number[] };

export interface ScoreSpec {
  input: InputSpec;
  continuations: ContinuationSpec[];
  steering: SteeringSpec[];
  /** The k most likely tokens at each place. */
  logprobs: number;
  promptLogprobs: boolean;
  minRegistryRevision: bigint | null;
}

export interface ContinuationScore {
  tokens: NativeScoredToken[];
  sumLogprob: number;
  perplexity: number;
}

export interface ScoreResult {
  scores: ContinuationScore[];
  promptLogprobs: NativeScoredToken[];
  usage: Usage;
  applied: AppliedSteering[];
  registryRevision: bigint;
}

/** Sequences whose prefill runs at the same time. */
const SEQUENCES_IN_FLIGHT = 8;

export async function score(
  context: GenerationContext,
  spec: ScoreSpec,
  call: Call,
): Promise<ScoreResult> {
  const results = admitted(context, call, spec.minRegistryRevision, (ticket) =>
    run(context, spec, call, ticket),
  );
  for await (const result of results) return result;
  throw new EngineFault("scoring ended without a result");
}

async function* run(
  context: GenerationContext,
  spec: ScoreSpec,
  call: Call,
  ticket: Ticket,
): AsyncGenerator<ScoreResult, void, undefined> {
  const registryRevision = context.vectors.revision;
  const pinned = PinnedSteering.pin(spec.steering, context.vectors, context.model);
  try {
    const prompt = await tokenizeInput(context, spec.input);
    const sequences = await sequencesOf(context, spec, prompt);
    ticket.countTokens(sequences.reduce((sum, { length }) => sum + length, 0));
    ticket.submitted();
    yield await scoreAll(context, spec, call, pinned, prompt.length, sequences, registryRevision);
  } finally {
    pinned.release();
  }
}

/** Prompt and continuation of each; the prompt alone when only it is scored. */
async function sequencesOf(
  context: GenerationContext,
  spec: ScoreSpec,
  prompt: Uint32Array,
): Promise<Uint32Array[]> {
  if (spec.continuations.length === 0) {
    checkFits(context, spec.input.field, prompt.length, 0);
    return [prompt];
  }
  const sequences: Uint32Array[] = [];
  for (const [index, continuation] of spec.continuations.entries()) {
    const field = `continuations[${index}]`;
    const ids =
      continuation.kind === "tokens"
        ? continuation.ids
        : await context.model.tokenizer.encode(continuation.text, false, `${field}.text`);
    if (ids.length === 0) throw invalid(field, "has no tokens");
    checkFits(context, field, prompt.length, ids.length);
    sequences.push(Uint32Array.from([...prompt, ...ids]));
  }
  return sequences;
}

async function scoreAll(
  context: GenerationContext,
  spec: ScoreSpec,
  call: Call,
  pinned: PinnedSteering,
  promptTokens: number,
  sequences: readonly Uint32Array[],
  registryRevision: bigint,
): Promise<ScoreResult> {
  const scoreFrom = (from: number) => (sequence: Uint32Array, signal: AbortSignal) =>
    scoreSequence(context, spec, { ...call, signal }, pinned, { sequence, promptTokens, from });
  // The first one leaves the prompt in the prefix cache for the others.
  const promptFrom = spec.promptLogprobs ? 1 : promptTokens;
  const [first, ...rest] = sequences;
  if (!first) throw new EngineFault("nothing to score");
  const scored = [
    await scoreFrom(promptFrom)(first, call.signal),
    ...(await mapInFlight(rest, SEQUENCES_IN_FLIGHT, call.signal, scoreFrom(promptTokens))),
  ];
  const continuations = scored.slice(0, spec.continuations.length);
  const reports = scored.map(({ applied }) => applied).reduce(addReports);
  return {
    scores: continuations.map(({ tokens }) => scoreOf(tokens)),
    promptLogprobs: scored[0]?.promptTokens ?? [],
    usage: {
      promptTokens: sequences.reduce((sum, { length }) => sum + length, 0),
      cachedPromptTokens: scored.reduce((sum, { cachedTokens }) => sum + cachedTokens, 0),
      completionTokens: 0,
    },
    applied: pinned.proof(scored[0]?.steering ?? [], reports),
    registryRevision,
  };
}

interface ScoredSequence {
  /** Of the prompt, from its second token on, if asked for. */
  promptTokens: NativeScoredToken[];
  /** Of the continuation. */
  tokens: NativeScoredToken[];
  cachedTokens: number;
  steering: NativeSteering[];
  applied: NativeApplied[];
}

async function scoreSequence(
  context: GenerationContext,
  spec: ScoreSpec,
  call: Call,
  pinned: PinnedSteering,
  { sequence, promptTokens, from }: { sequence: Uint32Array; promptTokens: number; from: number },
): Promise<ScoredSequence> {
  const steering = pinned.resolve(promptTokens, sequence.length - 1);
  const stream = context.engine.submit({
    promptTokenIds: sequence,
    completions: 1,
    maxNewTokens: 0,
    sampling: { ...NO_SAMPLING, logprobs: true, topLogprobs: spec.logprobs },
    steering,
    capture: null,
    promptLogprobsFrom: from < sequence.length ? from : null,
    credits: 64,
    captureCreditBytes: 0,
    cacheSalt: "",
    deadlineNs: deadlineNs(call),
    adapter: 0,
    probes: [],
    compareUnsteered: false,
  });
  const tokens: NativeScoredToken[] = [];
  const batches = cancelOnAbort(stream, call.signal, async function* () {
    yield* stream;
  });
  for await (const batch of batches) {
    for (const event of batch) {
      if (event.type === "prompt_logprobs") tokens.push(...event.tokens);
      if (event.type !== "done") continue;
      if (event.status.code !== 0) throw errorOfStatus(event.status, "request");
      return {
        promptTokens: tokens.slice(0, promptTokens - from),
        tokens: tokens.slice(promptTokens - from),
        cachedTokens: event.cachedPromptTokens,
        steering,
        applied: event.applied.map((report, at) => {
          const native = steering[at];
          return native ? splitPromptCount(report, native, promptTokens) : report;
        }),
      };
    }
  }
  throw new EngineFault("scoring ended without a terminal event");
}

function scoreOf(tokens: NativeScoredToken[]): ContinuationScore {
  const sumLogprob = tokens.reduce((sum, { logprob }) => sum + logprob, 0);
  return { tokens, sumLogprob, perplexity: Math.exp(-sumLogprob / tokens.length) };
}
