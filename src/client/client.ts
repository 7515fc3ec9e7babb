/**
 * The typed client of the service, and what this package exports. Messages are those of
 * proto/llamasteer/v1: 64-bit integers are decimal strings, enum values are their names.
 */
import { readFileSync } from "node:fs";
import {
  type ChannelCredentials,
  type ChannelOptions,
  Client,
  credentials,
  Metadata,
} from "@grpc/grpc-js";
import type { MethodDefinition } from "@grpc/proto-loader";
import { type CallOptions, serverStream, unary } from "./calls.js";
import { contract, healthDefinition } from "./contract.js";
import { ClientError } from "./errors.js";
import type {
  CaptureActivationsRequest,
  CaptureActivationsResponse,
  GenerateRequest,
  GenerateResponse,
  GenerateStreamResponse,
  ScoreRequest,
  ScoreResponse,
} from "./messages.js";
import { ModelClient } from "./model.js";
import { ProbesClient } from "./probes.js";
import { serviceConfig } from "./service-config.js";
import { VectorsClient } from "./vectors.js";

export type { CallOptions } from "./calls.js";
export { ClientError, type CodeName } from "./errors.js";
export { type ActivationDType, bytesToFloats, decodeFloats, floatsToBytes } from "./floats.js";
export type * from "./messages.js";
export type { ModelClient } from "./model.js";
export type { ProbesClient } from "./probes.js";
export type { FieldViolation } from "./status-details.js";
export type { VectorFile, VectorsClient } from "./vectors.js";

export interface TlsOptions {
  /** PEM file of certificate authorities. Default: the system's. */
  caFile?: string;
  /** PEM files of this client's certificate and key, for mutual TLS. */
  certFile?: string;
  keyFile?: string;
  /** Name that the server's certificate must carry, where it differs from the address. */
  serverName?: string;
}

export interface ClientOptions {
  /**
   * `HOST:PORT`, or a gRPC target with several addresses, at which calls take turns:
   * `dns:///steer-headless:50051`, `ipv4:10.0.0.1:50051,10.0.0.2:50051`. Default `127.0.0.1:50051`.
   */
  address?: string;
  /**
   * How often a call is sent while servers are UNAVAILABLE and its answer has not begun, 1 to 5.
   * Deletions are sent once. Default 1.
   */
  maxAttempts?: number;
  /** Default: plaintext. */
  tls?: TlsOptions;
  /** Sent as `authorization: Bearer …` with every call. */
  token?: string;
  /** More headers, sent with every call. */
  headers?: Readonly<Record<string, string>>;
}

export const DEFAULT_ADDRESS = "127.0.0.1:50051";
/** Above the server's own limit: a chunk of activations is the largest message. */
const MAX_RECEIVE_BYTES = 256 * 1024 * 1024;
const HEALTH_POLL_MS = 25;

/**
 * A client of one server. Every method throws a ClientError. It is safe to share; `close` it, or
 * declare it with `using`.
 */
export class LlamaSteerClient implements Disposable {
  readonly address: string;
  /** The registry of steering vectors. */
  readonly vectors: VectorsClient;
  /** Linear probes: fitted, calibrated and scored on the server. */
  readonly probes: ProbesClient;
  /** The model and its tokenizer. */
  readonly model: ModelClient;
  readonly #metadata: Metadata;
  readonly #inference: InstanceType<typeof contract.InferenceService>;
  readonly #raw: Client;

