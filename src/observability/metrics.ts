/** The metrics of docs/operations.md: own registry, prefix `llamasteer_`, base units, bounded labels. */
import {
  type Counter,
  collectDefaultMetrics,
  type Gauge,
  type Histogram,
  Registry,
} from "prom-client";
import { ConnectionMetrics } from "./connection-metrics.js";
import { type EngineFigures, EngineMetrics } from "./engine-metrics.js";
import { Families } from "./families.js";

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
/** Dot products may lie on either side of 0, on any scale. */
const PROBE_SCORES = [
  -300, -100, -30, -10, -3, -1, -0.3, -0.1, 0, 0.1, 0.3, 1, 3, 10, 30, 100, 300,
];
/** A copy of some hundred KiB or MiB. */
const VECTOR_LOAD_SECONDS = [0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1];
const VECTOR_LOAD_RESULTS = ["ok", "no_room", "error"] as const;
const DELTA_RATIOS = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10];

export interface MetricsOptions {
  model: string;
  /** Vectors with a label of their own. */
  labelledVectors: readonly string[];
  /** Probes whose scores are told. */
  labelledProbes: readonly string[];
  /** "package.Service/Method" of every method served. */
  methods: readonly string[];
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
  readonly connections: ConnectionMetrics;
  private readonly engine: EngineMetrics;
  private readonly labelled: ReadonlySet<string>;
  private readRegistry: (() => RegistryFigures) | null = null;

  private readonly kvConfig: Gauge;
  private readonly requests: Counter;
  private readonly rejections: Counter;
  private readonly firstToken: Histogram;
  private readonly interToken: Histogram;
  private readonly duration: Histogram;
  private readonly queueTime: Histogram;
  private readonly prefillTime: Histogram;
  private readonly decodeTime: Histogram;
  private readonly finished: Counter;
  private readonly vectorsRegistered: Gauge;
  private readonly vectorsPerRequest: Histogram;
  private readonly vectorTokens: Counter;
  private readonly vectorLoads: Counter;
  private readonly vectorLoadTime: Histogram;
  private readonly deltaRatio: Histogram;
  private readonly probeScore: Histogram;
  private readonly labelledProbes: ReadonlySet<string>;
  private readonly registryRevision: Gauge;
  private readonly registrySyncAge: Gauge;
  private readonly deviceErrors: Counter;
  private readonly buildInfo: Gauge;
  private readonly loopLag: Gauge;

  constructor(private readonly options: MetricsOptions) {
    this.labelled = new Set(options.labelledVectors);
    this.labelledProbes = new Set(options.labelledProbes);
    const families = new Families(this.registry);
    this.engine = new EngineMetrics(families, options.model);
    this.connections = new ConnectionMetrics(families);
    collectDefaultMetrics({ register: this.registry });
    for (const name of MISNAMED_DEFAULTS) this.registry.removeSingleMetric(name);
    this.kvConfig = families.gauge("kv_cache_config_info", "Size of the KV cache, always 1", [
      "block_size",
      "blocks",
    ]);
    this.requests = families.counter("requests_total", "Calls that have ended", ["method", "code"]);
    this.rejections = families.counter("admission_rejections_total", "Requests refused", [
      "reason",
    ]);
    this.firstToken = families.histogram(
      "time_to_first_token_seconds",
      "From submission to the first token",
      FIRST_TOKEN_SECONDS,
    );
    this.interToken = families.histogram(
      "inter_token_latency_seconds",
      "Between two tokens of a completion",
      INTER_TOKEN_SECONDS,
    );
    const timed = (name: string, text: string) => families.histogram(name, text, DURATION_SECONDS);
    this.duration = timed("request_duration_seconds", "Calls, from start to end");
    this.queueTime = timed("request_queue_seconds", "Generations, until first scheduled");
    this.prefillTime = timed(
      "request_prefill_seconds",
      "Generations, from then to the first token",
    );
    this.decodeTime = timed("request_decode_seconds", "Generations, from there to the end");
    this.finished = families.counter("finished_total", "Completions by how they ended", ["reason"]);
    this.vectorsRegistered = families.gauge("vectors_registered", "Vectors in the registry");
    this.vectorsPerRequest = families.histogram(
      "vectors_per_request",
      "Steerings of one generation",
      [0, 1, 2, 4, 8, 16],
    );
    this.vectorTokens = families.counter("vector_tokens_total", "Steered tokens", ["vector"]);
    this.vectorLoads = families.counter("vector_loads_total", "Vectors put on the engine", [
      "result",
    ]);
    this.vectorLoadTime = families.histogram(
      "vector_load_seconds",
      "Putting a vector on the engine",
      VECTOR_LOAD_SECONDS,
      ["result"],
    );
    this.deltaRatio = families.histogram(
      "steering_delta_ratio",
      "Mean change of steered rows, relative to their length",
      DELTA_RATIOS,
    );
    this.probeScore = families.histogram("probe_score", "Scores of probes", PROBE_SCORES, [
      "probe",
    ]);
    this.registryRevision = families.gauge("registry_revision", "Revision of the vector registry");
    this.registrySyncAge = families.gauge(
      "registry_sync_age_seconds",
      "Time since the registry's store was last asked for changes with success",
    );
    this.deviceErrors = families.counter("device_errors_total", "Faults of the device", ["class"]);
    this.buildInfo = families.gauge("build_info", "What runs, always 1", [
      "version",
      "device",
      "dtype",
      "isa",
    ]);
    this.loopLag = families.gauge(
      "event_loop_lag_seconds",
      "99th percentile of the event loop's delay since the last scrape",
    );
    this.initialise();
  }

  /** Every label set that is known beforehand starts at zero, so that rates see the first event. */
  private initialise(): void {
    for (const method of this.options.methods) this.requests.inc({ method, code: "OK" }, 0);
    for (const reason of REJECTIONS) this.rejections.inc({ reason }, 0);
    for (const reason of FINISH_REASONS) this.finished.inc({ reason }, 0);
    for (const vector of [...this.labelled, OTHER_VECTORS]) this.vectorTokens.inc({ vector }, 0);
    for (const result of VECTOR_LOAD_RESULTS) {
      this.vectorLoads.inc({ result }, 0);
      this.vectorLoadTime.zero({ result });
    }
    for (const probe of this.labelledProbes) this.probeScore.zero({ probe });
    this.deviceErrors.inc({ class: "fatal" }, 0);
  }

  observeEngine(read: () => EngineFigures): void {
    this.engine.observe(read);
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

  /** Of probes that are not labelled nothing is told: scores of two probes have no common scale. */
  probeScored(probe: string, scores: readonly number[]): void {
    if (!this.labelledProbes.has(probe)) return;
    for (const score of scores) this.probeScore.observe({ probe }, score);
  }

  vectorLoaded(result: (typeof VECTOR_LOAD_RESULTS)[number], seconds: number): void {
    this.vectorLoads.inc({ result });
    this.vectorLoadTime.observe({ result }, seconds);
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
    this.loopLag.set(this.readLag());
    const registry = this.readRegistry?.();
    if (registry) {
      this.vectorsRegistered.set(registry.vectors);
      this.registryRevision.set(registry.revision);
      this.registrySyncAge.set(registry.syncAgeSeconds);
    }
    this.engine.collect();
  }
}
