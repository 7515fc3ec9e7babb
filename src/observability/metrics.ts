/** The metrics of docs/operations.md: own registry, prefix `llamasteer_`, base units, bounded labels. */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from "prom-client";

const PREFIX = "llamasteer_";
const REJECTIONS = ["queue", "tokens", "kv", "draining", "quota", "deadline"] as const;
const FINISH_REASONS = ["stop", "stop_text", "length", "cancelled"] as const;
const OTHER_VECTORS = "_other";
/** Gauges that the library names like counters, which `promtool check metrics` refuses. */
const MISNAMED_DEFAULTS = [
  "nodejs_active_handles_total",
  "nodejs_active_requests_total",
  "nodejs_active_resources_total",
];

const FIRST_TOKEN_SECONDS = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
];
const INTER_TOKEN_SECONDS = [
  0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5,
];
/** .01 doubling to 327.68 */
const DURATION_SECONDS = Array.from({ length: 16 }, (_, power) =>
  Number((0.01 * 2 ** power).toFixed(2)),
);
const BATCH_TOKENS = [1, ...Array.from({ length: 12 }, (_, power) => 8 * 2 ** power)];
const DELTA_RATIOS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];

export interface MetricsOptions {
  model: string;
  /** Vectors with a label of their own. */
  labelledVectors: readonly string[];
  /** "package.Service/Method" of every method served. */
  methods: readonly string[];
}

/** Totals of the engine since it started, and what is the case now. */
export interface EngineFigures {
  waitingRequests: number;
  runningRequests: number;
  waitingPromptTokens: number;
  kvBlocks: number;
  kvBlocksUsed: number;
  lastStepAgeSeconds: number;
  preemptions: number;
  promptTokens: number;
  cachedPromptTokens: number;
  generatedTokens: number;
  nonfiniteRows: number;
  captureBytes: number;
  /** For captured rows on their way to clients. */
  captureReservedBytes: number;
  residentVectors: number;
  residentVectorBytes: number;
  /** Rows of each step since the last call. */
  batchTokens: readonly number[];
  healthy: boolean;
}

export interface RegistryFigures {
  vectors: number;
  revision: number;
  /** Since the store was last asked for changes with success. */
  syncAgeSeconds: number;
}

/** One finished generation. */
export interface GenerationFigures {
  queueSeconds: number;
  prefillSeconds: number;
  decodeSeconds: number;
  timeToFirstTokenSeconds: number;
  finishReasons: readonly string[];
  applied: readonly { vectorId: string; tokens: number; meanDeltaRatio: number }[];
}

export class Metrics {
  readonly registry = new Registry();
  private readonly labelled: ReadonlySet<string>;
  private readEngine: (() => EngineFigures) | null = null;
  private readRegistry: (() => RegistryFigures) | null = null;
  /** Totals at the last scrape. */
  private readonly seen = new Map<Counter, number>();

  private readonly waiting: Gauge;
  private readonly running: Gauge;
  private readonly queuedTokens: Gauge;
  private readonly kvUsage: Gauge;
  private readonly kvConfig: Gauge;
  private readonly requests: Counter;
  private readonly rejections: Counter;
  private readonly firstToken: Histogram;
  private readonly interToken: Histogram;
  private readonly duration: Histogram;
  private readonly queueTime: Histogram;
  private readonly prefillTime: Histogram;
  private readonly decodeTime: Histogram;
  private readonly promptTokens: Counter;
  private readonly generationTokens: Counter;
  private readonly cachedTokens: Counter;
  private readonly finished: Counter;
  private readonly batchTokens: Histogram;
  private readonly preemptions: Counter;
  private readonly vectorsRegistered: Gauge;
  private readonly vectorsResident: Gauge;
  private readonly vectorBytes: Gauge;
  private readonly vectorsPerRequest: Histogram;
  private readonly vectorTokens: Counter;
  private readonly deltaRatio: Histogram;
  private readonly registryRevision: Gauge;
  private readonly registrySyncAge: Gauge;
  private readonly captureBytes: Counter;
  private readonly captureReserved: Gauge;
  private readonly nonfinite: Counter;
  private readonly engineHealthy: Gauge;
  private readonly stepAge: Gauge;
  private readonly deviceErrors: Counter;
  private readonly buildInfo: Gauge;
  private readonly loopLag: Gauge;

