/** Log-probabilities of continuations: one prefill each, the prompt shared by the prefix cache. */
import { EngineFault, invalid } from "../errors.js";
import type { NativeApplied, NativeScoredToken, NativeSteering } from "../native/binding.js";
import { asyncPhase } from "../observability/tracing.js";
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
import { type AppliedSteering, sumReports } from "./proof.js";
import { PinnedResources } from "./resources.js";
import type { SteeringSpec } from "./steering.js";

export type ContinuationSpec = { kind: "text"; text: string } | { kind: "tokens"; ids: number[] };

export interface ScoreSpec {
  input: InputSpec;
  continuations: ContinuationSpec[];
  steering: SteeringSpec[];
  /** Empty: the base model. */
  adapterId: string;
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
  adapterDigest: string;
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

/** Prompt and one continuation. */
interface Sequence {
  tokens: Uint32Array;
  promptTokens: number;
  steering: NativeSteering[];
}

async function* run(
  context: GenerationContext,
  spec: ScoreSpec,
  call: Call,
  ticket: Ticket,
): AsyncGenerator<ScoreResult, void, undefined> {
  const resources = PinnedResources.pin(context, { ...spec, probes: [] });
  try {
    const sequences = await asyncPhase(call.trace, "tokenize", async () =>
      sequencesOf(context, spec, await tokenizeInput(context, spec.input), resources),
    );
    ticket.countTokens(sequences.reduce((sum, { tokens }) => sum + tokens.length, 0));
    ticket.submitted();
    yield await asyncPhase(call.trace, "engine", () =>
      scoreAll(context, spec, call, resources, sequences),
    );
  } finally {
    resources.release();
  }
}

/** The prompt with each continuation; the prompt alone when only it is scored. */
async function sequencesOf(
  context: GenerationContext,
  spec: ScoreSpec,
  prompt: Uint32Array,
  resources: PinnedResources,
): Promise<Sequence[]> {
  const promptTokens = prompt.length;
  const sequence = (tokens: Uint32Array, name: string): Sequence => ({
    tokens,
    promptTokens,
    steering: resources.steering.resolve({
      name,
      promptTokens,
      lastPosition: tokens.length - 1,
      tokens,
    }),
  });
  if (spec.continuations.length === 0) {
    checkFits(context, spec.input.field, promptTokens, 0);
    return [sequence(prompt, spec.input.field)];
  }
  const sequences: Sequence[] = [];
  for (const [index, continuation] of spec.continuations.entries()) {
    const field = `continuations[${index}]`;
    const ids =
      continuation.kind === "tokens"
        ? continuation.ids
        : await context.model.tokenizer.encode(continuation.text, false, `${field}.text`);
    if (ids.length === 0) throw invalid(field, "has no tokens");
    checkFits(context, field, promptTokens, ids.length);
    const name = `${spec.input.field} and ${field}`;
    sequences.push(sequence(Uint32Array.from([...prompt, ...ids]), name));
  }
  return sequences;
}

async function scoreAll(
  context: GenerationContext,
  spec: ScoreSpec,
  call: Call,
  resources: PinnedResources,
  sequences: readonly Sequence[],
): Promise<ScoreResult> {
  const scoreFrom = (fromPrompt: boolean) => (sequence: Sequence, signal: AbortSignal) =>
    scoreSequence(context, spec, { ...call, signal }, resources, {
      sequence,
      from: fromPrompt ? 1 : sequence.promptTokens,
    });
  // The first one leaves the prompt in the prefix cache for the others.
  const [first, ...rest] = sequences;
  if (!first) throw new EngineFault("nothing to score");
  const scored = [
    await scoreFrom(spec.promptLogprobs)(first, call.signal),
    ...(await mapInFlight(rest, SEQUENCES_IN_FLIGHT, call.signal, scoreFrom(false))),
  ];
  const reports = sumReports(scored.map(({ applied }) => applied));
  return {
    scores: scored.slice(0, spec.continuations.length).map(({ tokens }) => scoreOf(tokens)),
    promptLogprobs: scored[0]?.promptTokens ?? [],
    usage: {
      promptTokens: sequences.reduce((sum, { tokens }) => sum + tokens.length, 0),
      cachedPromptTokens: scored.reduce((sum, { cachedTokens }) => sum + cachedTokens, 0),
      completionTokens: 0,
    },
    applied: resources.steering.proof(first.steering, reports),
    adapterDigest: resources.adapter.digest,
    registryRevision: resources.registryRevision,
  };
}

interface ScoredSequence {
  /** Of the prompt, from its second token on, if asked for. */
  promptTokens: NativeScoredToken[];
  /** Of the continuation. */
  tokens: NativeScoredToken[];
  cachedTokens: number;
  applied: NativeApplied[];
}

async function scoreSequence(
  context: GenerationContext,
  spec: ScoreSpec,
  call: Call,
  resources: PinnedResources,
  { sequence, from }: { sequence: Sequence; from: number },
): Promise<ScoredSequence> {
  const { tokens: tokenIds, promptTokens, steering } = sequence;
  const stream = context.engine.submit({
    promptTokenIds: tokenIds,
    completions: 1,
    maxNewTokens: 0,
    sampling: { ...NO_SAMPLING, logprobs: true, topLogprobs: spec.logprobs },
    steering,
    capture: null,
    promptLogprobsFrom: from < tokenIds.length ? from : null,
    credits: 64,
    captureCreditBytes: 0,
    proofPromptTokens: promptTokens,
    cacheSalt: "",
    deadlineNs: deadlineNs(call),
    adapter: resources.adapter.handle,
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
        applied: event.applied,
      };
    }
  }
  throw new EngineFault("scoring ended without a terminal event");
}

function scoreOf(tokens: NativeScoredToken[]): ContinuationScore {
  const sumLogprob = tokens.reduce((sum, { logprob }) => sum + logprob, 0);
  return { tokens, sumLogprob, perplexity: Math.exp(-sumLogprob / tokens.length) };
}
