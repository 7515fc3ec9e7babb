/** Activations of a batch of inputs, several in flight, each at the client's pace. */
import { EngineFault } from "../errors.js";
import type {
  NativeActivationEvent,
  NativeApplied,
  NativeCapture,
  NativeDoneEvent,
  NativeSteering,
} from "../native/binding.js";
import type { EngineStream } from "../native/engine.js";
import { asyncPhase, streamPhase } from "../observability/tracing.js";
import type { Ticket } from "./admission.js";
import type { CaptureWindow } from "./capture-budget.js";
import {
  type CaptureSpec,
  captureTokenBytes,
  captureTotalBytes,
  resolveCapture,
  splitRows,
} from "./capture-spec.js";
import {
  type CompletionDelta,
  Completions,
  type FinishReason,
  WholeCompletion,
} from "./completions.js";
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
  requireCapture,
  tokenizeInput,
} from "./context.js";
import { CAPTURE_CREDITS, type Usage } from "./generate.js";
import { mergeStreams } from "./merge.js";
import { type AppliedSteering, sumReports } from "./proof.js";
import { PinnedResources } from "./resources.js";
import { checkedNewTokens, nativeSampling, type SamplingSpec, seedOf } from "./sampling.js";
import type { SequenceShape, SteeringSpec } from "./steering.js";

export interface CaptureActivationsSpec {
  inputs: InputSpec[];
  capture: CaptureSpec;
  steering: SteeringSpec[];
  /** Empty: the base model. */
  adapterId: string;
  /** Null: the inputs only. With one completion each. */
  sampling: SamplingSpec | null;
  minRegistryRevision: bigint | null;
}

export interface CapturedChunk {
  type: "activations";
  inputIndex: number;
  event: NativeActivationEvent;
}

export interface CapturedCompletion {
  type: "completion";
  inputIndex: number;
  completion: CompletionDelta;
  finishReason: FinishReason;
  seed: bigint;
}

export interface CaptureFinished {
  type: "finished";
  usage: Usage;
  applied: AppliedSteering[];
  adapterDigest: string;
  registryRevision: bigint;
}

export type CaptureEvent = CapturedChunk | CapturedCompletion | CaptureFinished;

/** Inputs that run at the same time. */
const INPUTS_IN_FLIGHT = 8;

/**
 * Chunks in any order of inputs, ascending positions within one, each input's completion behind its
 * chunks; then one `finished`.
 */
export function captureActivations(
  context: GenerationContext,
  spec: CaptureActivationsSpec,
  call: Call,
): AsyncGenerator<CaptureEvent, void, undefined> {
  requireCapture(context);
  return admitted(context, call, spec.minRegistryRevision, (ticket) =>
    run(context, spec, call, ticket),
  );
}

interface PreparedInput {
  /** Path in the request. */
  field: string;
  prompt: Uint32Array;
  /** 0: nothing is generated. */
  maxNewTokens: number;
  capture: NativeCapture;
  steering: NativeSteering[];
}

async function* run(
  context: GenerationContext,
  spec: CaptureActivationsSpec,
  call: Call,
  ticket: Ticket,
): AsyncGenerator<CaptureEvent, void, undefined> {
  const resources = PinnedResources.pin(context, { ...spec, probes: [] });
  let window: CaptureWindow | null = null;
  try {
    const inputs: PreparedInput[] = [];
    await asyncPhase(call.trace, "tokenize", async () => {
      for (const input of spec.inputs) inputs.push(await prepare(context, spec, input, resources));
    });
    ticket.countTokens(inputs.reduce((sum, { prompt }) => sum + prompt.length, 0));
    ticket.submitted();
    const tokenBytes = captureTokenBytes(spec.capture, context.model.config);
    const totalBytes = inputs.reduce(
      (sum, { capture }) => sum + captureTotalBytes(capture, tokenBytes),
      0,
    );
    window = context.captureBudget.reserve(tokenBytes, totalBytes, "capture");
    const inFlight = Math.min(
      INPUTS_IN_FLIGHT,
      inputs.length,
      Math.floor(window.bytes / tokenBytes),
    );
    const creditBytes = Math.floor(window.bytes / inFlight);
    const seed = spec.sampling ? seedOf(spec.sampling) : 0n;
    const runs = new InputRuns(context, spec, resources, { call, seed, creditBytes });
    const sources = inputs.map((input) => () => runs.run(input));
    const ends: { done: NativeDoneEvent; tokens: number }[] = [];
    const events = streamPhase(call.trace, "engine", mergeStreams(sources, inFlight));
    for await (const [inputIndex, event] of events) {
      if (event.type === "ended") ends[inputIndex] = event;
      else yield { ...event, inputIndex };
    }
    yield finished(resources, inputs, ends);
  } finally {
    window?.release();
    resources.release();
  }
}