  constructor(options: ClientOptions = {}) {
    this.address = options.address ?? DEFAULT_ADDRESS;
    this.#metadata = metadataOf(options);
    const channelCredentials = credentialsOf(options.tls);
    const channelOptions: ChannelOptions = {
      "grpc.max_receive_message_length": MAX_RECEIVE_BYTES,
      "grpc.initial_reconnect_backoff_ms": 100,
      "grpc.max_reconnect_backoff_ms": 5000,
      "grpc.service_config": JSON.stringify(serviceConfig(options.maxAttempts ?? 1)),
      ...(options.tls?.serverName && {
        "grpc.ssl_target_name_override": options.tls.serverName,
        "grpc.default_authority": options.tls.serverName,
      }),
    };
    // One connection for all services.
    this.#raw = new Client(this.address, channelCredentials, channelOptions);
    const shared = { channelOverride: this.#raw.getChannel() };
    this.#inference = new contract.InferenceService(this.address, channelCredentials, shared);
    this.vectors = new VectorsClient(
      new contract.VectorService(this.address, channelCredentials, shared),
      this.#metadata,
    );
    this.probes = new ProbesClient(
      new contract.ProbeService(this.address, channelCredentials, shared),
      this.#metadata,
    );
    this.model = new ModelClient(
      new contract.ModelService(this.address, channelCredentials, shared),
      this.#metadata,
    );
  }

  /** Generates one answer (or n) and returns it whole. */
  generate(request: GenerateRequest, options: CallOptions = {}): Promise<GenerateResponse> {
    return unary((...call) => this.#inference.generate(...call), request, this.#metadata, options);
  }

  /**
   * Generates and streams: one `started`, any number of `delta` (and of `activations`, with `capture`),
   * one `finished`. Captured rows wait at the server until they are read here.
   */
  generateStream(
    request: GenerateRequest,
    options: CallOptions = {},
  ): AsyncGenerator<GenerateStreamResponse, void, undefined> {
    return serverStream(
      (...call) => this.#inference.generateStream(...call),
      request,
      this.#metadata,
      options,
    );
  }

  /** Log-probabilities of given continuations of a prompt, and of the prompt itself. */
  score(request: ScoreRequest, options: CallOptions = {}): Promise<ScoreResponse> {
    return unary((...call) => this.#inference.score(...call), request, this.#metadata, options);
  }

  /**
   * Activations of prompts, and with `sampling` of what is generated after them, as they are computed;
   * the last message is `finished`.
   */
  captureActivations(
    request: CaptureActivationsRequest,
    options: CallOptions = {},
  ): AsyncGenerator<CaptureActivationsResponse, void, undefined> {
    return serverStream(
      (...call) => this.#inference.captureActivations(...call),
      request,
      this.#metadata,
      options,
    );
  }

  /** Waits until the server can be reached and says that it is SERVING (grpc.health.v1). */
  async waitForReady(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    const deadline = Date.now() + timeoutMs;
    await new Promise<void>((resolve, reject) => {
      this.#raw.waitForReady(deadline, (error) =>
        error ? reject(new ClientError("UNAVAILABLE", `no server at ${this.address}`)) : resolve(),
      );
    });
    for (;;) {
      if (await this.#serving(deadline - Date.now(), signal)) return;
      if (Date.now() >= deadline) {
        throw new ClientError("UNAVAILABLE", `the server at ${this.address} is not ready`);
      }
      await new Promise((resolve) => setTimeout(resolve, HEALTH_POLL_MS));
    }
  }

  async #serving(timeoutMs: number, signal: AbortSignal | undefined): Promise<boolean> {
    try {
      return (await this.#health(timeoutMs, signal)) === "SERVING";
    } catch (error) {
      // A server that is still loading may refuse even this.
      if (error instanceof ClientError && error.code === "UNAVAILABLE") return false;
      throw error;
    }
  }

  async #health(timeoutMs: number, signal: AbortSignal | undefined): Promise<string> {
    const check = healthDefinition["grpc.health.v1.Health"] as {
      Check?: MethodDefinition<{ service: string }, { status: string }>;
    };
    const method = check.Check;
    if (!method) throw new ClientError("INTERNAL", "grpc.health.v1 was not loaded");
    const response = await unary<{ service: string }, { status: string }>(
      (request, metadata, options, callback) =>
        this.#raw.makeUnaryRequest(
          method.path,
          method.requestSerialize,
          method.responseDeserialize,
          request,
          metadata,
          options,
          callback,
        ),
      { service: "" },
      this.#metadata,
      { timeoutMs: Math.max(timeoutMs, 1), ...(signal && { signal }) },
    );
    return response.status;
  }

  /** Closes the connection; calls in flight end with CANCELLED. */
  close(): void {
    this.#raw.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function metadataOf({ token, headers = {} }: ClientOptions): Metadata {
  const metadata = new Metadata();
  for (const [key, value] of Object.entries(headers)) metadata.set(key, value);
  if (token !== undefined) metadata.set("authorization", `Bearer ${token}`);
  return metadata;
}

function credentialsOf(tls: TlsOptions | undefined): ChannelCredentials {
  if (!tls) return credentials.createInsecure();
  const read = (file: string | undefined) => (file === undefined ? null : readFileSync(file));
  return credentials.createSsl(read(tls.caFile), read(tls.keyFile), read(tls.certFile));
}
