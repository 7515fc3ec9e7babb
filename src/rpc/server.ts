/** The gRPC server: the services, health, reflection, limits. */
import {
  logVerbosity,
  type Metadata,
  Server,
  ServerCredentials,
  setLogVerbosity,
} from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";
import type { Config } from "../config/schema.js";
import { formatAddress } from "../config/values.js";
import { StartupError } from "../errors.js";
import type { Logger } from "../observability/logger.js";
import type { Metrics } from "../observability/metrics.js";
import type { Tracing } from "../observability/tracing.js";
import { ByteBudget } from "../vectors/byte-budget.js";
import { guardInterceptor } from "./auth/guard.js";
import { openTls } from "./auth/tls.js";
import { type Caller, TokenTable } from "./auth/tokens.js";
import { WatchedFiles } from "./auth/watched-file.js";
import type { BackendSlot } from "./backend.js";
import { boundConnections } from "./connections.js";
import { type Contract, SERVICE_NAMES } from "./contract.js";
import { Handlers } from "./handlers.js";
import { InferenceService } from "./inference-service.js";
import { CallObserver } from "./interceptor.js";
import { ModelService } from "./model-service.js";
import { ProbeService } from "./probe-service.js";
import { queueGate } from "./queue-gate.js";
import { addReflection } from "./reflection.js";
import { type SharedMemory, VectorService } from "./vector-service.js";

const MAX_CONCURRENT_STREAMS = 4096;

/** Files of the largest size that are taken in at the same time. */
const UPLOADS_AT_A_TIME = 4;

/** Time for statuses to go out when nothing more is waited for. */
const ABORT_GRACE_MS = 200;

export interface RpcServerOptions {
  config: Config;
  contract: Contract;
  slot: BackendSlot;
  metrics: Metrics;
  /** Null: nothing is traced. */
  tracing: Tracing | null;
  logger: Logger;
  serverVersion: string;
}

export class RpcServer {
  private readonly health = new HealthImplementation(
    Object.fromEntries(["", ...SERVICE_NAMES].map((name) => [name, "NOT_SERVING" as const])),
  );

  private constructor(
    private readonly server: Server,
    private readonly observer: CallObserver,
    /** In force; not 0. */
    readonly port: number,
    private readonly closeFiles: () => void,
  ) {}

  /** Health says NOT_SERVING until `setServing`. Throws a StartupError. */
  static async listen(options: RpcServerOptions): Promise<RpcServer> {
    const { config, metrics, logger, tracing, slot } = options;
    // Its own lines on standard error say nothing that is not thrown or logged here.
    setLogVerbosity(logVerbosity.NONE);
    const callers = new WeakMap<Metadata, Caller>();
    const callerOf = (metadata: Metadata) => callers.get(metadata)?.name;
    const observer = new CallObserver(metrics, logger, callerOf, tracing);
    const tokens = openTokens(options);
    const guards = tokens
      ? [
          guardInterceptor({
            tokens: () => tokens.current,
            onCaller: (metadata, caller) => callers.set(metadata, caller),
          }),
        ]
      : [];
    const gate = queueGate({
      refusal: (deadlineMs) => slot.queueRefusal(deadlineMs),
      traceOf: observer.traceOf,
    });
    const tls = openCredentials(options);
    const server = new Server({
      // The first is next to the wire: it sees what the others refuse.
      interceptors: [observer.interceptor, ...guards, gate],
      "grpc.max_receive_message_length": config.maxMessageBytes,
      "grpc.max_send_message_length": -1,
      "grpc.max_concurrent_streams": MAX_CONCURRENT_STREAMS,
      // Connections that are half open are found by pings.
      "grpc.keepalive_time_ms": config.keepaliveSeconds * 1000,
      "grpc.keepalive_timeout_ms": config.keepaliveTimeoutSeconds * 1000,
      ...(config.maxConnectionAgeSeconds === undefined
        ? {}
        : { "grpc.max_connection_age_ms": config.maxConnectionAgeSeconds * 1000 }),
    });
    boundConnections(server, { maxConnections: config.maxConnections, metrics, logger });
    addServices(server, options, observer);
    const port = await bind(server, config, tls.credentials);
    const rpc = new RpcServer(server, observer, port, () => {
      tokens?.close();
      tls.close();
    });
    rpc.health.addToServer(server);
    addReflection(server);
    return rpc;
  }