async function prepare(
  context: GenerationContext,
  spec: CaptureActivationsSpec,
  input: InputSpec,
  resources: PinnedResources,
): Promise<PreparedInput> {
  const { sampling } = spec;
  const prompt = await tokenizeInput(context, input);
  if (!sampling) checkFits(context, input.field, prompt.length, 0);
  const maxNewTokens = sampling ? checkedNewTokens(context, sampling, input, prompt.length) : 0;
  const sequence: SequenceShape = {
    name: input.field,
    promptTokens: prompt.length,
    // The last generated token's row is not computed.
    lastPosition: prompt.length + Math.max(maxNewTokens, 1) - 2,
    tokens: sampling ? null : prompt,
  };
  return {
    field: input.field,
    prompt,
    maxNewTokens,
    capture: resolveCapture(spec.capture, context.model, sequence),
    steering: resources.steering.resolve(sequence),
  };
}

type InputEvent =
  | Omit<CapturedChunk, "inputIndex">
  | Omit<CapturedCompletion, "inputIndex">
  /** `tokens`: generated ones that the client sees. */
  | { type: "ended"; done: NativeDoneEvent; tokens: number };

/** The inputs of one call. */
class InputRuns {
  constructor(
    private readonly context: GenerationContext,
    private readonly spec: CaptureActivationsSpec,
    private readonly resources: PinnedResources,
    private readonly options: { call: Call; seed: bigint; creditBytes: number },
  ) {}

  run(input: PreparedInput): AsyncGenerator<InputEvent, void, undefined> {
    const { context, options } = this;
    const { sampling } = this.spec;
    const stream = context.engine.submit({
      promptTokenIds: input.prompt,
      completions: 1,
      maxNewTokens: input.maxNewTokens,
      sampling: sampling ? nativeSampling(context, sampling, options.seed) : NO_SAMPLING,
      steering: input.steering,
      capture: input.capture,
      promptLogprobsFrom: null,
      credits: CAPTURE_CREDITS,
      captureCreditBytes: options.creditBytes,
      proofPromptTokens: 0,
      cacheSalt: "",
      deadlineNs: deadlineNs(options.call),
      adapter: this.resources.adapter.handle,
      probes: [],
      compareUnsteered: false,
    });
    return cancelOnAbort(stream, options.call.signal, () => this.follow(stream, input));
  }

  private async *follow(
    stream: EngineStream,
    input: PreparedInput,
  ): AsyncGenerator<InputEvent, void, undefined> {
    const { context, resources } = this;
    const { sampling } = this.spec;
    const { probes } = resources;
    const promptTokens = input.prompt.length;
    const completions = sampling
      ? new Completions(context, { sampling, probes, compareUnsteered: false, promptTokens })
      : null;
    const whole = new WholeCompletion([]);
    for await (const batch of stream) {
      for (const event of batch) {
        if (event.type !== "activations") continue;
        for (const part of splitRows(event, context.maxCaptureChunkBytes)) {
          yield { type: "activations", event: part };
        }
      }
      for (const delta of completions?.take(batch, stream) ?? []) whole.add(delta);
      const done = batch.at(-1);
      if (done?.type !== "done") continue;
      if (!completions && done.status.code !== 0) throw errorOfStatus(done.status, input.field);
      for (const finishReason of completions?.finish(done, input.field) ?? []) {
        const { seed } = this.options;
        yield { type: "completion", completion: whole.delta, finishReason, seed };
      }
      yield { type: "ended", done, tokens: completions?.tokens ?? 0 };
    }
  }
}

function finished(
  resources: PinnedResources,
  inputs: readonly PreparedInput[],
  ends: readonly { done: NativeDoneEvent; tokens: number }[],
): CaptureFinished {
  const usage: Usage = { promptTokens: 0, cachedPromptTokens: 0, completionTokens: 0 };
  const reports: NativeApplied[][] = [];
  for (const [index] of inputs.entries()) {
    const end = ends[index];
    if (!end) throw new EngineFault(`input ${index} ended without a terminal event`);
    usage.promptTokens += end.done.promptTokens;
    usage.cachedPromptTokens += end.done.cachedPromptTokens;
    usage.completionTokens += end.tokens;
    reports.push(end.done.applied);
  }
  return {
    type: "finished",
    usage,
    applied: resources.steering.proof(inputs[0]?.steering ?? [], sumReports(reports)),
    adapterDigest: resources.adapter.digest,
    registryRevision: resources.registryRevision,
  };
}
