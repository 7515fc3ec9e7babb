/**
 * Refuses calls that the queue has no room for as soon as their headers are there: nothing of the
 * request is read, decoded or checked, so that refusing costs those little who were admitted.
 */
import {
  type Metadata,
  ResponderBuilder,
  ServerInterceptingCall,
  type ServerInterceptor,
  ServerListenerBuilder,
} from "@grpc/grpc-js";
import type { ServiceError } from "../errors.js";
import type { TracedCall } from "../observability/tracing.js";
import { deadlineMsOf } from "./call.js";
import { methodName } from "./contract.js";
import { statusOf } from "./status.js";

/** Methods of which every call enters the queue, whatever its request says. */
const QUEUED = new Set([
  "llamasteer.v1.InferenceService/Generate",
  "llamasteer.v1.InferenceService/GenerateStream",
  "llamasteer.v1.InferenceService/Score",
  "llamasteer.v1.InferenceService/CaptureActivations",
]);

export interface QueueGateOptions {
  /** Why the queue takes nothing now; null: it does. `deadlineMs`: epoch, or null. */
  refusal(deadlineMs: number | null): ServiceError | null;
  traceOf(metadata: Metadata): TracedCall | null;
}

/** Must come after the interceptor that asks for tokens: a caller without one learns nothing. */
export function queueGate({ refusal, traceOf }: QueueGateOptions): ServerInterceptor {
  return (descriptor, next) => {
    if (!QUEUED.has(methodName(descriptor.path))) return new ServerInterceptingCall(next);
    const listener = new ServerListenerBuilder()
      .withOnReceiveMetadata((metadata, forward) => {
        const error = refusal(deadlineMsOf(next.getDeadline()));
        if (error === null) return forward(metadata);
        const status = statusOf(error);
        traceOf(metadata)?.set({ "llamasteer.error.reason": status.reason });
        next.sendStatus(status);
      })
      .build();
    const responder = new ResponderBuilder().withStart((begin) => begin(listener)).build();
    return new ServerInterceptingCall(next, responder);
  };
}
