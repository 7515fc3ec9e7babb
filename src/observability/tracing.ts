/**
 * Traces of calls. What the rest of the service sees of them: nothing of OpenTelemetry is loaded
 * before an endpoint is configured, and a call that is not traced is null everywhere.
 */
import type { Logger } from "./logger.js";

export type SpanAttributes = Record<string, string | number | boolean | string[]>;

/** The span of one call. Instants are milliseconds of `performance.now()`. */
export interface TracedCall {
  /** 32 hexadecimal digits. */
  readonly traceId: string;
  /** A child span that is over. */
  phase(name: string, startMs: number, endMs: number, failed: boolean): void;
  set(attributes: SpanAttributes): void;
  /** gRPC status by name. Idempotent. */
  end(code: string): void;
}

export interface Tracing {
  /** `header`: metadata of the call by name. Null: the call is not sampled. */
  begin(
    method: string,
    startMs: number,
    header: (name: string) => string | undefined,
  ): TracedCall | null;
  /** Sends what has ended, for a bounded time or until `signal`; never rejects. */
  close(signal: AbortSignal): Promise<void>;
}

export interface TracingOptions {
  /** Base URL of a collector that speaks OTLP over HTTP. */
  endpoint: string;
  /** Of calls without a traced parent, in [0, 1]. */
  sampleRatio: number;
  exportTimeoutMs: number;
  /** Spans that wait for the collector; more are dropped. */
  maxQueuedSpans: number;
  serviceVersion: string;
}

export async function openTracing(options: TracingOptions, logger: Logger): Promise<Tracing> {
  const { OtlpTracing } = await import("./otlp-tracing.js");
  return new OtlpTracing(options, logger);
}

/** Begins a phase of the call; the function that it returns ends it, once. */
function openPhase(trace: TracedCall | null, name: string): (failed: boolean) => void {
  if (!trace) return () => {};
  const startMs = performance.now();
  return (failed) => trace.phase(name, startMs, performance.now(), failed);
}

/** Runs `body` as a phase of the call. */
export function phase<T>(trace: TracedCall | null, name: string, body: () => T): T {
  const end = openPhase(trace, name);
  let failed = true;
  try {
    const result = body();
    failed = false;
    return result;
  } finally {
    end(failed);
  }
}

/** As `phase`, until the promise settles. */
export async function asyncPhase<T>(
  trace: TracedCall | null,
  name: string,
  body: () => Promise<T>,
): Promise<T> {
  const end = openPhase(trace, name);
  let failed = true;
  try {
    const result = await body();
    failed = false;
    return result;
  } finally {
    end(failed);
  }
}

/** As `phase`, until the items have ended or nobody wants more of them. */
export async function* streamPhase<T>(
  trace: TracedCall | null,
  name: string,
  items: AsyncIterable<T>,
): AsyncGenerator<T, void, undefined> {
  const end = openPhase(trace, name);
  let failed = true;
  try {
    yield* items;
    failed = false;
  } finally {
    end(failed);
  }
}
