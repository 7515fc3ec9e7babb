/** Builds and owns every long-lived object, and closes them in reverse order. */
import path from "node:path";
import { engineOptions } from "./app/engine-options.js";
import { loadAdapters, openModelAs, openRegistry } from "./app/open.js";
import { Watchdog } from "./app/watchdog.js";
import type { Config } from "./config/schema.js";
import { formatAddress } from "./config/values.js";
import { packageVersion } from "./config/version.js";
import { type EngineFault, StartupError } from "./errors.js";
import { Admission } from "./generation/admission.js";
import { CaptureBudget } from "./generation/capture-budget.js";
import type { GenerationContext } from "./generation/context.js";
import type { Adapter } from "./model/adapter.js";
import type { AdapterRegistry } from "./model/adapters.js";
import type { LoadedModel } from "./model/model.js";
import type { NativeBinding, NativeReadyEvent } from "./native/binding.js";
import { Engine, type LoadProgress } from "./native/engine.js";
import { loadNativeBinding } from "./native/load.js";
import { EventLoopLag } from "./observability/event-loop.js";
import { HttpServer } from "./observability/http.js";
import type { Logger } from "./observability/logger.js";
import { Metrics } from "./observability/metrics.js";
import { openTracing, type Tracing } from "./observability/tracing.js";
import { ProbeRegistry } from "./probes/registry.js";
import { BackendSlot } from "./rpc/backend.js";
import { type Contract, loadContract } from "./rpc/contract.js";
import { RpcServer } from "./rpc/server.js";
import type { VectorRegistry } from "./vectors/registry.js";

const PROGRESS_INTERVAL_MS = 1000;
/** For the last answers to go out. */
const MIN_CLOSE_MS = 1000;

export class App implements AsyncDisposable {
  private readonly contract: Contract = loadContract();
  private readonly slot = new BackendSlot();
  private readonly metrics: Metrics;
  private readonly version = packageVersion();
  private readonly modelName: string;
  /** Closed last to first. */
  private readonly owned: (() => Promise<void> | void)[] = [];
  private phase: "loading" | "serving" | "draining" | "failed" = "loading";
  private watchdog: Watchdog | null = null;
  private leftBehind = false;
  private admission: Admission | null = null;
  private rpc: RpcServer | null = null;
  private http: HttpServer | null = null;
  private disposal: Promise<void> | null = null;
  private readonly aborted = new AbortController();
  /** Until then accepted streams may go on, milliseconds since the epoch. */
  private drainDeadlineMs = 0;
  private reportFault: (fault: EngineFault) => void = () => {};

  /** Resolves when the engine is gone after it was ready. */
  readonly faulted = new Promise<EngineFault>((resolve) => {
    this.reportFault = resolve;
  });

  private constructor(
    private readonly config: Config,
    private readonly logger: Logger,
    private readonly loadBinding: () => NativeBinding,
  ) {
    this.modelName = config.modelName ?? path.basename(path.resolve(config.model));
    this.metrics = new Metrics({
      model: this.modelName,
      labelledVectors: config.metricsVectors,
      labelledProbes: config.metricsProbes,
      methods: this.contract.methods,
    });
  }