  constructor(private readonly options: MetricsOptions) {
    this.labelled = new Set(options.labelledVectors);
    collectDefaultMetrics({ register: this.registry });
    for (const name of MISNAMED_DEFAULTS) this.registry.removeSingleMetric(name);
    this.waiting = this.gauge("requests_waiting", "Requests in the queue", ["model"]);
    this.running = this.gauge("requests_running", "Requests that hold KV blocks", ["model"]);
    this.queuedTokens = this.gauge("queued_prompt_tokens", "Prompt tokens in the queue");
    this.kvUsage = this.gauge("kv_cache_usage_ratio", "KV blocks in use, of all");
    this.kvConfig = this.gauge("kv_cache_config_info", "Size of the KV cache, always 1", [
      "block_size",
      "blocks",
    ]);
    this.requests = this.counter("requests_total", "Calls that have ended", ["method", "code"]);
    this.rejections = this.counter("admission_rejections_total", "Requests refused", ["reason"]);
    this.firstToken = this.histogram(
      "time_to_first_token_seconds",
      "From submission to the first token",
      FIRST_TOKEN_SECONDS,
    );
    this.interToken = this.histogram(
      "inter_token_latency_seconds",
      "Between two tokens of a completion",
      INTER_TOKEN_SECONDS,
    );
    const timed = (name: string, text: string) => this.histogram(name, text, DURATION_SECONDS);
    this.duration = timed("request_duration_seconds", "Calls, from start to end");
    this.queueTime = timed("request_queue_seconds", "Generations, until first scheduled");
    this.prefillTime = timed(
      "request_prefill_seconds",
      "Generations, from then to the first token",
    );
    this.decodeTime = timed("request_decode_seconds", "Generations, from there to the end");
    this.promptTokens = this.counter("prompt_tokens_total", "Prompt tokens");
    this.generationTokens = this.counter("generation_tokens_total", "Generated tokens");
    this.cachedTokens = this.counter("cached_prompt_tokens_total", "Prompt tokens found cached");
    this.finished = this.counter("finished_total", "Completions by how they ended", ["reason"]);
    this.batchTokens = this.histogram("batch_tokens", "Rows of one engine step", BATCH_TOKENS);
    this.preemptions = this.counter("preemptions_total", "Sequences put back for lack of KV");
    this.vectorsRegistered = this.gauge("vectors_registered", "Vectors in the registry");
    this.vectorsResident = this.gauge("vectors_resident", "Vectors held by the engine");
    this.vectorBytes = this.gauge("vector_bytes", "Bytes of the vectors held by the engine");
    this.vectorsPerRequest = this.histogram(
      "vectors_per_request",
      "Steerings of one generation",
      [0, 1, 2, 4, 8, 16],
    );
    this.vectorTokens = this.counter("vector_tokens_total", "Steered tokens", ["vector"]);
    this.deltaRatio = this.histogram(
      "steering_delta_ratio",
      "Mean change of steered rows, relative to their length",
      DELTA_RATIOS,
    );
    this.registryRevision = this.gauge("registry_revision", "Revision of the vector registry");
    this.registrySyncAge = this.gauge(
      "registry_sync_age_seconds",
      "Time since the registry's store was last asked for changes with success",
    );
    this.captureBytes = this.counter("capture_bytes_total", "Bytes of captured activations");
    this.captureReserved = this.gauge(
      "capture_reserved_bytes",
      "Room set aside for captured rows on their way to clients",
    );
    this.nonfinite = this.counter("nonfinite_total", "Rows with NaN or infinite values", ["stage"]);
    this.engineHealthy = this.gauge("engine_healthy", "1 while the engine works");
    this.stepAge = this.gauge(
      "scheduler_last_step_age_seconds",
      "How long the engine's current step has taken; 0 when idle",
    );
    this.deviceErrors = this.counter("device_errors_total", "Faults of the device", ["class"]);
    this.buildInfo = this.gauge("build_info", "What runs, always 1", [
      "version",
      "device",
      "dtype",
      "isa",
    ]);
    this.loopLag = this.gauge(
      "event_loop_lag_seconds",
      "99th percentile of the event loop's delay since the last scrape",
    );
    this.initialise();
  }

  /** Every label set that is known beforehand starts at zero, so that rates see the first event. */
  private initialise(): void {
    const { model } = this.options;
    this.waiting.set({ model }, 0);
    this.running.set({ model }, 0);
    for (const method of this.options.methods) this.requests.inc({ method, code: "OK" }, 0);
    for (const reason of REJECTIONS) this.rejections.inc({ reason }, 0);
    for (const reason of FINISH_REASONS) this.finished.inc({ reason }, 0);
    for (const vector of [...this.labelled, OTHER_VECTORS]) this.vectorTokens.inc({ vector }, 0);
    this.nonfinite.inc({ stage: "logits" }, 0);
    this.deviceErrors.inc({ class: "fatal" }, 0);
  }