  setServing(serving: boolean): void {
    for (const name of ["", ...SERVICE_NAMES]) {
      this.health.setStatus(name, serving ? "SERVING" : "NOT_SERVING");
    }
  }

  /**
   * Lets what has been answered go out to clients that read, for so long or until `signal`; then ends
   * everything.
   */
  async close(graceMs: number, signal: AbortSignal): Promise<void> {
    this.observer.endEndlessStreams();
    let timer: NodeJS.Timeout | undefined;
    const patience = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, graceMs);
      const abort = () => setTimeout(resolve, ABORT_GRACE_MS);
      signal.addEventListener("abort", abort, { once: true });
      if (signal.aborted) abort();
    });
    const closed = new Promise<void>((resolve) => this.server.tryShutdown(() => resolve()));
    await Promise.race([closed, patience]);
    clearTimeout(timer);
    this.server.forceShutdown();
    this.closeFiles();
  }
}

function addServices(server: Server, options: RpcServerOptions, observer: CallObserver): void {
  const { config, contract, slot, metrics, logger, serverVersion } = options;
  const handlers = new Handlers({
    logger,
    requireOpen: () => slot.requireOpen(),
    traceOf: observer.traceOf,
    slowReaderTimeoutMs: config.slowReaderTimeoutSeconds * 1000,
  });
  const memory: SharedMemory = {
    activations: new ByteBudget(config.maxDeriveBytes, "activations", "ACTIVATION_BYTES"),
    uploads: new ByteBudget(UPLOADS_AT_A_TIME * config.maxImportBytes, "uploads", "UPLOAD_BYTES"),
  };
  const implementations = [
    new InferenceService(slot, metrics),
    new VectorService(slot, memory),
    new ProbeService(slot, memory),
    new ModelService(slot, config, serverVersion),
  ];
  for (const [index, name] of SERVICE_NAMES.entries()) {
    const definition = contract.services.get(name);
    const implementation = implementations[index];
    if (!definition || !implementation) throw new Error(`no implementation of ${name}`);
    server.addService(definition, { ...implementation.handlers(handlers) });
  }
}

async function bind(
  server: Server,
  config: Config,
  credentials: ServerCredentials,
): Promise<number> {
  const address = formatAddress(config.listen);
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials, (error, port) => {
      if (error) reject(new StartupError(`cannot listen on ${address}: ${error.message}`));
      else resolve(port);
    });
  });
}

/** Null: nobody is asked for a token. */
function openTokens({ config, logger }: RpcServerOptions): WatchedFiles<TokenTable> | null {
  const file = config.tokensFile;
  if (file === undefined) return null;
  return WatchedFiles.open({
    files: [file],
    parse: ([bytes]) => TokenTable.parse(String(bytes), file),
    intervalMs: config.securityReloadSeconds * 1000,
    onReload: reloadLog(logger, "tokens"),
  });
}

function openCredentials({ config, logger }: RpcServerOptions): {
  credentials: ServerCredentials;
  close(): void;
} {
  const { tlsCert, tlsKey, tlsClientCa = null } = config;
  if (tlsCert === undefined || tlsKey === undefined) {
    return { credentials: ServerCredentials.createInsecure(), close: () => {} };
  }
  return openTls(
    { cert: tlsCert, key: tlsKey, clientCa: tlsClientCa },
    config.securityReloadSeconds * 1000,
    reloadLog(logger, "TLS certificates"),
  );
}

function reloadLog(logger: Logger, what: string): (error: string | null) => void {
  return (error) => {
    if (error === null) logger.info(`${what} were reloaded`);
    else logger.error(`${what} cannot be reloaded, the old ones stay: ${error}`);
  };
}
