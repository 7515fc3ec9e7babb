/** A gRPC call as the rest of the service sees it: an abort signal and a deadline. */
import type { Deadline } from "@grpc/grpc-js";
import { CancelledError, DeadlineExceededError } from "../errors.js";
import type { Call } from "../generation/context.js";
import type { TracedCall } from "../observability/tracing.js";

/** The part of grpc-js' server calls that is used here. */
export interface ServerSurface {
  on(event: "cancelled", listener: () => void): unknown;
  readonly cancelled: boolean;
  getDeadline(): Deadline;
}

/** Longest delay that a timer takes. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/**
 * The signal aborts with a CancelledError when the client goes away, with a DeadlineExceededError
 * when its deadline passes. `end` must be called when the call is over.
 */
export function openCall(
  surface: ServerSurface,
  trace: TracedCall | null,
): Call & { end: () => void } {
  const controller = new AbortController();
  surface.on("cancelled", () => controller.abort(new CancelledError()));
  if (surface.cancelled) controller.abort(new CancelledError());
  const deadlineMs = deadlineMsOf(surface.getDeadline());
  let timer: NodeJS.Timeout | undefined;
  if (deadlineMs !== null && deadlineMs - Date.now() < MAX_TIMER_MS) {
    const expire = () => controller.abort(new DeadlineExceededError());
    timer = setTimeout(expire, Math.max(0, deadlineMs - Date.now()));
  }
  return { signal: controller.signal, deadlineMs, trace, end: () => clearTimeout(timer) };
}

/** Milliseconds since the epoch; null: none. */
export function deadlineMsOf(deadline: Deadline): number | null {
  const ms = deadline instanceof Date ? deadline.getTime() : deadline;
  return Number.isFinite(ms) ? ms : null;
}
