/** Activations of a batch of prompts, several in flight, each at the client's pace. */
import { EngineFault, FailedPreconditionError } from "../errors.js";
import type {
  NativeActivationEvent,
  NativeApplied,
  NativeCapture,
  NativeSteering,
} from "../native/binding.js";
import type { RequestEvent } from "../native/engine.js";
import type { Ticket } from "./admission.js";
import {
  type CaptureSpec,
  captureTokenBytes,
  captureTotalBytes,
  resolveCapture,
  splitRows,
} from "./capture-spec.js";
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
import { type AppliedSteering, addReports, PinnedSteering, type SteeringSpec } from "./steering.js";

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
/** Activation events of one input that may wait for the client; their bytes are bounded too. */
const CREDITS_PER_INPUT = 1024;

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
  capture: NativeCapture;
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
  const release = [() => pinned.release()];
  try {
    const inputs: PreparedInput[] = [];
    for (const input of spec.inputs) inputs.push(await prepare(context, spec, input, pinned));
    ticket.countTokens(inputs.reduce((sum, { prompt }) => sum + prompt.length, 0));
    ticket.submitted();
    const tokenBytes = captureTokenBytes(spec.capture, context.model.config);
    const totalBytes = inputs.reduce(
      (sum, { capture }) => sum + captureTotalBytes(capture, tokenBytes),
      0,
    );
    const window = context.captureBudget.reserve(tokenBytes, totalBytes, "capture");
    release.push(window.release);
    const inFlight = Math.min(INPUTS_IN_FLIGHT, Math.floor(window.bytes / tokenBytes));
    const creditBytes = Math.floor(window.bytes / inFlight);

    const usage: Usage = { promptTokens: 0, cachedPromptTokens: 0, completionTokens: 0 };
    let reports: NativeApplied[] = [];
    const streams = inputs.map((input) => () => captureInput(context, call, input, creditBytes));
    for await (const [inputIndex, batch] of mergeStreams(streams, inFlight)) {
      for (const event of batch) {
        if (event.type === "activations") {
          for (const part of splitRows(event, context.maxCaptureChunkBytes)) {
            yield { type: "activations", inputIndex, event: part };
          }
        }
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
    for (const each of release) each();
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
  const { model } = context;
  const capture = resolveCapture(
    spec.capture,
    model.config,
    prompt.length,
    prompt.length,
    input.field,
  );
  return { prompt, capture, steering: pinned.resolve(prompt.length, prompt.length - 1) };
}

function captureInput(
  context: GenerationContext,
  call: Call,
  input: PreparedInput,
  creditBytes: number,
): AsyncGenerator<RequestEvent[], void, undefined> {
  const stream = context.engine.submit({
    promptTokenIds: input.prompt,
    completions: 1,
    maxNewTokens: 0,
    sampling: NO_SAMPLING,
    steering: input.steering,
    capture: input.capture,
    promptLogprobsFrom: null,
    credits: CREDITS_PER_INPUT,
    captureCreditBytes: creditBytes,
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
