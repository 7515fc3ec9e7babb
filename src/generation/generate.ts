/** One generation: tokenise, admit, submit, turn tokens into text, prove. */
import { CancelledError } from "../errors.js";
import type { NativeActivationEvent, NativeSteering, NativeTimings } from "../native/binding.js";
import type { EngineStream } from "../native/engine.js";
import { asyncPhase, type TracedCall } from "../observability/tracing.js";
import type { Ticket } from "./admission.js";
import type { CaptureWindow } from "./capture-budget.js";
import {
  type CaptureSpec,
  captureTokenBytes,
  captureTotalBytes,
  resolveCapture,
  splitRows,
} from "./capture-spec.js";
import { type CompletionDelta, Completions, type FinishReason } from "./completions.js";
import {
  admitted,
  type Call,
  cancelOnAbort,
  deadlineNs,
  type GenerationContext,
  type InputSpec,
  requireCapture,
  tokenizeInput,
} from "./context.js";
import type { AppliedProbe } from "./probes.js";
import type { AppliedSteering } from "./proof.js";
import { PinnedResources, type ResourceSpec } from "./resources.js";
import { checkedNewTokens, nativeSampling, type SamplingSpec, seedOf } from "./sampling.js";
import type { SequenceShape } from "./steering.js";
import { traceEngine, traceFinished, traceRequest } from "./trace.js";

export interface GenerateSpec extends ResourceSpec {
  input: InputSpec;
  sampling: SamplingSpec;
  /** Null: none. With one completion only. */
  capture: CaptureSpec | null;
  compareUnsteered: boolean;
  minRegistryRevision: bigint | null;
}

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
  probes: AppliedProbe[];
  adapterDigest: string;
  registryRevision: bigint;
}

export interface GenerationDelta extends CompletionDelta {
  type: "delta";
}

export interface GenerationActivations {
  type: "activations";
  event: NativeActivationEvent;
}

export interface GenerationFinished {
  type: "finished";
  finishReasons: FinishReason[];
  usage: Usage;
  timings: NativeTimings;
  applied: AppliedSteering[];
}

export type GenerationEvent =
  | GenerationStarted
  | GenerationDelta
  | GenerationActivations
  | GenerationFinished;

/** Tokens of each completion that may be on their way to a client. */
const CREDITS_PER_COMPLETION = 64;
/** Further events of a capture; their bytes are bounded too. */
export const CAPTURE_CREDITS = 1024;

/** One `started`, deltas and activations, one `finished`; or throws a ServiceError. */
export function generate(
  context: GenerationContext,
  spec: GenerateSpec,
  call: Call,
): AsyncGenerator<GenerationEvent, void, undefined> {
  if (spec.capture) requireCapture(context);
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
  const resources = PinnedResources.pin(context, spec);
  let window: CaptureWindow | null = null;
  try {
    const tokenize = () => tokenizeInput(context, spec.input);
    const prompt = await asyncPhase(call.trace, "tokenize", tokenize);
    if (call.signal.aborted) throw new CancelledError();
    const { sampling } = spec;
    const maxNewTokens = checkedNewTokens(context, sampling, spec.input, prompt.length);
    ticket.countTokens(prompt.length);
    const seed = seedOf(sampling);
    traceRequest(call.trace, context, spec, { seed, maxNewTokens });
    const sequence: SequenceShape = {
      name: "the request",
      promptTokens: prompt.length,
      lastPosition: prompt.length + maxNewTokens - 2,
      tokens: null,
    };
    const steering = resources.steering.resolve(sequence);
    const capture = spec.capture && resolveCapture(spec.capture, context.model, sequence);
    if (spec.capture && capture) {
      const tokenBytes = captureTokenBytes(spec.capture, context.model.config);
      const totalBytes = captureTotalBytes(capture, tokenBytes);
      window = context.captureBudget.reserve(tokenBytes, totalBytes, "capture");
    }
    const submittedMs = performance.now();
    const stream = context.engine.submit({
      promptTokenIds: prompt,
      completions: sampling.completions,
      maxNewTokens,
      sampling: nativeSampling(context, sampling, seed),
      steering,
      capture,
      promptLogprobsFrom: null,
      credits: CREDITS_PER_COMPLETION * sampling.completions + (capture ? CAPTURE_CREDITS : 0),
      captureCreditBytes: window?.bytes ?? 0,
      proofPromptTokens: 0,
      cacheSalt: "",
      deadlineNs: deadlineNs(call),
      adapter: resources.adapter.handle,
      probes: resources.probes.native(),
      compareUnsteered: spec.compareUnsteered,
    });
    ticket.submitted();
    yield started(resources, steering, seed, prompt.length);
    yield* cancelOnAbort(stream, call.signal, () =>
      follow(context, spec, stream, resources, {
        steering,
        promptTokens: prompt.length,
        submittedMs,
        trace: call.trace,
      }),
    );
  } finally {
    window?.release();
    resources.release();
  }
}

function started(
  resources: PinnedResources,
  steering: readonly NativeSteering[],
  seed: bigint,
  promptTokens: number,
): GenerationStarted {
  return {
    type: "started",
    seed,
    promptTokens,
    applied: resources.steering.proof(steering, []),
    probes: resources.probes.applied(),
    adapterDigest: resources.adapter.digest,
    registryRevision: resources.registryRevision,
  };
}

interface Followed {
  steering: readonly NativeSteering[];
  promptTokens: number;
  /** Of `performance.now()`. */
  submittedMs: number;
  trace: TracedCall | null;
}

async function* follow(
  context: GenerationContext,
  spec: GenerateSpec,
  stream: EngineStream,
  resources: PinnedResources,
  { steering, promptTokens, submittedMs, trace }: Followed,
): AsyncGenerator<GenerationEvent, void, undefined> {
  const { sampling, compareUnsteered } = spec;
  const { probes } = resources;
  const completions = new Completions(context, {
    sampling,
    probes,
    compareUnsteered,
    promptTokens,
  });
  let timings: NativeTimings | null = null;
  let failed = true;
  try {
    for await (const batch of stream) {
      for (const event of batch) {
        if (event.type !== "activations") continue;
        for (const part of splitRows(event, context.maxCaptureChunkBytes)) {
          yield { type: "activations", event: part };
        }
      }
      for (const delta of completions.take(batch, stream)) yield { type: "delta", ...delta };
      const done = batch.at(-1);
      if (done?.type !== "done") continue;
      timings = done.timings;
      const finished: GenerationFinished = {
        type: "finished",
        finishReasons: completions.finish(done, "request"),
        usage: {
          promptTokens: done.promptTokens,
          cachedPromptTokens: done.cachedPromptTokens,
          completionTokens: completions.tokens,
        },
        timings,
        applied: resources.steering.proof(steering, done.applied),
      };
      failed = false;
      traceFinished(trace, finished);
      yield finished;
    }
  } finally {
    traceEngine(trace, submittedMs, timings, failed);
  }
}
