/** Who is measured: each a process of its own, driven through the same few orders. */
import path from "node:path";
import { fileURLToPath } from "node:url";
import { LineWorker, NodeWorker } from "../lib/worker.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));

/** The same prompt for everyone: `stream` tells the streams of a batch apart. */
export function promptOf(tokens, stream, vocabSize) {
  return Array.from({ length: tokens }, (_, i) => (stream * 7919 + (i + 1) * 104729) % vocabSize);
}

const promptsOf = ({ streams, context }, vocabSize) =>
  Array.from({ length: streams }, (_, stream) => promptOf(context, stream, vocabSize));

async function started(worker) {
  await new Promise((resolve, reject) => {
    worker.child.once("message", resolve);
    worker.child.once("exit", (code) => reject(new Error(`${worker.name}: exit ${code}`)));
  });
  return worker;
}

/** llama-steer through the addon. Tokens per second are of the steady part of a batch. */
export async function openAddon({ checkpoint, weights, threads, vocabSize }) {
  const file = path.join(here, "ours-worker.mjs");
  const format = weights === "int8" ? "int8" : "auto";
  const worker = await started(new NodeWorker(file, [checkpoint, format, String(threads)]));
  return {
    name: `llama-steer ${weights}, addon`,
    weights,
    isOurs: true,
    describe: () => worker.order("describe"),
    agree: (args) => worker.order("agree", args),
    async prefill(tokens) {
      const { seconds } = await worker.order("prefill", { prompt: promptOf(tokens, 0, vocabSize) });
      return tokens / seconds;
    },
    async decode(batch, steering = "none") {
      const prompts = promptsOf(batch, vocabSize);
      const timed = await worker.order("decode", { prompts, tokens: batch.tokens, steering });
      return timed.tokens / timed.seconds;
    },
    close: () => worker.close(),
  };
}

/** The engine in C++ alone, on random weights of the same shape. */
export async function openNative({ executable, shape, weights, threads }) {
  const args = ["--shape", shape, "--format", weights, "--threads", String(threads), "--orders"];
  const worker = new LineWorker(executable, args);
  await worker.greeting();
  return {
    name: `llama-steer ${weights}, C++ alone`,
    weights,
    isOurs: true,
    prefill: async (tokens) => (await worker.order("prefill", { tokens })).tokens_per_s,
    decode: async (batch) => (await worker.order("decode", batch)).tokens_per_s,
    close: () => worker.close(),
  };
}

/** The peer. Tokens per second count llama_decode alone; its sampling is not held against it. */
export async function openPeer({ gguf, weights, threads, vocabSize }) {
  const file = path.join(here, "peer-worker.mjs");
  const worker = await started(new NodeWorker(file, [gguf, String(threads)]));
  return {
    name: `node-llama-cpp ${weights}`,
    weights,
    isOurs: false,
    /** Metric -> whether flash attention was faster; filled by the caller. */
    flashAttention: {},
    describe: () => worker.order("describe"),
    agree: (args) => worker.order("agree", args),
    async prefill(tokens, flashAttention) {
      const prompt = promptOf(tokens, 0, vocabSize);
      return tokens / (await worker.order("prefill", { prompt, flashAttention })).seconds;
    },
    async decode(batch, flashAttention) {
      const prompts = promptsOf(batch, vocabSize);
      const args = { prompts, tokens: batch.tokens, flashAttention };
      const { seconds } = await worker.order("decode", args);
      return (batch.streams * batch.tokens) / seconds;
    },
    close: () => worker.close(),
  };
}
