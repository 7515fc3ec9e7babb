/** The engine through the addon, without the service: what benchmarks drive. */
import { createHash } from "node:crypto";
import path from "node:path";
import { pathToFileURL } from "node:url";
import { SteadyWindow } from "./window.mjs";

/** LLAMA_STEER_DIST: compiled TypeScript of another place than dist/. */
const dist = path.resolve(process.env.LLAMA_STEER_DIST ?? "dist");
const load = (name) => import(pathToFileURL(path.join(dist, name)).href);

const [{ Engine }, { loadNativeBinding }, { NATIVE_API_VERSION }, { openCheckpoint }] =
  await Promise.all([
    load("native/engine.js"),
    load("native/load.js"),
    load("native/binding.js"),
    load("model/checkpoint.js"),
  ]);

/** More than any request here sends: no credit ever runs out. */
const ENDLESS_CREDITS = 1 << 20;
export const BENCH_VECTORS = 16;
/** Against a residual stream of random weights: small, so that every logit stays finite. */
const VECTOR_VALUE = 0.01;

const GREEDY = {
  temperature: 0,
  topP: 1,
  topK: 0,
  minP: 0,
  repetitionPenalty: 1,
  presencePenalty: 0,
  frequencyPenalty: 0,
  seed: 0n,
  stopTokenIds: new Uint32Array(),
  logitBiasTokenIds: new Uint32Array(),
  logitBiasValues: new Float32Array(),
  logprobs: false,
  topLogprobs: 0,
};

/** Steering of a stream for each name used in the tables. Vectors have the handles 1 to 16. */
const STEERINGS = {
  none: () => [],
  "one layer": (_stream, layers) => [steering(1, [layers >> 1])],
  "all layers": (_stream, layers) => [steering(1, allOf(layers))],
  distinct: (stream, layers) => [steering(1 + (stream % BENCH_VECTORS), allOf(layers))],
};
export const allOf = (layers) => Array.from({ length: layers }, (_, layer) => layer);

/** Adds the vector at every position of these layers. */
export function steering(vector, layers) {
  return {
    vector,
    kind: "add",
    coefficient: 1,
    clampMin: 0,
    clampMax: 0,
    layers: Int32Array.from(layers),
    preserveNorm: false,
    positionBegin: 0,
    positionEnd: 0x7fffffff,
    gate: null,
    afterText: new Uint8Array(),
  };
}

export class BenchEngine {
  /** `weightFormat`: "auto" | "bf16" | "int8" | "fp8". Ready when it resolves. */
  static async open({
    folder,
    weightFormat,
    threads,
    kvCacheBytes = 1 << 30,
    device = "cpu",
    onProgress,
  }) {
    const { config, native } = openCheckpoint(folder);
    const begin = process.hrtime.bigint();
    const engine = new Engine(
      loadNativeBinding(),
      {
        apiVersion: NATIVE_API_VERSION,
        config,
        checkpoint: native,
        device,
        cpuIsa: process.env.LLAMA_STEER_CPU_ISA ?? "auto",
        weightFormat,
        kvDtype: "bf16",
        threads,
        kvCacheBytes,
        maxBatchTokens: 512,
        maxRunningSequences: 64,
        maxSteeringsPerRequest: 16,
        captureStagingBytes: 64 << 20,
        prefixCache: false,
        mergedAdapter: null,
        maxAdapterBytes: 256 << 20,
        tokenBytes: new Uint8Array(),
        tokenOffsets: new Uint32Array(),
      },
      onProgress ?? (() => {}),
      (fault) => {
        throw fault;
      },
    );
    const ready = await engine.ready;
    const loadSeconds = Number(process.hrtime.bigint() - begin) / 1e9;
    return new BenchEngine(engine, config, { ...ready, loadSeconds });
  }

  constructor(engine, config, ready) {
    this.engine = engine;
    this.config = config;
    this.ready = ready;
  }

  /** Handles 1 to BENCH_VECTORS, a row on every layer. */
  putBenchVectors() {
    const { layers, hiddenSize } = this.config;
    for (let handle = 1; handle <= BENCH_VECTORS; handle++) {
      const rows = Float32Array.from({ length: layers * hiddenSize }, (_, i) =>
        Math.imul(i + 1, 0x9e3779b1 * handle) >>> 31 === 0 ? VECTOR_VALUE : -VECTOR_VALUE,
      );
      const digest = createHash("sha256").update(new Uint8Array(rows.buffer)).digest();
      this.engine.putVector({ handle, digest, layers: Int32Array.from(allOf(layers)), rows });
    }
  }

  /** The events of a request, one by one. Times are of the batch of events that brought them. */
  async *run(request) {
    for await (const events of this.submit(request)) yield* events;
  }

  /** `rest`: fields of NativeRequest in place of the defaults. */
  submit({ prompt, maxNewTokens, topLogprobs = 0, ...rest }) {
    return this.engine.submit({
      promptTokenIds: Uint32Array.from(prompt),
      completions: 1,
      maxNewTokens,
      sampling: { ...GREEDY, logprobs: topLogprobs > 0, topLogprobs },
      steering: [],
      capture: null,
      promptLogprobsFrom: null,
      credits: ENDLESS_CREDITS,
      captureCreditBytes: ENDLESS_CREDITS,
      proofPromptTokens: 0,
      cacheSalt: "",
      deadlineNs: 0n,
      adapter: 0,
      probes: [],
      compareUnsteered: false,
      ...rest,
    });
  }

  /** Seconds from submission to the first token of a prompt. */
  async prefill(prompt) {
    const begin = process.hrtime.bigint();
    let seconds = 0;
    for await (const event of this.run({ prompt, maxNewTokens: 1 })) {
      if (event.type === "token") seconds = Number(process.hrtime.bigint() - begin) / 1e9;
      checkDone(event);
    }
    return { seconds };
  }

  /** Decodes all prompts as one batch; see SteadyWindow. `name`: a key of STEERINGS. */
  async decode(prompts, tokens, name = "none") {
    const window = new SteadyWindow(prompts.length);
    const follow = async (prompt, stream) => {
      const steerings = STEERINGS[name](stream, this.config.layers);
      for await (const event of this.run({ prompt, maxNewTokens: tokens, steering: steerings })) {
        if (event.type === "token") window.add(stream, event.finish !== "none");
        checkDone(event);
        checkSteered(event, steerings.length);
      }
    };
    await Promise.all(prompts.map(follow));
    return window.result();
  }

  /** The greedy continuation, and the `top` largest logprobs at each of its steps. */
  async agree({ prompt, tokens, top }) {
    const generated = [];
    const rows = [];
    for await (const event of this.run({ prompt, maxNewTokens: tokens, topLogprobs: top })) {
      if (event.type === "token") {
        generated.push(event.token.tokenId);
        rows.push(event.token.top);
      }
      checkDone(event);
    }
    return { generated, rows };
  }

  close() {
    this.engine.close();
  }
}

function checkDone(event) {
  if (event.type === "done" && event.status.code !== 0) throw new Error(event.status.message);
}

/** A measurement of steering that did not steer would be worth nothing. */
function checkSteered(event, steerings) {
  if (event.type !== "done" || steerings === 0) return;
  if (!event.applied.every(({ generatedTokens }) => generatedTokens > 0)) {
    throw new Error("a stream that should have been steered was not");
  }
}
