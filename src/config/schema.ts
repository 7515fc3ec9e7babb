/**
 * Every knob of the server: its kind, default, unit and help text. Flags (`--max-batch-tokens`),
 * environment names (`LLAMA_STEER_MAX_BATCH_TOKENS`), keys of the file (`max_batch_tokens`) and
 * `--help` are all made from this table.
 */
import { z } from "zod";
import {
  adapters,
  address,
  decimal,
  httpUrl,
  idList,
  integer,
  oneOf,
  onOff,
  text,
} from "./values.js";

const GIB = 1024 ** 3;
const MAX_INT32 = 2 ** 31 - 1;

/** `value`: what `--help` shows for the argument. */
function help(value: string, description: string) {
  return { value, description };
}

export const configSchema = z.strictObject({
  model: text().meta(help("DIR", "checkpoint folder (Hugging Face layout); required")),
  modelName: text()
    .optional()
    .meta(help("NAME", "name of the model in answers and metrics; default: the folder's name")),
  listen: address()
    .prefault("127.0.0.1:50051")
    .meta(help("HOST:PORT", "address of the gRPC server; port 0: a free one")),
  http: address()
    .prefault("127.0.0.1:9464")
    .meta(help("HOST:PORT", "address of /metrics, /livez, /readyz, /startupz")),
  registry: text()
    .default("llama-steer-registry")
    .meta(
      help(
        "DIR|postgres://…",
        "vector registry: a folder, made if it does not exist, or a PostgreSQL database that replicas share",
      ),
    ),
  registryPollSeconds: decimal(0.05, 86_400)
    .default(5)
    .meta(help("SECONDS", "looks for other replicas' writes when PostgreSQL notifies of none")),

  device: z
    .string()
    .regex(/^(auto|cpu|cuda(:\d{1,3})?)$/, { error: "must be auto, cpu, cuda or cuda:N" })
    .default("auto")
    .meta(help("auto|cpu|cuda[:N]", "what computes")),
  dtype: oneOf(["auto", "bf16", "int8", "fp8"])
    .default("auto")
    .meta(
      help("auto|bf16|int8|fp8", "weights at run time; auto: the checkpoint's own; fp8: CUDA only"),
    ),
  kvDtype: oneOf(["bf16", "f32"]).default("bf16").meta(help("bf16|f32", "type of the KV cache")),
  cpuIsa: oneOf(["auto", "avx2", "avx512", "avx512_bf16", "neon"])
    .default("auto")
    .meta(help("ISA", "pins the instruction set: auto, avx2, avx512, avx512_bf16, neon")),
  threads: integer(0, 1024)
    .default(0)
    .meta(help("N", "threads of the engine; 0: one for each core")),
  kvCacheBytes: integer(0, Number.MAX_SAFE_INTEGER)
    .default(0)
    .meta(help("BYTES", "size of the KV cache; 0: what the model can use, at most 1 GiB")),
  maxBatchTokens: integer(1, 65_536)
    .default(512)
    .meta(help("TOKENS", "rows of one step: prompt chunks and decodes together")),
  maxRunningSequences: integer(1, 4096)
    .default(64)
    .meta(help("N", "completions computed at the same time")),
  prefixCache: onOff().default(true).meta(help("on|off", "reuses the KV blocks of equal prompts")),
  captureStagingBytes: integer(1, 64 * GIB)
    .default(64 * 1024 ** 2)
    .meta(help("BYTES", "buffer for captured rows of one step")),
  adapter: adapters()
    .default([])
    .meta(help("ID=DIR", "PEFT LoRA folder that requests choose by adapter_id; may be repeated")),
  adapterDir: text()
    .optional()
    .meta(help("DIR", "adapters in its folders may be loaded and unloaded by rpc; default: off")),
  mergeAdapter: text()
    .optional()
    .meta(help("DIR", "PEFT LoRA folder that is added to the weights as they are loaded")),
  maxAdapterBytes: integer(0, 64 * GIB)
    .default(GIB)
    .meta(help("BYTES", "LoRA adapters on the engine")),
  maxCaptureStreamBytes: integer(1, 64 * GIB)
    .default(8 * 1024 ** 2)
    .meta(help("BYTES", "captured rows on their way to one client")),
  maxCaptureBufferBytes: integer(1, 64 * GIB)
    .default(256 * 1024 ** 2)
    .meta(help("BYTES", "captured rows on their way to all clients")),
  maxCaptureChunkBytes: integer(1024, 256 * 1024 ** 2)
    .default(1024 ** 2)
    .meta(help("BYTES", "captured rows in one message")),
  capture: onOff()
    .optional()
    .meta(help("on|off", "serves CaptureActivations; default: on when listening on loopback only")),

  maxWaitingRequests: integer(1, 1_000_000)
    .default(256)
    .meta(help("N", "requests in the queue; more are refused")),
  maxWaitingPromptTokens: integer(1, MAX_INT32)
    .default(262_144)
    .meta(help("TOKENS", "prompt tokens in the queue; more are refused")),
  maxMessageBytes: integer(1024, 256 * 1024 ** 2)
    .default(16 * 1024 ** 2)
    .meta(help("BYTES", "one message on the wire")),
  maxPromptBytes: integer(1, 256 * 1024 ** 2)
    .default(1024 ** 2)
    .meta(help("BYTES", "UTF-8 text of a prompt, a conversation or a continuation")),
  maxCompletions: integer(1, 1024).default(16).meta(help("N", "completions of one request")),
  maxSteerings: integer(0, 64).default(16).meta(help("N", "steerings of one request")),
  maxCoefficient: decimal(0, 1e9)
    .default(10_000)
    .meta(help("X", "magnitude of a steering's coefficient")),
  maxStopTexts: integer(0, 1024).default(16).meta(help("N", "stop texts of one request")),
  maxStopTextBytes: integer(1, 65_536).default(1024).meta(help("BYTES", "one stop text")),
  maxStopTokenIds: integer(0, 4096).default(64).meta(help("N", "stop token ids of one request")),
  maxLogprobs: integer(0, 1024)
    .default(20)
    .meta(help("N", "most likely tokens reported at each place")),
  maxLogitBiases: integer(0, 65_536).default(1024).meta(help("N", "entries of logit_bias")),
  maxChatMessages: integer(1, 65_536).default(1024).meta(help("N", "messages of a conversation")),
  maxContinuations: integer(1, 65_536).default(256).meta(help("N", "continuations of one Score")),
  maxCaptureInputs: integer(1, 65_536)
    .default(256)
    .meta(help("N", "inputs of one CaptureActivations")),
  maxProbes: integer(0, 64).default(16).meta(help("N", "probes of one request")),
  maxAfterTextBytes: integer(1, 65_536)
    .default(1024)
    .meta(help("BYTES", "text that positions or a probe wait for")),
  maxLensTopK: integer(0, 1024)
    .default(20)
    .meta(help("N", "most likely tokens of the logit lens at one row")),
  maxLabels: integer(0, 1024).default(32).meta(help("N", "labels of a vector")),
  maxLabelBytes: integer(1, 65_536).default(1024).meta(help("BYTES", "key or value of a label")),
  maxPairs: integer(1, 65_536)
    .default(2048)
    .meta(help("N", "pairs of one DeriveVector or FitProbe")),
  maxDeriveBytes: integer(1, 64 * GIB)
    .default(512 * 1024 ** 2)
    .meta(help("BYTES", "activations that DeriveVector and ProbeService hold, all calls together")),
  maxImportBytes: integer(1, GIB)
    .default(128 * 1024 ** 2)
    .meta(help("BYTES", "file of one ImportVector")),
  maxProbeInputs: integer(1, 65_536)
    .default(4096)
    .meta(help("N", "texts of one CalibrateProbe or ScoreProbe")),
  maxRandomDirections: integer(0, 65_536)
    .default(1000)
    .meta(help("N", "random directions of a control")),
  maxRegistryBytes: integer(1, Number.MAX_SAFE_INTEGER)
    .default(GIB)
    .meta(help("BYTES", "rows of all registered vectors")),
  maxResidentVectorBytes: integer(1, Number.MAX_SAFE_INTEGER)
    .default(256 * 1024 ** 2)
    .meta(help("BYTES", "rows of vectors in use, inline ones included")),

  tlsCert: text().optional().meta(help("FILE", "PEM certificate chain of the gRPC server")),
  tlsKey: text().optional().meta(help("FILE", "PEM private key of the certificate")),
  tlsClientCa: text()
    .optional()
    .meta(help("FILE", "PEM CA; clients must show a certificate that it signed")),
  tokensFile: text()
    .optional()
    .meta(help("FILE", "hashes and roles of bearer tokens; every call but health needs one")),
  securityReloadSeconds: decimal(0.05, 86_400)
    .default(10)
    .meta(help("SECONDS", "looks for replaced certificates and tokens")),
  insecureListen: onOff()
    .default(false)
    .meta(
      help("", "listens beyond loopback without TLS, or without tokens and client certificates"),
    ),

  drainTimeoutSeconds: decimal(0, 86_400)
    .default(30)
    .meta(help("SECONDS", "time for running requests after SIGTERM")),
  slowReaderTimeoutSeconds: decimal(0.1, 86_400)
    .default(60)
    .meta(help("SECONDS", "a stream whose client takes nothing for so long is ended")),
  stallSeconds: decimal(1, 86_400)
    .default(60)
    .meta(help("SECONDS", "one step of the engine; /livez fails when one takes longer")),
  keepaliveSeconds: decimal(0.05, 86_400)
    .default(60)
    .meta(help("SECONDS", "a connection is pinged so often; one that does not answer is closed")),
  keepaliveTimeoutSeconds: decimal(0.05, 86_400)
    .default(20)
    .meta(help("SECONDS", "time for a ping's answer")),
  maxConnections: integer(1, 1_000_000)
    .default(4096)
    .meta(help("N", "connections of gRPC clients at the same time; more are closed at once")),
  maxConnectionAgeSeconds: decimal(1, MAX_INT32 / 1000)
    .optional()
    .meta(help("SECONDS", "connections are closed gracefully after it; default: never")),
  metricsVectors: idList("vector")
    .default([])
    .meta(help("ID,…", "vectors with a label of their own in vector_tokens_total")),
  metricsProbes: idList("probe")
    .default([])
    .meta(help("ID,…", "probes whose scores are in probe_score")),
  otlpEndpoint: httpUrl()
    .optional()
    .meta(
      help(
        "URL",
        "collector of traces (OTLP over HTTP, protobuf), such as http://127.0.0.1:4318; default: OTEL_EXPORTER_OTLP_ENDPOINT, else none",
      ),
    ),
  otlpTimeoutSeconds: decimal(0.1, 3600).default(10).meta(help("SECONDS", "one export of traces")),
  traceSampleRatio: decimal(0, 1)
    .default(1)
    .meta(help("X", "share of calls that are traced, of those without a traced parent")),
  maxQueuedSpans: integer(1, 1_000_000)
    .default(4096)
    .meta(help("N", "spans that wait for the collector; more are dropped")),
  logLevel: oneOf(["trace", "debug", "info", "warn", "error", "silent"])
    .default("info")
    .meta(help("LEVEL", "trace, debug, info, warn, error, silent")),
});

type ParsedConfig = z.output<typeof configSchema>;

/** The configuration in force. */
export interface Config extends Omit<ParsedConfig, "capture"> {
  capture: boolean;
}
