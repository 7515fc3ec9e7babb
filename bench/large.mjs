#!/usr/bin/env node
/**
 * A checkpoint of the full Llama-3.1-8B shape, random, bf16, four shards, through the service, as
 * bf16 and as int8: time to ready, memory, speed, and that it generates, captures and is steered.
 *   node bench/large.mjs [--shape llama-3.1-8b] [--shards 4] [--dtypes bf16,int8] [--keep]
 * It needs 17 GB of disk while it runs; a checkpoint that it made is deleted at the
 * end, unless --keep is given.
 */
import { existsSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { SHAPES } from "./checkpoint/shapes.mjs";
import { writeCheckpoint } from "./checkpoint/write-checkpoint.mjs";
import { BENCH_VECTOR, createBenchVector } from "./lib/load.mjs";
import { ProgressBar } from "./lib/progress.mjs";
import { factList, runFacts, table, writeReport } from "./lib/report.mjs";
import { Server } from "./lib/server.mjs";

const { values: options } = parseArgs({
  options: {
    shape: { type: "string", default: "llama-3.1-8b" },
    shards: { type: "string", default: "4" },
    dtypes: { type: "string", default: "bf16,int8" },
    tokens: { type: "string", default: "32" },
    keep: { type: "boolean", default: false },
    folder: { type: "string" },
    out: { type: "string" },
  },
});
const shape = SHAPES[options.shape];
if (!shape) throw new Error(`no shape ${options.shape}`);
const folder = options.folder ?? path.join("out", `ckpt-${options.shape}`);
const tokens = Number(options.tokens);

const PROMPT_TOKENS = 64;
const CAPTURE_LAYERS = [0, shape.num_hidden_layers >> 1, shape.num_hidden_layers - 1];
const MIB_PER_GIB = 1024;
const gib = (mib) => (mib / MIB_PER_GIB).toFixed(2);

const facts = runFacts();
const rows = new Map();
const note = (name, dtype, value) => rows.set(name, { ...rows.get(name), [dtype]: value });

const prompt = (seed) => ({
  ids: Array.from(
    { length: PROMPT_TOKENS },
    (_, i) => (seed * 7919 + i * 104729) % shape.vocab_size,
  ),
});
const seconds = ({ seconds: whole, nanos }) => Number(whole) + nanos / 1e9;
const greedy = { maxNewTokens: tokens, temperature: 0, ignoreEos: true };

function makeCheckpoint() {
  const bar = new ProgressBar(folder);
  const begin = Date.now();
  const { totalBytes, files } = writeCheckpoint({
    folder,
    shape,
    shards: Number(options.shards),
    onProgress: (done, total) => bar.update(done, total),
  });
  bar.stop();
  const took = (Date.now() - begin) / 1000;
  return `${(totalBytes / 1e9).toFixed(2)} GB in ${files} file(s), written in ${took.toFixed(0)} s`;
}

function noteMemory(server, dtype, when) {
  const memory = server.memory();
  note(`${when}: resident (PSS), GiB`, dtype, `${gib(memory.rss)} (${gib(memory.pss)})`);
  note(`${when}: anonymous, GiB`, dtype, gib(memory.pssAnonymous));
  note(`${when}: file-backed, GiB`, dtype, gib(memory.pssFile));
  return memory;
}

/** Two answers: the first one touches the weights for the first time. */
async function measureGenerate(client, dtype) {
  for (const [when, seed] of [
    ["first", 1],
    ["second", 2],
  ]) {
    const answer = await client.generate({ tokens: prompt(seed), sampling: greedy });
    const { timeToFirstToken, decode } = answer.timings;
    const first = seconds(timeToFirstToken);
    const rate = (tokens - 1) / seconds(decode);
    note(
      `${when} answer: ${PROMPT_TOKENS} prompt tokens to the first token, s`,
      dtype,
      first.toFixed(2),
    );
    note(`${when} answer: decode, tok/s`, dtype, rate.toFixed(2));
  }
}

/** The same prompt with and without a vector; the proof must say that it acted. */
async function measureSteered(client, dtype) {
  await createBenchVector(client, {
    layers: shape.num_hidden_layers,
    hiddenSize: shape.hidden_size,
  });
  const request = { tokens: prompt(3), sampling: greedy };
  const plain = await client.generate(request);
  const steering = [{ vectorId: BENCH_VECTOR, coefficient: 100 }];
  const steered = await client.generate({ ...request, steering });
  const [proof] = steered.applied;
  const differing = steered.completions[0].tokenIds.filter(
    (id, i) => id !== plain.completions[0].tokenIds[i],
  ).length;
  if (proof.generatedTokens === 0 || differing === 0) throw new Error("the vector did not act");
  const rate = (tokens - 1) / seconds(steered.timings.decode);
  note("steered on all layers: decode, tok/s", dtype, rate.toFixed(2));
  note("steered: tokens that differ from the unsteered answer", dtype, `${differing} of ${tokens}`);
  note("steered: mean ‖Δh‖/‖h‖ of the proof", dtype, proof.meanDeltaRatio.toFixed(4));
}

async function measureCapture(client, dtype) {
  const begin = Date.now();
  let bytes = 0;
  let finite = true;
  const capture = { sites: ["SITE_RESID_POST"], layers: CAPTURE_LAYERS, dtype: "D_TYPE_FLOAT32" };
  const request = { inputs: [{ tokens: prompt(4) }], capture };
  for await (const { activations: chunk } of client.captureActivations(request)) {
    if (!chunk) continue;
    bytes += chunk.data.length;
    for (let i = 0; i < chunk.data.length; i += 4) {
      finite &&= Number.isFinite(chunk.data.readFloatLE(i));
    }
  }
  const wanted = PROMPT_TOKENS * CAPTURE_LAYERS.length * shape.hidden_size * 4;
  if (bytes !== wanted || !finite) throw new Error(`captured ${bytes} of ${wanted} bytes`);
  const took = ((Date.now() - begin) / 1000).toFixed(2);
  note(
    `capture of ${CAPTURE_LAYERS.length} layers, ${PROMPT_TOKENS} tokens`,
    dtype,
    `${bytes} bytes, ${took} s`,
  );
}

async function measure(dtype) {
  const server = await Server.start({ model: folder, args: ["--dtype", dtype] });
  const client = server.client();
  try {
    note("start to ready, s", dtype, server.readySeconds.toFixed(1));
    noteMemory(server, dtype, "at ready");
    await measureGenerate(client, dtype);
    await measureSteered(client, dtype);
    await measureCapture(client, dtype);
    const { peakRss } = noteMemory(server, dtype, "at the end");
    note("peak resident (VmHWM), GiB", dtype, gib(peakRss));
  } finally {
    client.close();
    const code = await server.stop();
    note("exit code after SIGTERM", dtype, String(code));
  }
}

const found = existsSync(path.join(folder, "config.json"));
const made = found ? "used as found" : makeCheckpoint();
const dtypes = options.dtypes.split(",");
try {
  for (const dtype of dtypes) await measure(dtype);
} finally {
  if (!found && !options.keep) rmSync(folder, { recursive: true, force: true });
}
writeReport(
  options.out ?? `bench/results/large-${options.shape}.md`,
  `${options.shape} through the service`,
  [
    factList([
      ...facts,
      ["checkpoint", `random, ${made}`],
      ["memory", `${(os.totalmem() / 2 ** 30).toFixed(1)} GiB`],
    ]),
    "Weights as bf16 are mapped: file-backed memory, which the kernel may take back. As int8 they " +
      "are quantised at load: anonymous memory.",
    table(
      ["", ...dtypes],
      [...rows].map(([name, row]) => [name, ...dtypes.map((dtype) => row[dtype] ?? "")]),
    ),
  ],
);
