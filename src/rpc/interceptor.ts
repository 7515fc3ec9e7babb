/** Counts and logs every call, whoever ends it. */
import {
  ResponderBuilder,
  ServerInterceptingCall,
  type ServerInterceptor,
  ServerListenerBuilder,
  status as StatusCode,
} from "@grpc/grpc-js";
import type { Logger } from "../observability/logger.js";
import type { Metrics } from "../observability/metrics.js";
import { methodName } from "./contract.js";

export function observeCalls(metrics: Metrics, logger: Logger): ServerInterceptor {
  return (descriptor, next) => {
    const method = methodName(descriptor.path);
    const start = process.hrtime.bigint();
    let ended = false;
    const end = (code: string) => {
      if (ended) return;
      ended = true;
      const durationSeconds = Number(process.hrtime.bigint() - start) / 1e9;
      metrics.callEnded(method, code, durationSeconds);
      logger.debug({ call: { method, code, durationSeconds } }, "call ended");
    };
    // A client that goes away, and limits that grpc-js holds by itself, bring no status here.
    const cancelled = () => end(isPast(next.getDeadline()) ? "DEADLINE_EXCEEDED" : "CANCELLED");
    const listener = new ServerListenerBuilder().withOnCancel(() => cancelled()).build();
    const responder = new ResponderBuilder()
      .withStart((start) => start(listener))
      .withSendStatus((status, send) => {
        end(StatusCode[status.code ?? StatusCode.UNKNOWN]);
        send(status);
      })
      .build();
    return new ServerInterceptingCall(next, responder);
  };
}

function isPast(deadline: Date | number): boolean {
  return Date.now() >= (deadline instanceof Date ? deadline.getTime() : deadline);
}
