/** Calls of grpc-js as promises and async iterables, with an AbortSignal and a time limit. */
import type {
  ClientReadableStream,
  ClientUnaryCall,
  ClientWritableStream,
  CallOptions as GrpcCallOptions,
  Metadata,
  requestCallback,
} from "@grpc/grpc-js";
import { ClientError, toClientError } from "./errors.js";

export interface CallOptions {
  /** Cancels the call; the server frees what it holds. */
  signal?: AbortSignal;
  /** Deadline of the call, from now. Default: none. */
  timeoutMs?: number;
}

type UnaryMethod<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options: GrpcCallOptions,
  callback: requestCallback<Response>,
) => ClientUnaryCall;

type StreamMethod<Request, Response> = (
  request: Request,
  metadata: Metadata,
  options?: GrpcCallOptions,
) => ClientReadableStream<Response>;

type UploadMethod<Request, Response> = (
  metadata: Metadata,
  options: GrpcCallOptions,
  callback: requestCallback<Response>,
) => ClientWritableStream<Request>;

function grpcOptions(options: CallOptions): GrpcCallOptions {
  return options.timeoutMs === undefined ? {} : { deadline: Date.now() + options.timeoutMs };
}

function throwIfAborted(signal: AbortSignal | undefined): void {
  if (signal?.aborted) throw new ClientError("CANCELLED", "cancelled by the caller");
}

/** One request, one response. Throws a ClientError. */
export async function unary<Request, Response>(
  method: UnaryMethod<Request, Response>,
  request: Request,
  metadata: Metadata,
  options: CallOptions,
): Promise<Response> {
  const { signal } = options;
  throwIfAborted(signal);
  return new Promise((resolve, reject) => {
    const call = method(request, metadata, grpcOptions(options), (error, response) => {
      signal?.removeEventListener("abort", abort);
      if (error) reject(toClientError(error));
      else if (response === undefined) reject(new ClientError("INTERNAL", "empty response"));
      else resolve(response);
    });
    const abort = () => call.cancel();
    signal?.addEventListener("abort", abort, { once: true });
  });
}

/**
 * One request, many responses; the call begins when the first one is asked for. Reading slowly slows
 * the server down. Leaving the loop early cancels the call. Throws a ClientError.
 */
export async function* serverStream<Request, Response>(
  method: StreamMethod<Request, Response>,
  request: Request,
  metadata: Metadata,
  options: CallOptions,
): AsyncGenerator<Response, void, undefined> {
  const { signal } = options;
  throwIfAborted(signal);
  const call = method(request, metadata, grpcOptions(options));
  const abort = () => call.cancel();
  signal?.addEventListener("abort", abort, { once: true });
  // The iterator stops listening when the loop is left; the status of the cancelled call comes later.
  call.on("error", () => {});
  let ended = false;
  try {
    for await (const message of call) yield message as Response;
    ended = true;
  } catch (error) {
    ended = true;
    throw toClientError(error);
  } finally {
    signal?.removeEventListener("abort", abort);
    if (!ended) call.cancel();
  }
}

/**
 * Many requests, one response. Messages are taken as fast as the server reads them, and no more once
 * it has answered. Throws a ClientError, or what `messages` throws.
 */
export async function clientStream<Request, Response>(
  method: UploadMethod<Request, Response>,
  messages: Iterable<Request> | AsyncIterable<Request>,
  metadata: Metadata,
  options: CallOptions,
): Promise<Response> {
  const { signal } = options;
  throwIfAborted(signal);
  let call: ClientWritableStream<Request> | undefined;
  const abort = () => call?.cancel();
  signal?.addEventListener("abort", abort, { once: true });
  const answered = new AbortController();
  const answer = new Promise<Response>((resolve, reject) => {
    call = method(metadata, grpcOptions(options), (error, response) => {
      answered.abort();
      if (error) reject(toClientError(error));
      else if (response === undefined) reject(new ClientError("INTERNAL", "empty response"));
      else resolve(response);
    });
    // The callback has the error of the call too; without a listener the stream would throw it.
    call.on("error", () => {});
  });
  try {
    const upload = call ? writeAll(call, messages, answered.signal) : Promise.resolve();
    const [response] = await Promise.all([answer, upload]);
    return response;
  } catch (error) {
    call?.cancel();
    await answer.catch(() => {});
    throw error;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}

async function writeAll<Request>(
  call: ClientWritableStream<Request>,
  messages: Iterable<Request> | AsyncIterable<Request>,
  answered: AbortSignal,
): Promise<void> {
  for await (const message of messages) {
    if (answered.aborted) return;
    if (!call.write(message)) await drainOf(call, answered);
  }
  call.end();
}

function drainOf(call: { once(event: "drain", listener: () => void): unknown }, end: AbortSignal) {
  return new Promise<void>((resolve) => {
    call.once("drain", resolve);
    end.addEventListener("abort", () => resolve(), { once: true });
  });
}