  observeEngine(read: () => EngineFigures): void {
    this.readEngine = read;
  }

  observeRegistry(read: () => RegistryFigures): void {
    this.readRegistry = read;
  }

  /** `read`: seconds of lag since the last call. */
  observeEventLoop(read: () => number): void {
    this.readLag = read;
  }
  private readLag: () => number = () => 0;

  describeBuild(labels: { version: string; device: string; dtype: string; isa: string }): void {
    this.buildInfo.set(labels, 1);
  }

  describeKvCache(blockTokens: number, blocks: number): void {
    this.kvConfig.set({ block_size: blockTokens, blocks }, 1);
  }

  rejected(reason: string): void {
    this.rejections.inc({ reason });
  }

  /** `method` must be one of the methods served. */
  callEnded(method: string, code: string, seconds: number): void {
    this.requests.inc({ method, code });
    this.duration.observe(seconds);
  }

  /** `seconds` went by for `tokens` tokens of one completion. */
  tokensFollowed(tokens: number, seconds: number): void {
    for (let token = 0; token < tokens; token++) this.interToken.observe(seconds / tokens);
  }

  generationEnded(figures: GenerationFigures): void {
    this.queueTime.observe(figures.queueSeconds);
    this.prefillTime.observe(figures.prefillSeconds);
    this.decodeTime.observe(figures.decodeSeconds);
    if (figures.timeToFirstTokenSeconds > 0) {
      this.firstToken.observe(figures.timeToFirstTokenSeconds);
    }
    for (const reason of figures.finishReasons) this.finished.inc({ reason });
    this.vectorsPerRequest.observe(figures.applied.length);
    for (const { vectorId, tokens, meanDeltaRatio } of figures.applied) {
      const vector = this.labelled.has(vectorId) ? vectorId : OTHER_VECTORS;
      this.vectorTokens.inc({ vector }, tokens);
      this.deltaRatio.observe(meanDeltaRatio);
    }
  }

  deviceFailed(): void {
    this.deviceErrors.inc({ class: "fatal" });
  }

  /** Text in the exposition format. */
  async scrape(): Promise<string> {
    this.collect();
    return this.registry.metrics();
  }

  private collect(): void {
    const { model } = this.options;
    this.loopLag.set(this.readLag());
    const registry = this.readRegistry?.();
    if (registry) {
      this.vectorsRegistered.set(registry.vectors);
      this.registryRevision.set(registry.revision);
      this.registrySyncAge.set(registry.syncAgeSeconds);
    }
    const engine = this.readEngine?.();
    this.engineHealthy.set(engine?.healthy ? 1 : 0);
    if (!engine) return;
    this.waiting.set({ model }, engine.waitingRequests);
    this.running.set({ model }, engine.runningRequests);
    this.queuedTokens.set(engine.waitingPromptTokens);
    this.kvUsage.set(engine.kvBlocks === 0 ? 0 : engine.kvBlocksUsed / engine.kvBlocks);
    this.stepAge.set(engine.lastStepAgeSeconds);
    this.vectorsResident.set(engine.residentVectors);
    this.vectorBytes.set(engine.residentVectorBytes);
    this.advance(this.promptTokens, engine.promptTokens);
    this.advance(this.cachedTokens, engine.cachedPromptTokens);
    this.advance(this.generationTokens, engine.generatedTokens);
    this.advance(this.preemptions, engine.preemptions);
    this.advance(this.captureBytes, engine.captureBytes);
    this.captureReserved.set(engine.captureReservedBytes);
    const nonfinite = this.growth(this.nonfinite, engine.nonfiniteRows);
    this.nonfinite.inc({ stage: "logits" }, nonfinite);
    for (const tokens of engine.batchTokens) this.batchTokens.observe(tokens);
  }

  private advance(counter: Counter, total: number): void {
    counter.inc(this.growth(counter, total));
  }

  private growth(counter: Counter, total: number): number {
    const before = this.seen.get(counter) ?? 0;
    this.seen.set(counter, total);
    return Math.max(0, total - before);
  }

  private gauge(name: string, help: string, labelNames: string[] = []): Gauge {
    return new Gauge({ name: PREFIX + name, help, labelNames, registers: [this.registry] });
  }

  private counter(name: string, help: string, labelNames: string[] = []): Counter {
    return new Counter({ name: PREFIX + name, help, labelNames, registers: [this.registry] });
  }

  private histogram(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ name: PREFIX + name, help, buckets, registers: [this.registry] });
  }
}
