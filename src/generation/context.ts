/** What every kind of request needs, and the steps that they share. */
import {
  CancelledError,
  DeadlineExceededError,
  EngineFault,
  FailedPreconditionError,
  invalid,
  NotFoundError,
  ResourceExhaustedError,
  type ServiceError,
  UnavailableError,
  UnimplementedError,
} from "../errors.js";
import type { AdapterRegistry } from "../model/adapters.js";
import { type ChatRequest, type LoadedModel, renderChat } from "../model/model.js";
import type { NativeSampling, NativeStatus } from "../native/binding.js";
import type { Engine, EngineStream } from "../native/engine.js";
import { asyncPhase, phase, type TracedCall } from "../observability/tracing.js";
import type { ProbeRegistry } from "../probes/registry.js";
import type { VectorRegistry } from "../vectors/registry.js";
import type { Admission, RejectionReason, Ticket } from "./admission.js";
import type { CaptureBudget } from "./capture-budget.js";

export interface GenerationContext {
  engine: Engine;
  model: LoadedModel;
  vectors: VectorRegistry;
  probes: ProbeRegistry;
  adapters: AdapterRegistry;
  admission: Admission;
  /** Tokens that the KV cache holds. */
  kvCacheTokens: number;
  maxPromptBytes: number;
  /** Whether the operator lets activations out. */
  captureEnabled: boolean;
  /** Bytes of rows in one message. */
  maxCaptureChunkBytes: number;
  captureBudget: CaptureBudget;
  onRejection: (reason: RejectionReason) => void;
}

export type InputSpec =
  | { kind: "prompt"; text: string; field: string }
  | { kind: "chat"; chat: ChatRequest; field: string }
  | { kind: "tokens"; ids: number[]; field: string };

/** One call: when it must be over, and whether the client is still there. */
export interface Call {
  /** Aborted when the client cancels or the connection breaks. */
  signal: AbortSignal;
  /** Milliseconds since the epoch; null: none. */
  deadlineMs: number | null;
  /** Null: the call is not traced. */
  trace: TracedCall | null;
}

/** Token ids of an input, checked against the vocabulary. */
export async function tokenizeInput(
  context: GenerationContext,
  input: InputSpec,
): Promise<Uint32Array> {
  const { model } = context;
  const ids =
    input.kind === "tokens"
      ? input.ids
      : input.kind === "prompt"
        ? await encodeText(context, input.text, input.field, true)
        : await encodeText(context, renderChat(model, input.chat, input.field), input.field, false);
  if (ids.length === 0) throw invalid(input.field, "has no tokens");
  return Uint32Array.from(ids);
}

async function encodeText(
  context: GenerationContext,
  text: string,
  field: string,
  addSpecialTokens: boolean,
): Promise<number[]> {
  const bytes = Buffer.byteLength(text);
  if (bytes > context.maxPromptBytes) {
    throw invalid(field, `${bytes} bytes of text, more than ${context.maxPromptBytes}`);
  }
  return context.model.tokenizer.encode(text, addSpecialTokens, field);
}

/** Refuses what can never run, with both numbers; such a request is never queued. */
export function checkFits(
  context: GenerationContext,
  field: string,
  promptTokens: number,
  newTokens: number,
): void {
  const wanted = promptTokens + newTokens;
  const { contextTokens } = context.model.config;
  const sum = newTokens === 0 ? `${wanted} tokens` : `${promptTokens} + ${newTokens} new tokens`;
  if (wanted > contextTokens) {
    throw invalid(field, `${sum}, more than the context of ${contextTokens}`);
  }
  if (wanted > context.kvCacheTokens) {
    context.onRejection("kv");
    throw invalid(field, `${sum}, more than the KV cache of ${context.kvCacheTokens} holds`);
  }
}

/** The clock of the engine: CLOCK_MONOTONIC nanoseconds. */
export function deadlineNs(call: Call): bigint {
  if (call.deadlineMs === null) return 0n;
  const left = Math.max(0, call.deadlineMs - Date.now());
  return process.hrtime.bigint() + BigInt(Math.ceil(left * 1e6));
}

/** Draws nothing: for requests that only prefill. */
export const NO_SAMPLING: NativeSampling = {
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

/** How the engine names the part of a request that it refuses. */
const ENGINE_PATH = /^((?:steering\[\d+\]|probes\[\d+\]|capture)(?:\.[a-z_]+)*): (.+)$/;

/** Why a request failed, for the client. `field` is blamed for what the engine calls invalid. */
export function errorOfStatus(status: NativeStatus, field: string): ServiceError {
  switch (status.code) {
    case 1:
      return new CancelledError();
    case 3: {
      const [, path = field, message = status.message] = ENGINE_PATH.exec(status.message) ?? [];
      return invalid(path, message);
    }
    case 4:
      return new DeadlineExceededError();
    case 5:
      return new NotFoundError("vector", status.message);
    case 8:
      return new ResourceExhaustedError(status.message, "ENGINE", 1000);
    case 9:
      return new FailedPreconditionError(status.message, "ENGINE");
    case 12:
      return new UnimplementedError(status.message);
    case 14:
      return new UnavailableError(status.message, "SHUTTING_DOWN");
    default:
      return new EngineFault(status.message);
  }
}

/** Throws FailedPreconditionError when the operator switched capture off. */
export function requireCapture(context: GenerationContext): void {
  if (context.captureEnabled) return;
  throw new FailedPreconditionError("capture is switched off (--capture on)", "CAPTURE_OFF");
}

/** Bounds the wait of a call without a deadline. */
const MAX_REVISION_WAIT_MS = 30_000;

/**
 * Runs `body` as an admitted request: waits for the registry revision that was asked for, gives the
 * ticket back in every case.
 */
export async function* admitted<T>(
  context: GenerationContext,
  call: Call,
  minRegistryRevision: bigint | null,
  body: (ticket: Ticket) => AsyncGenerator<T, void, undefined>,
): AsyncGenerator<T, void, undefined> {
  const enter = () => context.admission.enter(call.deadlineMs);
  const ticket = phase(call.trace, "admission", enter);
  try {
    if (minRegistryRevision !== null) {
      const limit = AbortSignal.timeout(MAX_REVISION_WAIT_MS);
      const signal = AbortSignal.any([call.signal, limit]);
      await asyncPhase(call.trace, "registry_wait", () =>
        context.vectors.waitForRevision(minRegistryRevision, signal),
      );
    }
    yield* body(ticket);
  } finally {
    ticket.release();
  }
}

/** Cancels the stream when the client goes away or stops listening. */
export async function* cancelOnAbort<T>(
  stream: EngineStream,
  signal: AbortSignal,
  body: () => AsyncGenerator<T, void, undefined>,
): AsyncGenerator<T, void, undefined> {
  const cancel = () => stream.cancel();
  signal.addEventListener("abort", cancel, { once: true });
  if (signal.aborted) cancel();
  try {
    yield* body();
  } finally {
    signal.removeEventListener("abort", cancel);
    stream.cancel();
  }
}