  /** Listens; nothing is served until `load` has ended. Throws a StartupError. */
  static async listen(
    config: Config,
    logger: Logger,
    loadBinding: () => NativeBinding = loadNativeBinding,
  ): Promise<App> {
    const app = new App(config, logger, loadBinding);
    try {
      await app.open();
      return app;
    } catch (error) {
      await app[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Addresses in force. */
  get addresses(): { grpc: string; http: string } {
    const { listen, http } = this.config;
    return {
      grpc: formatAddress({ host: listen.host, port: this.rpc?.port ?? listen.port }),
      http: formatAddress({ host: http.host, port: this.http?.port ?? http.port }),
    };
  }

  private async open(): Promise<void> {
    const lag = new EventLoopLag();
    this.owned.push(() => lag[Symbol.dispose]());
    this.metrics.observeEventLoop(() => lag.take());
    const tracing = await this.openTracing();
    const http = await this.listenHttp();
    this.owned.push(() => http[Symbol.asyncDispose]());
    this.http = http;
    const rpc = await RpcServer.listen({
      config: this.config,
      contract: this.contract,
      slot: this.slot,
      metrics: this.metrics,
      tracing,
      logger: this.logger,
      serverVersion: this.version,
    });
    this.owned.push(() => {
      const graceMs = Math.max(MIN_CLOSE_MS, this.drainDeadlineMs - Date.now());
      return rpc.close(graceMs, this.aborted.signal);
    });
    this.rpc = rpc;
    this.logger.info(this.addresses, "listening");
  }

  /** Closed after the last call has ended. Null: off. */
  private async openTracing(): Promise<Tracing | null> {
    const { otlpEndpoint, otlpTimeoutSeconds, traceSampleRatio, maxQueuedSpans } = this.config;
    if (otlpEndpoint === undefined) return null;
    const tracing = await openTracing(
      {
        endpoint: otlpEndpoint,
        sampleRatio: traceSampleRatio,
        exportTimeoutMs: otlpTimeoutSeconds * 1000,
        maxQueuedSpans,
        serviceVersion: this.version,
      },
      this.logger,
    );
    this.owned.push(() => tracing.close(this.aborted.signal));
    return tracing;
  }

  private async listenHttp(): Promise<HttpServer> {
    const { host, port } = this.config.http;
    const notYet = () => (this.phase === "loading" ? "the model is loading" : null);
    try {
      return await HttpServer.listen(host, port, {
        live: () => this.stalled(),
        ready: () =>
          this.phase === "serving" ? this.stalled() : (notYet() ?? `the server is ${this.phase}`),
        started: notYet,
        metrics: () => this.metrics.scrape(),
        metricsContentType: this.metrics.registry.contentType,
      });
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new StartupError(`cannot listen on ${formatAddress(this.config.http)}: ${reason}`);
    }
  }

  /** Why the process should be restarted; null: it works. */
  private stalled(): string | null {
    if (this.phase === "failed") return "the engine has failed";
    if (this.phase === "loading") return null;
    const age = this.watchdog?.hangsSinceSeconds ?? null;
    return age === null ? null : `the engine's step has taken ${age.toFixed(1)} s`;
  }

  /** The engine hangs in a step and could not be closed: only SIGKILL ends the process. */
  get hangs(): boolean {
    return this.leftBehind;
  }

  /** Opens model, engine and registry, then serves. Throws a StartupError or an EngineFault. */
  async load(): Promise<void> {
    const start = process.hrtime.bigint();
    const { config, logger } = this;
    const { model, merged } = await openModelAs(config, this.modelName);
    const { fingerprint } = model.checkpoint;
    logger.info({ model: model.name, fingerprint }, "checkpoint opened");
    const engine = this.openEngine(model, merged);
    // The engine loads on its own thread meanwhile.
    const registry = await this.openRegistry(model, engine);
    const ready = await engine.ready;
    if (ready.deviceFallback !== "") {
      logger.info({ reason: ready.deviceFallback }, "no CUDA device can be used: the CPU computes");
    }
    const adapters = await loadAdapters(config, model, engine, logger);
    this.serve(model, engine, registry, adapters, ready);
    const seconds = Number(process.hrtime.bigint() - start) / 1e9;
    logger.info(
      {
        ...this.addresses,
        model: model.name,
        device: ready.device,
        dtype: ready.weightDtype,
        kvDtype: ready.kvDtype,
        kvCacheTokens: ready.kvBlocks * ready.kvBlockTokens,
        capture: config.capture,
        loadSeconds: seconds,
      },
      "ready",
    );
  }

  private openEngine(model: LoadedModel, merged: Adapter | null): Engine {
    const engine = new Engine(
      this.loadBinding(),
      engineOptions(this.config, model, merged),
      this.progressLog(),
      (fault) => this.fail(fault),
    );
    const watchdog = new Watchdog(
      engine,
      { stallSeconds: this.config.stallSeconds, onChange: (hangs) => this.setHanging(hangs) },
      this.logger,
    );
    this.watchdog = watchdog;
    this.owned.push(async () => {
      watchdog[Symbol.dispose]();
      this.leftBehind = !(await watchdog.endEngine(this.aborted.signal));
    });
    return engine;
  }

  private setHanging(hangs: boolean): void {
    if (this.phase === "serving") this.rpc?.setServing(!hangs);
  }

  private async openRegistry(model: LoadedModel, engine: Engine): Promise<VectorRegistry> {
    const { config, logger, metrics } = this;
    const registry = await openRegistry(config, model, engine, logger, (result, seconds) =>
      metrics.vectorLoaded(result, seconds),
    );
    this.owned.push(() => registry.close());
    return registry;
  }

  private serve(
    model: LoadedModel,
    engine: Engine,
    vectors: VectorRegistry,
    adapters: AdapterRegistry,
    ready: NativeReadyEvent,
  ): void {
    const { config, metrics } = this;
    const onRejection = (reason: string) => metrics.rejected(reason);
    const admission = new Admission(config, () => engine.stats(), onRejection);
    const captureBudget = new CaptureBudget(config);
    const context: GenerationContext = {
      engine,
      model,
      vectors,
      probes: new ProbeRegistry(vectors.replica, vectors.resident, model.config, config),
      adapters,
      admission,
      kvCacheTokens: ready.kvBlocks * ready.kvBlockTokens,
      maxPromptBytes: config.maxPromptBytes,
      captureEnabled: config.capture,
      maxCaptureChunkBytes: config.maxCaptureChunkBytes,
      captureBudget,
      onRejection,
    };
    const { contextTokens, vocabSize, layers } = model.config;
    this.slot.fill({
      context,
      engine: ready,
      limits: { ...config, contextTokens, vocabSize, layers },
    });
    this.admission = admission;
    metrics.observeEngine(() => ({
      ...engine.stats(),
      batchTokens: engine.takeBatchTokens(),
      healthy: engine.healthy,
      captureReservedBytes: captureBudget.reservedBytes,
    }));
    metrics.observeRegistry(() => ({
      vectors: vectors.size,
      revision: Number(vectors.revision),
      syncAgeSeconds: vectors.syncAgeSeconds,
    }));
    metrics.describeKvCache(ready.kvBlockTokens, ready.kvBlocks);
    metrics.describeBuild({
      version: this.version,
      device: ready.device.kind,
      dtype: ready.weightDtype,
      isa: ready.device.isa,
    });
    this.phase = "serving";
    admission.open();
    this.rpc?.setServing(true);
  }

  /**
   * Refuses new calls and waits for running ones. Resolves to how many were still running when the
   * time was over.
   */
  async drain(): Promise<number> {
    this.phase = "draining";
    this.slot.drain();
    this.rpc?.setServing(false);
    const { admission } = this;
    if (!admission) return 0;
    const timeoutMs = this.config.drainTimeoutSeconds * 1000;
    this.drainDeadlineMs = Date.now() + timeoutMs;
    this.logger.info({ running: admission.activeRequests }, "draining");
    let timer: NodeJS.Timeout | undefined;
    const timeout = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, timeoutMs);
    });
    await Promise.race([admission.drain(), timeout]);
    clearTimeout(timer);
    return admission.activeRequests;
  }

  private fail(fault: EngineFault): void {
    this.phase = "failed";
    this.slot.drain();
    this.metrics.deviceFailed();
    this.rpc?.setServing(false);
    this.reportFault(fault);
  }

  /** A line a second at most. */
  private progressLog(): (progress: LoadProgress) => void {
    let last = Date.now();
    return ({ doneBytes, totalBytes }) => {
      if (Date.now() - last < PROGRESS_INTERVAL_MS) return;
      last = Date.now();
      const percent = Math.floor((100 * doneBytes) / Math.max(1, totalBytes));
      this.logger.info({ doneBytes, totalBytes, percent }, "loading weights");
    };
  }

  /** Closing waits for no client any more. */
  abort(): void {
    this.aborted.abort();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.disposal ??= this.dispose();
    return this.disposal;
  }

  private async dispose(): Promise<void> {
    for (let close = this.owned.pop(); close; close = this.owned.pop()) await close();
  }
}
