/**
 * Traces over OTLP (HTTP, protobuf). Headers, compression and certificates of the connection come
 * from the standard OTEL_EXPORTER_OTLP_* variables, attributes of the resource from
 * OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME. Conventions: opentelemetry.io/docs/specs/semconv.
 */
import { randomUUID } from "node:crypto";
import {
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from "@opentelemetry/api";
import { ExportResultCode, W3CTraceContextPropagator } from "@opentelemetry/core";
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto";
import { detectResources, envDetector, resourceFromAttributes } from "@opentelemetry/resources";
import {
  BatchSpanProcessor,
  ParentBasedSampler,
  type ReadableSpan,
  type SpanExporter,
  TraceIdRatioBasedSampler,
  TracerProvider,
} from "@opentelemetry/sdk-trace";
import type { Logger } from "./logger.js";
import type { SpanAttributes, TracedCall, Tracing, TracingOptions } from "./tracing.js";

const EXPORT_INTERVAL_MS = 1000;
const MAX_EXPORTED_SPANS = 512;
/** For the last spans, when the server ends. */
const FLUSH_TIMEOUT_MS = 3000;
const WARNING_INTERVAL_MS = 60_000;
const TRACES_PATH = "/v1/traces";

/** The codes by which the server, not the caller, has failed. */
const SERVER_FAULTS = new Set([
  "UNKNOWN",
  "DEADLINE_EXCEEDED",
  "UNIMPLEMENTED",
  "INTERNAL",
  "UNAVAILABLE",
  "DATA_LOSS",
]);
/** google.rpc.Code by number. */
const CODES = [
  ..."OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS".split(" "),
  ..."PERMISSION_DENIED RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE".split(" "),
  ..."UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED".split(" "),
];

export class OtlpTracing implements Tracing {
  private readonly provider: TracerProvider;
  private readonly tracer: Tracer;
  private readonly propagator = new W3CTraceContextPropagator();

  constructor(options: TracingOptions, logger: Logger) {
    const { endpoint, sampleRatio, exportTimeoutMs, maxQueuedSpans, serviceVersion } = options;
    const exporter = new OTLPTraceExporter({
      url: tracesUrl(endpoint),
      timeoutMillis: exportTimeoutMs,
    });
    const processor = new BatchSpanProcessor({
      exporter: new WarningExporter(exporter, logger),
      scheduledDelayMillis: EXPORT_INTERVAL_MS,
      exportTimeoutMillis: exportTimeoutMs,
      maxQueueSize: maxQueuedSpans,
      maxExportBatchSize: Math.min(MAX_EXPORTED_SPANS, maxQueuedSpans),
    });
    this.provider = new TracerProvider({
      resource: resourceFromAttributes({
        "service.name": "llama-steer",
        "service.version": serviceVersion,
        "service.instance.id": randomUUID(),
      }).merge(detectResources({ detectors: [envDetector] })),
      sampler: new ParentBasedSampler({ root: new TraceIdRatioBasedSampler(sampleRatio) }),
      spanProcessors: [processor],
    });
    this.tracer = this.provider.getTracer("llama-steer", serviceVersion);
  }

  begin(
    method: string,
    startMs: number,
    header: (name: string) => string | undefined,
  ): TracedCall | null {
    const parent = this.propagator.extract(ROOT_CONTEXT, header, {
      get: (carrier, name) => carrier(name),
      keys: () => [],
    });
    const clock = new CallClock();
    const startTime = clock.at(startMs);
    const attributes = rpcAttributes(method);
    const kind = SpanKind.SERVER;
    const span = this.tracer.startSpan(method, { kind, startTime, attributes }, parent);
    return span.isRecording() ? new OtlpCall(this.tracer, span, clock) : null;
  }

  async close(signal: AbortSignal): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, FLUSH_TIMEOUT_MS);
      signal.addEventListener("abort", () => resolve(), { once: true });
      if (signal.aborted) resolve();
    });
    // A collector that is away must not keep the server from ending well.
    await Promise.race([this.provider.shutdown().catch(() => {}), patience]);
    clearTimeout(timer);
  }
}

function tracesUrl(endpoint: string): string {
  const base = endpoint.replace(/\/+$/, "");
  return base.endsWith(TRACES_PATH) ? base : base + TRACES_PATH;
}

/** With the names of before the conventions became stable, which many backends still look for. */
function rpcAttributes(method: string): SpanAttributes {
  const [service = ""] = method.split("/");
  return {
    "rpc.system.name": "grpc",
    "rpc.method": method,
    "rpc.system": "grpc",
    "rpc.service": service,
  };
}

/**
 * One offset between the clocks for a call and all of its phases: the library's own is taken anew
 * for each span, and rounded to milliseconds, which would put phases out of order.
 */
class CallClock {
  private readonly offsetMs = Date.now() - performance.now();

  /** From milliseconds of `performance.now()` to seconds and nanoseconds since the epoch. */
  at(ms: number): [seconds: number, nanoseconds: number] {
    const epochMs = this.offsetMs + ms;
    const seconds = Math.floor(epochMs / 1000);
    return [seconds, Math.floor((epochMs - seconds * 1000) * 1e6)];
  }
}

class OtlpCall implements TracedCall {
  private ended = false;

  constructor(
    private readonly tracer: Tracer,
    private readonly span: Span,
    private readonly clock: CallClock,
  ) {}

  get traceId(): string {
    return this.span.spanContext().traceId;
  }

  phase(name: string, startMs: number, endMs: number, failed: boolean): void {
    const parent = trace.setSpan(ROOT_CONTEXT, this.span);
    const child = this.tracer.startSpan(name, { startTime: this.clock.at(startMs) }, parent);
    if (failed) child.setStatus({ code: SpanStatusCode.ERROR });
    child.end(this.clock.at(endMs));
  }

  set(attributes: SpanAttributes): void {
    if (!this.ended) this.span.setAttributes(attributes);
  }

  end(code: string): void {
    if (this.ended) return;
    this.ended = true;
    this.span.setAttributes({
      "rpc.status_code": code,
      "rpc.grpc.status_code": CODES.indexOf(code),
    });
    if (SERVER_FAULTS.has(code)) {
      this.span.setAttribute("error.type", code);
      // No message: messages name what clients sent.
      this.span.setStatus({ code: SpanStatusCode.ERROR });
    }
    this.span.end(this.clock.at(performance.now()));
  }
}

type ExportCallback = Parameters<SpanExporter["export"]>[1];

/** Says in the log, now and then, that spans are lost. */
class WarningExporter implements SpanExporter {
  private lastWarningMs = Number.NEGATIVE_INFINITY;
  private lost = 0;

  constructor(
    private readonly exporter: SpanExporter,
    private readonly logger: Logger,
  ) {}

  export(spans: ReadableSpan[], done: ExportCallback): void {
    this.exporter.export(spans, (result) => {
      if (result.code !== ExportResultCode.SUCCESS) this.warn(spans.length, result.error);
      done(result);
    });
  }

  private warn(spans: number, error: Error | undefined): void {
    this.lost += spans;
    const now = performance.now();
    if (now - this.lastWarningMs < WARNING_INTERVAL_MS) return;
    this.lastWarningMs = now;
    const reason = error?.message ?? "unknown";
    this.logger.warn({ lostSpans: this.lost, reason }, "traces do not reach the collector");
    this.lost = 0;
  }

  shutdown(): Promise<void> {
    return this.exporter.shutdown();
  }

  forceFlush(): Promise<void> {
    return this.exporter.forceFlush?.() ?? Promise.resolve();
  }
}
