/** What the engine counts by itself: read at every scrape. */
import type { Counter } from "prom-client";
import type { Families } from "./families.js";

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
  residentAdapters: number;
  residentAdapterBytes: number;
  gateEvaluations: number;
  /** Of gateEvaluations. */
  gateFired: number;
  /** Rows of each step since the last call. */
  batchTokens: readonly number[];
  healthy: boolean;
}

const BATCH_TOKENS = [1, ...Array.from({ length: 12 }, (_, power) => 8 * 2 ** power)];
const FIRED = ["true", "false"] as const;

export class EngineMetrics {
  private read: (() => EngineFigures) | null = null;
  /** Totals at the last scrape. */
  private readonly seen = new Map<Counter, Map<string, number>>();
  private readonly waiting;
  private readonly running;
  private readonly queuedTokens;
  private readonly kvUsage;
  private readonly promptTokens;
  private readonly generationTokens;
  private readonly cachedTokens;
  private readonly batchTokens;
  private readonly preemptions;
  private readonly vectorsResident;
  private readonly vectorBytes;
  private readonly adaptersResident;
  private readonly adapterBytes;
  private readonly gateEvaluations;
  private readonly captureBytes;
  private readonly captureReserved;
  private readonly nonfinite;
  private readonly healthy;
  private readonly stepAge;

  constructor(
    families: Families,
    private readonly model: string,
  ) {
    const counter = families.counter.bind(families);
    const gauge = families.gauge.bind(families);
    this.waiting = gauge("requests_waiting", "Requests in the queue", ["model"]);
    this.running = gauge("requests_running", "Requests that hold KV blocks", ["model"]);
    this.queuedTokens = gauge("queued_prompt_tokens", "Prompt tokens in the queue");
    this.kvUsage = gauge("kv_cache_usage_ratio", "KV blocks in use, of all");
    this.promptTokens = counter("prompt_tokens_total", "Prompt tokens");
    this.generationTokens = counter("generation_tokens_total", "Generated tokens");
    this.cachedTokens = counter("cached_prompt_tokens_total", "Prompt tokens found cached");
    this.batchTokens = families.histogram("batch_tokens", "Rows of one engine step", BATCH_TOKENS);
    this.preemptions = counter("preemptions_total", "Sequences put back for lack of KV");
    this.vectorsResident = gauge("vectors_resident", "Vectors held by the engine");
    this.vectorBytes = gauge("vector_bytes", "Bytes of the vectors held by the engine");
    this.adaptersResident = gauge("adapters_resident", "LoRA adapters held by the engine");
    this.adapterBytes = gauge("adapter_bytes", "Bytes of the adapters held by the engine");
    this.gateEvaluations = counter("gate_evaluations_total", "Gates evaluated", ["fired"]);
    this.captureBytes = counter("capture_bytes_total", "Bytes of captured activations");
    this.captureReserved = gauge(
      "capture_reserved_bytes",
      "Room set aside for captured rows on their way to clients",
    );
    this.nonfinite = counter("nonfinite_total", "Rows with NaN or infinite values", ["stage"]);
    this.healthy = gauge("engine_healthy", "1 while the engine works");
    this.stepAge = gauge(
      "scheduler_last_step_age_seconds",
      "How long the engine's current step has taken; 0 when idle",
    );
    this.waiting.set({ model }, 0);
    this.running.set({ model }, 0);
    for (const fired of FIRED) this.gateEvaluations.inc({ fired }, 0);
    this.nonfinite.inc({ stage: "logits" }, 0);
  }

  observe(read: () => EngineFigures): void {
    this.read = read;
  }

  collect(): void {
    const { model } = this;
    const figures = this.read?.();
    this.healthy.set(figures?.healthy ? 1 : 0);
    if (!figures) return;
    this.waiting.set({ model }, figures.waitingRequests);
    this.running.set({ model }, figures.runningRequests);
    this.queuedTokens.set(figures.waitingPromptTokens);
    this.kvUsage.set(figures.kvBlocks === 0 ? 0 : figures.kvBlocksUsed / figures.kvBlocks);
    this.stepAge.set(figures.lastStepAgeSeconds);
    this.vectorsResident.set(figures.residentVectors);
    this.vectorBytes.set(figures.residentVectorBytes);
    this.adaptersResident.set(figures.residentAdapters);
    this.adapterBytes.set(figures.residentAdapterBytes);
    this.captureReserved.set(figures.captureReservedBytes);
    this.advance(this.promptTokens, figures.promptTokens);
    this.advance(this.cachedTokens, figures.cachedPromptTokens);
    this.advance(this.generationTokens, figures.generatedTokens);
    this.advance(this.preemptions, figures.preemptions);
    this.advance(this.captureBytes, figures.captureBytes);
    this.advance(this.nonfinite, figures.nonfiniteRows, { stage: "logits" });
    const closed = figures.gateEvaluations - figures.gateFired;
    this.advance(this.gateEvaluations, figures.gateFired, { fired: "true" });
    this.advance(this.gateEvaluations, closed, { fired: "false" });
    for (const tokens of figures.batchTokens) this.batchTokens.observe(tokens);
  }

  private advance(counter: Counter, total: number, labels: Record<string, string> = {}): void {
    const key = Object.values(labels).join();
    const totals = this.seen.get(counter) ?? new Map<string, number>();
    counter.inc(labels, Math.max(0, total - (totals.get(key) ?? 0)));
    this.seen.set(counter, totals.set(key, total));
  }
}
