/** Activations of a batch of prompts, several in flight, each at the client's pace. */
import { EngineFault, FailedPreconditionError, invalid } from "../errors.js";
import type {
  DTypeName,
  NativeActivationEvent,
  NativeApplied,
  NativeCaptureSite,
  NativeSteering,
} from "../native/binding.js";
import type { RequestEvent } from "../native/engine.js";
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
import { type PositionRange, type PositionScope, resolvePositions } from "./positions.js";
import { type AppliedSteering, addReports, PinnedSteering, type SteeringSpec } from "./steering.js";

export interface CaptureSpec {
  sites: NativeCaptureSite[];
  /** Empty: all. */
  layers: number[];
  tokens: PositionScope | { kind: "last" };
  mean: boolean;
  beforeSteering: boolean;
  dtype: DTypeName;
}

export interface CaptureActivationsSpec {
  inputs: InputSpec[];
  capture: CaptureSpec;
  steering: SteeringSpec[];
  minRegistryRevision: bigint | null;
}

export interface CapturedChunk {
  type: "activations";
  inputIndex: number;
  event: NativeActivationEvent;
}

export interface CaptureFinished {
  type: "finished";
  usage: Usage;
  applied: AppliedSteering[];
  registryRevision: bigint;
}

export type CaptureEvent = CapturedChunk | CaptureFinished;

/** Inputs whose prefill runs at the same time. */
const INPUTS_IN_FLIGHT = 8;
/** Activation events of one input that may wait for the client. */
const CREDITS_PER_INPUT = 4;

/** Chunks in any order of inputs, ascending positions within one; then one `finished`. */
export function captureActivations(
  context: GenerationContext,
  spec: CaptureActivationsSpec,
  call: Call,
  captureEnabled: boolean,
): AsyncGenerator<CaptureEvent, void, undefined> {
  if (!captureEnabled) {
    throw new FailedPreconditionError("capture is switched off (--capture on)", "CAPTURE_OFF");
  }
  return admitted(context, call, spec.minRegistryRevision, (ticket) =>
    run(context, spec, call, ticket),
  );
}

interface PreparedInput {
  prompt: Uint32Array;
  positions: PositionRange;
  steering: NativeSteering[];
}

async function* run(
  context: GenerationContext,
  spec: CaptureActivationsSpec,
  call: Call,
  ticket: Ticket,
): AsyncGenerator<CaptureEvent, void, undefined> {
  const registryRevision = context.vectors.revision;
  const pinned = PinnedSteering.pin(spec.steering, context.vectors, context.model);
  try {
    const inputs: PreparedInput[] = [];
    for (const input of spec.inputs) inputs.push(await prepare(context, spec, input, pinned));
    ticket.countTokens(inputs.reduce((sum, { prompt }) => sum + prompt.length, 0));
    ticket.submitted();

    const usage: Usage = { promptTokens: 0, cachedPromptTokens: 0, completionTokens: 0 };
    let reports: NativeApplied[] = [];
    const streams = inputs.map((input) => () => captureInput(context, spec.capture, call, input));
    for await (const [inputIndex, batch] of mergeStreams(streams, INPUTS_IN_FLIGHT)) {
      for (const event of batch) {
        if (event.type === "activations") yield { type: "activations", inputIndex, event };
        if (event.type !== "done") continue;
        if (event.status.code !== 0) {
          throw errorOfStatus(event.status, `inputs[${inputIndex}]`);
        }
        usage.promptTokens += event.promptTokens;
        usage.cachedPromptTokens += event.cachedPromptTokens;
        reports = addReports(reports, event.applied);
      }
    }
    const applied = pinned.proof(inputs[0]?.steering ?? [], reports);
    yield { type: "finished", usage, applied, registryRevision };
  } finally {
    pinned.release();
  }
}

async function prepare(
  context: GenerationContext,
  spec: CaptureActivationsSpec,
  input: InputSpec,
  pinned: PinnedSteering,
): Promise<PreparedInput> {
  const prompt = await tokenizeInput(context, input);
  checkFits(context, input.field, prompt.length, 0);
  const selector = spec.capture.tokens;
  const scope: PositionScope =
    selector.kind === "last" ? { kind: "range", start: -1, end: null } : selector;
  const range = resolvePositions(scope, prompt.length, "capture.tokens");
  const positions = { begin: range.begin, end: Math.min(range.end, prompt.length) };
  if (positions.begin >= positions.end) {
    throw invalid("capture.tokens", `select no token of ${input.field} (${prompt.length} tokens)`);
  }
  return { prompt, positions, steering: pinned.resolve(prompt.length, prompt.length - 1) };
}

function captureInput(
  context: GenerationContext,
  capture: CaptureSpec,
  call: Call,
  input: PreparedInput,
): AsyncGenerator<RequestEvent[], void, undefined> {
  const all = Array.from({ length: context.model.config.layers }, (_, layer) => layer);
  const layers = capture.layers.length === 0 ? all : capture.layers;
  const stream = context.engine.submit({
    promptTokenIds: input.prompt,
    completions: 1,
    maxNewTokens: 0,
    sampling: NO_SAMPLING,
    steering: input.steering,
    capture: {
      sites: capture.sites,
      layers: Int32Array.from(new Set(layers)).sort(),
      positionBegin: input.positions.begin,
      positionEnd: input.positions.end,
      mean: capture.mean,
      beforeSteering: capture.beforeSteering,
      dtype: capture.dtype,
      lensTopK: 0,
      afterText: new Uint8Array(),
    },
    promptLogprobsFrom: null,
    credits: CREDITS_PER_INPUT,
    cacheSalt: "",
    deadlineNs: deadlineNs(call),
    adapter: 0,
    probes: [],
    compareUnsteered: false,
  });
  return cancelOnAbort(stream, call.signal, async function* () {
    yield* stream;
    if (call.signal.aborted) return;
  });
}

/** Items of several generators as they come, with the index of their source. */
async function* mergeStreams<T>(
  sources: readonly (() => AsyncGenerator<T, void, undefined>)[],
  inFlight: number,
): AsyncGenerator<[index: number, item: T], void, undefined> {
  const running = new Map<
    number,
    { source: AsyncGenerator<T, void, undefined>; next: Promise<[number, IteratorResult<T, void>]> }
  >();
  let started = 0;
  const advance = (index: number, source: AsyncGenerator<T, void, undefined>) => {
    const next = source.next().then((result): [number, IteratorResult<T, void>] => [index, result]);
    next.catch(() => {});
    running.set(index, { source, next });
  };
  try {
    for (;;) {
      while (running.size < inFlight && started < sources.length) {
        const index = started++;
        const source = sources[index]?.();
        if (source) advance(index, source);
      }
      if (running.size === 0) return;
      const [index, result] = await Promise.race([...running.values()].map(({ next }) => next));
      const entry = running.get(index);
      if (!entry) throw new EngineFault("a finished source gave another item");
      if (result.done) {
        running.delete(index);
        continue;
      }
      yield [index, result.value];
      advance(index, entry.source);
    }
  } finally {
    await Promise.allSettled([...running.values()].map(({ source }) => source.return()));
  }
}
