/** The gRPC server: the services, health, reflection, limits. */
import { readFileSync } from "node:fs";
import { logVerbosity, Server, ServerCredentials, setLogVerbosity } from "@grpc/grpc-js";
import { HealthImplementation } from "grpc-health-check";
import type { Config } from "../config/schema.js";
import { formatAddress } from "../config/values.js";
import { StartupError } from "../errors.js";
import type { Logger } from "../observability/logger.js";
import type { Metrics } from "../observability/metrics.js";
import { ByteBudget } from "../vectors/byte-budget.js";
import type { BackendSlot } from "./backend.js";
import { type Contract, SERVICE_NAMES } from "./contract.js";
import { Handlers } from "./handlers.js";
import { InferenceService } from "./inference-service.js";
import { CallObserver } from "./interceptor.js";
import { ModelService } from "./model-service.js";
import { ProbeService } from "./probe-service.js";
import { addReflection } from "./reflection.js";
import { type SharedMemory, VectorService } from "./vector-service.js";

const MAX_CONCURRENT_STREAMS = 4096;
/** Connections that are idle or half open are found by pings. */
const KEEPALIVE_TIME_MS = 60_000;
const KEEPALIVE_TIMEOUT_MS = 20_000;

/** Files of the largest size that are taken in at the same time. */
const UPLOADS_AT_A_TIME = 4;

/** Time for statuses to go out when nothing more is waited for. */
const ABORT_GRACE_MS = 200;

export interface RpcServerOptions {
  config: Config;
  contract: Contract;
  slot: BackendSlot;
  metrics: Metrics;
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
  ) {}

  /** Health says NOT_SERVING until `setServing`. Throws a StartupError. */
  static async listen(options: RpcServerOptions): Promise<RpcServer> {
    const { config, metrics, logger } = options;
    // Its own lines on standard error say nothing that is not thrown or logged here.
    setLogVerbosity(logVerbosity.NONE);
    const observer = new CallObserver(metrics, logger);
    const server = new Server({
      interceptors: [observer.interceptor],
      "grpc.max_receive_message_length": config.maxMessageBytes,
      "grpc.max_send_message_length": -1,
      "grpc.max_concurrent_streams": MAX_CONCURRENT_STREAMS,
      "grpc.keepalive_time_ms": KEEPALIVE_TIME_MS,
      "grpc.keepalive_timeout_ms": KEEPALIVE_TIMEOUT_MS,
      ...(config.maxConnectionAgeSeconds === undefined
        ? {}
        : { "grpc.max_connection_age_ms": config.maxConnectionAgeSeconds * 1000 }),
    });
    addServices(server, options);
    const port = await bind(server, config);
    const rpc = new RpcServer(server, observer, port);
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
  }
}

function addServices(server: Server, options: RpcServerOptions): void {
  const { config, contract, slot, metrics, logger, serverVersion } = options;
  const handlers = new Handlers({
    logger,
    requireOpen: () => slot.requireOpen(),
    slowReaderTimeoutMs: config.slowReaderTimeoutSeconds * 1000,
  });
  const memory: SharedMemory = {
    activations: new ByteBudget(config.maxDeriveBytes, "activations", "ACTIVATION_BYTES"),
    uploads: new ByteBudget(UPLOADS_AT_A_TIME * config.maxImportBytes, "uploads", "UPLOAD_BYTES"),
  };
  const implementations = [
    new InferenceService(slot, metrics, config.capture),
    new VectorService(slot, memory),
    new ProbeService(),
    new ModelService(slot, config, serverVersion),
  ];
  for (const [index, name] of SERVICE_NAMES.entries()) {
    const definition = contract.services.get(name);
    const implementation = implementations[index];
    if (!definition || !implementation) throw new Error(`no implementation of ${name}`);
    server.addService(definition, { ...implementation.handlers(handlers) });
  }
}

async function bind(server: Server, config: Config): Promise<number> {
  const address = formatAddress(config.listen);
  return new Promise((resolve, reject) => {
    server.bindAsync(address, credentials(config), (error, port) => {
      if (error) reject(new StartupError(`cannot listen on ${address}: ${error.message}`));
      else resolve(port);
    });
  });
}

function credentials({ tlsCert, tlsKey, tlsClientCa }: Config): ServerCredentials {
  if (tlsCert === undefined || tlsKey === undefined) return ServerCredentials.createInsecure();
  const pair = { cert_chain: readPem(tlsCert), private_key: readPem(tlsKey) };
  const ca = tlsClientCa === undefined ? null : readPem(tlsClientCa);
  try {
    return ServerCredentials.createSsl(ca, [pair], ca !== null);
  } catch (error) {
    throw new StartupError(`TLS: ${error instanceof Error ? error.message : String(error)}`);
  }
}

function readPem(file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new StartupError(`${file}: ${error instanceof Error ? error.message : String(error)}`);
  }
}
