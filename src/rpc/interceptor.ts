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
import { isWrite, resourceOf } from "./auth/roles.js";
import { methodName } from "./contract.js";

/** Health watches and reflection stay open for as long as a client likes. */
const ENDLESS = /^grpc\.(health|reflection)\./;

export class CallObserver {
  private readonly endless = new Set<ServerInterceptingCallInterface>();

  constructor(
    private readonly metrics: Metrics,
    private readonly logger: Logger,
    private readonly callerOf: (metadata: Metadata) => string | undefined,
  ) {}

  readonly interceptor: ServerInterceptor = (descriptor, next) => {
    const method = methodName(descriptor.path);
    const start = process.hrtime.bigint();
    let ended = false;
    let metadata: Metadata | null = null;
    let resource: string | null = null;
    const end = (code: string) => {
      if (ended) return;
      ended = true;
      this.endless.delete(next);
      const durationSeconds = Number(process.hrtime.bigint() - start) / 1e9;
      this.metrics.callEnded(method, code, durationSeconds);
      const caller = metadata ? (this.callerOf(metadata) ?? null) : null;
      const call = { method, code, durationSeconds, caller };
      if (isWrite(method)) this.logger.info({ call: { ...call, resource } }, "audit");
      else this.logger.debug({ call }, "call ended");
    };
    if (ENDLESS.test(method)) this.endless.add(next);
    // A client that goes away, and limits that grpc-js holds by itself, bring no status here.
    const cancelled = () => end(isPast(next.getDeadline()) ? "DEADLINE_EXCEEDED" : "CANCELLED");
    const listener = new ServerListenerBuilder()
      .withOnReceiveMetadata((received, forward) => {
        metadata = received;
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
