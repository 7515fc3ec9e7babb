/**
 * node-llama-cpp under measurement, through its lowest interface: a batch is filled, then
 * `decodeBatch` is llama_decode in a worker thread. No part of its scheduling is in the way, and
 * its sampling is timed apart, so that what is compared is llama.cpp at its best.
 *   argv: GGUF-FILE THREADS
 */
import { getLlama } from "node-llama-cpp";
import { serveOrders } from "../lib/worker.mjs";

const BATCH_TOKENS = 512;

const [file, threadsText] = process.argv.slice(2);
const threads = Number(threadsText);
const llama = await getLlama({
  gpu: false,
  build: "never",
  progressLogs: false,
  logLevel: "error",
  maxThreads: threads,
});
const model = await llama.loadModel({ modelPath: file, gpuLayers: 0 });
const seconds = (begin) => Number(process.hrtime.bigint() - begin) / 1e9;

/** Runs `body` with a fresh context for `streams` sequences of at most `length` tokens. */
async function withContext({ streams, length, flashAttention }, body) {
  const context = await model.createContext({
    sequences: streams,
    contextSize: length,
    batchSize: BATCH_TOKENS,
    flashAttention,
    threads: { ideal: threads, min: threads },
  });
  try {
    return await body(context._ctx);
  } finally {
    await context.dispose();
  }
}

/** Feeds whole prompts, at most BATCH_TOKENS a step; the last logits stand in the last batch. */
async function prefill(native, sequence, tokens) {
  let logits = null;
  for (let begin = 0; begin < tokens.length; begin += BATCH_TOKENS) {
    const chunk = Uint32Array.from(tokens.slice(begin, begin + BATCH_TOKENS));
    const wanted = begin + chunk.length === tokens.length ? [chunk.length - 1] : [];
    native.initBatch(chunk.length);
    logits = native.addToBatch(sequence, begin, chunk, Uint32Array.from(wanted));
    await native.decodeBatch();
  }
  return logits[0];
}

function greedySampler() {
  const sampler = new llama._bindings.AddonSampler(model._model);
  sampler.applyConfig({ temperature: 0 });
  return sampler;
}

serveOrders({
  async describe() {
    return { systemInfo: llama._bindings.systemInfo(), bytes: model.size };
  },

  /** Seconds of llama_decode over the prompt; a first pass of the same kind warms up. */
  async prefill({ prompt, flashAttention }) {
    const length = prompt.length + 16;
    return withContext({ streams: 1, length, flashAttention }, async (native) => {
      await prefill(native, 0, prompt.slice(0, 64));
      native.disposeSequence(0);
      const begin = process.hrtime.bigint();
      await prefill(native, 0, prompt);
      return { seconds: seconds(begin) };
    });
  },

  /**
   * Decodes `tokens` steps of all streams together, greedily. Returns the seconds in llama_decode
   * and the seconds of the whole loop, sampling included.
   */
  async decode({ prompts, tokens, flashAttention }) {
    const length = prompts[0].length + tokens + 8;
    const streams = prompts.length;
    return withContext({ streams, length, flashAttention }, async (native) => {
      const samplers = prompts.map(greedySampler);
      const last = [];
      for (const [sequence, prompt] of prompts.entries()) {
        const logits = await prefill(native, sequence, prompt);
        last.push(await native.sampleToken(logits, samplers[sequence]));
      }
      let decodeSeconds = 0;
      const begin = process.hrtime.bigint();
      for (let step = 0; step < tokens; step++) {
        native.initBatch(streams);
        const logits = last.map(
          (token, sequence) =>
            native.addToBatch(
              sequence,
              prompts[sequence].length + step,
              Uint32Array.of(token),
              Uint32Array.of(0),
            )[0],
        );
        const decodeBegin = process.hrtime.bigint();
        await native.decodeBatch();
        decodeSeconds += seconds(decodeBegin);
        const drawn = await Promise.all(
          logits.map((index, sequence) => native.sampleToken(index, samplers[sequence])),
        );
        last.splice(0, streams, ...drawn);
      }
      return { seconds: decodeSeconds, secondsWithSampling: seconds(begin) };
    });
  },

  /** The `top` largest logprobs after the prompt, and the greedy continuation. */
  async agree({ prompt, tokens, top }) {
    const length = prompt.length + tokens + 8;
    return withContext({ streams: 1, length, flashAttention: true }, async (native) => {
      const sampler = greedySampler();
      let index = await prefill(native, 0, prompt);
      const generated = [];
      const rows = [];
      for (let step = 0; step < tokens; step++) {
        const [token, , , logits] = await native.sampleToken(index, sampler, false, false, true);
        generated.push(token);
        rows.push(topLogprobs(logits, top));
        native.initBatch(1);
        [index] = native.addToBatch(
          0,
          prompt.length + step,
          Uint32Array.of(token),
          Uint32Array.of(0),
        );
        await native.decodeBatch();
      }
      return { generated, rows };
    });
  },
});

/** `flat`: [token, logit, token, logit, ...], by falling logit. */
function topLogprobs(flat, top) {
  const largest = flat[1];
  let sum = 0;
  for (let i = 1; i < flat.length; i += 2) sum += Math.exp(flat[i] - largest);
  const logSum = largest + Math.log(sum);
  return Array.from({ length: top }, (_, i) => ({
    tokenId: flat[2 * i],
    logprob: flat[2 * i + 1] - logSum,
  }));
}

process.send({ result: "ready" });
