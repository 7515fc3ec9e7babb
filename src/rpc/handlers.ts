/** Turns plain async functions and generators into grpc-js handlers. */
import type { Readable } from "node:stream";
import type {
  handleClientStreamingCall,
  handleServerStreamingCall,
  handleUnaryCall,
  Metadata,
} from "@grpc/grpc-js";
import { CancelledError, invalid, ResourceExhaustedError } from "../errors.js";
import type { Call } from "../generation/context.js";
import type { Logger } from "../observability/logger.js";
import type { TracedCall } from "../observability/tracing.js";
import { openCall } from "./call.js";
import { methodName } from "./contract.js";
import { type RpcStatus, statusOf } from "./status.js";
import { MalformedRequest } from "./strict-reader.js";

export interface HandlerOptions {
  logger: Logger;
  /** Called before anything else; throws UNAVAILABLE while loading or draining. */
  requireOpen: () => void;
  traceOf: (metadata: Metadata) => TracedCall | null;
  /** A stream whose client takes nothing for so long is ended, milliseconds. */
  slowReaderTimeoutMs: number;
}

export class Handlers {
  constructor(private readonly options: HandlerOptions) {}

  unary<Request, Response>(
    handler: (request: Request, call: Call) => Promise<Response> | Response,
  ): handleUnaryCall<Request, Response> {
    return async (surface, callback) => {
      const call = openCall(surface, this.options.traceOf(surface.metadata));
      try {
        this.options.requireOpen();
        callback(null, await handler(wellFormed(surface.request), call));
      } catch (error) {
        callback(this.report(surface.getPath(), error, call));
      } finally {
        call.end();
      }
    };
  }

  /** Leaving the loop over the requests early is fine: what is left of the upload is dropped. */
  upload<Request, Response>(
    handler: (requests: AsyncIterable<Request>, call: Call) => Promise<Response>,
  ): handleClientStreamingCall<Request, Response> {
    return async (surface, callback) => {
      const call = openCall(surface, this.options.traceOf(surface.metadata));
      try {
        this.options.requireOpen();
        callback(null, await handler(wellFormedEach<Request>(surface, call.signal), call));
      } catch (error) {
        callback(this.report(surface.getPath(), error, call));
      } finally {
        call.end();
      }
    };
  }

  stream<Request, Response>(
    handler: (request: Request, call: Call) => AsyncIterable<Response>,
  ): handleServerStreamingCall<Request, Response> {
    return async (surface) => {
      const call = openCall(surface, this.options.traceOf(surface.metadata));
      try {
        this.options.requireOpen();
        for await (const message of handler(wellFormed(surface.request), call)) {
          call.signal.throwIfAborted();
          if (!surface.write(message)) {
            await drained(surface, call.signal, this.options.slowReaderTimeoutMs);
          }
        }
        surface.end();
      } catch (error) {
        surface.emit("error", this.report(surface.getPath(), error, call));
      } finally {
        call.end();
      }
    };
  }

  private report(path: string, error: unknown, call: Call): RpcStatus & Error {
    // The engine only knows that it was told to stop; the signal knows why.
    const { aborted, reason } = call.signal;
    const cause = aborted && error instanceof CancelledError ? reason : error;
    const status = statusOf(cause);
    call.trace?.set({ "llamasteer.error.reason": status.reason });
    if (status.correlationId !== null) {
      const { reason, correlationId } = status;
      const record = { method: methodName(path), code: "INTERNAL", reason, correlationId };
      this.options.logger.error({ call: record, err: cause }, "call failed");
    }
    return Object.assign(new Error(status.details), status);
  }
}

function wellFormed<Request>(request: Request | MalformedRequest): Request {
  if (request instanceof MalformedRequest) throw invalid("request", request.reason);
  return request;
}

async function* wellFormedEach<Request>(
  requests: Readable,
  signal: AbortSignal,
): AsyncGenerator<Request, void, undefined> {
  // A stream whose client goes away does not end by itself.
  const onAbort = () => requests.destroy(signal.reason);
  signal.addEventListener("abort", onAbort, { once: true });
  if (signal.aborted) onAbort();
  try {
    for await (const request of requests) yield wellFormed<Request>(request);
    signal.throwIfAborted();
  } finally {
    signal.removeEventListener("abort", onAbort);
  }
}

interface Writable {
  once(event: "drain", listener: () => void): unknown;
  off(event: "drain", listener: () => void): unknown;
}

/** Resolves when the client has taken enough to write on. */
async function drained(stream: Writable, signal: AbortSignal, timeoutMs: number): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    const settle = (then: () => void) => () => {
      clearTimeout(timer);
      stream.off("drain", onDrain);
      signal.removeEventListener("abort", onAbort);
      then();
    };
    const onDrain = settle(resolve);
    const onAbort = settle(() => reject(signal.reason));
    const onTimeout = settle(() => {
      const text = `the client took nothing for ${timeoutMs / 1000} s`;
      reject(new ResourceExhaustedError(text, "SLOW_READER", null));
    });
    const timer = setTimeout(onTimeout, timeoutMs);
    stream.once("drain", onDrain);
    signal.addEventListener("abort", onAbort, { once: true });
    if (signal.aborted) onAbort();
  });
}
