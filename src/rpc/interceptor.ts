/** Counts and logs every call, writes with who made them, whoever ends it, and can end the streams that never end by themselves. */
import {
  type Metadata,
  ResponderBuilder,
  ServerInterceptingCall,
  type ServerInterceptingCallInterface,
  type ServerInterceptor,
  ServerListenerBuilder,
  status as StatusCode,
} from "@grpc/grpc-js";
import type { Logger } from "../observability/logger.js";
import type { Metrics } from "../observability/metrics.js";
import type { TracedCall, Tracing } from "../observability/tracing.js";
import { isWrite, resourceOf } from "./auth/roles.js";
import { methodName } from "./contract.js";

/** Health watches and reflection stay open for as long as a client likes. */
const ENDLESS = /^grpc\.(health|reflection)\./;

export class CallObserver {
  private readonly endless = new Set<ServerInterceptingCallInterface>();
  private readonly traces = new WeakMap<Metadata, TracedCall>();

  constructor(
    private readonly metrics: Metrics,
    private readonly logger: Logger,
    private readonly callerOf: (metadata: Metadata) => string | undefined,
    /** Null: nothing is traced. */
    private readonly tracing: Tracing | null,
  ) {}

  /** By the metadata that the call came with. */
  readonly traceOf = (metadata: Metadata): TracedCall | null => this.traces.get(metadata) ?? null;

  readonly interceptor: ServerInterceptor = (descriptor, next) => {
    const method = methodName(descriptor.path);
    const startMs = performance.now();
    let ended = false;
    let metadata: Metadata | null = null;
    let resource: string | null = null;
    let trace: TracedCall | null = null;
    const end = (code: string) => {
      if (ended) return;
      ended = true;
      this.endless.delete(next);
      trace?.end(code);
      const durationSeconds = (performance.now() - startMs) / 1e3;
      this.metrics.callEnded(method, code, durationSeconds);
      const caller = metadata ? (this.callerOf(metadata) ?? null) : null;
      const call = { method, code, durationSeconds, caller, traceId: trace?.traceId ?? null };
      if (isWrite(method)) this.logger.info({ call: { ...call, resource } }, "audit");
      else this.logger.debug({ call }, "call ended");
    };
    if (ENDLESS.test(method)) this.endless.add(next);
    // A client that goes away, and limits that grpc-js holds by itself, bring no status here.
    const cancelled = () => end(isPast(next.getDeadline()) ? "DEADLINE_EXCEEDED" : "CANCELLED");
    const listener = new ServerListenerBuilder()
      .withOnReceiveMetadata((received, forward) => {
        metadata = received;
        trace = this.begin(method, startMs, received);
        forward(received);
      })
      .withOnReceiveMessage((message, forward) => {
        if (isWrite(method)) resource ??= resourceOf(message);
        forward(message);
      })
      .withOnCancel(cancelled)
      .build();
    const responder = new ResponderBuilder()
      .withStart((begin) => begin(listener))
      .withSendStatus((status, send) => {
        end(StatusCode[status.code ?? StatusCode.UNKNOWN]);
        send(status);
      })
      .build();
    return new ServerInterceptingCall(next, responder);
  };

  private begin(method: string, startMs: number, metadata: Metadata): TracedCall | null {
    if (!this.tracing || ENDLESS.test(method)) return null;
    const header = (name: string) => metadata.get(name).at(0)?.toString();
    const trace = this.tracing.begin(method, startMs, header);
    if (trace) this.traces.set(metadata, trace);
    return trace;
  }

  /** For shutdown, which waits for every stream. */
  endEndlessStreams(): void {
    for (const call of this.endless) {
      call.sendStatus({ code: StatusCode.UNAVAILABLE, details: "the server is shutting down" });
    }
  }
}

function isPast(deadline: Date | number): boolean {
  return Date.now() >= (deadline instanceof Date ? deadline.getTime() : deadline);
}
