#!/usr/bin/env node
/**
 * What each part of the steering toolkit costs, as a ratio to plain generation in the same run; see
 * bench/README.md. It makes its checkpoint when there is none.
 *   node bench/toolkit.mjs [--shape smollm2-135m] [--rounds 5] [--streams 8] [--pairs 200]
 */
import { existsSync, mkdirSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { SHAPES } from "./checkpoint/shapes.mjs";
import { writeCheckpoint } from "./checkpoint/write-checkpoint.mjs";
import { makeAdapter } from "./lib/adapter.mjs";
import { BenchEngine } from "./lib/engine.mjs";
import { randomSource, runMany } from "./lib/load.mjs";
import { factList, runFacts, table, writeReport } from "./lib/report.mjs";
import { Server } from "./lib/server.mjs";
import { median, medianDeviation, summary } from "./lib/stats.mjs";
import { ADAPTER, OPTIONS, Witness } from "./lib/toolkit-options.mjs";
import { SteadyWindow } from "./lib/window.mjs";

const { values: options } = parseArgs({
  options: {
    shape: { type: "string", default: "smollm2-135m" },
    checkpoint: { type: "string" },
    rounds: { type: "string", default: "5" },
    streams: { type: "string", default: "8" },
    context: { type: "string", default: "128" },
    tokens: { type: "string", default: "48" },
    prompt: { type: "string", default: "512" },
    threads: { type: "string", default: "2" },
    pairs: { type: "string", default: "200" },
    "pair-tokens": { type: "string", default: "100" },
    "derive-rounds": { type: "string", default: "3" },
    out: { type: "string", default: "bench/results/toolkit.md" },
  },
});
const number = (name) => Number(options[name]);
const shape = SHAPES[options.shape];
if (!shape) throw new Error(`no shape ${options.shape}`);
const folder = options.checkpoint ?? path.join("out", `ckpt-${options.shape}`);
const facts = runFacts();
const log = (text) => process.stderr.write(`${text}\n`);
const AT_ONCE = 32;

if (!existsSync(path.join(folder, "config.json"))) writeCheckpoint({ folder, shape });

const random = randomSource(1);
/** Never the same twice, so that nothing is found in a cache. */
const promptOf = (tokens) =>
  Array.from({ length: tokens }, () => Math.floor(random() * shape.vocab_size));

/** Tokens a second of the steady part of a batch. */
async function decodeRate(engine, fields) {
  const window = new SteadyWindow(number("streams"));
  const follow = async (_, stream) => {
    const request = fields(shape.num_hidden_layers, stream);
    const witness = new Witness(request);
    const prompt = promptOf(number("context"));
    for await (const event of engine.run({ prompt, maxNewTokens: number("tokens"), ...request })) {
      if (event.type === "token") window.add(stream, event.finish !== "none");
      witness.add(event);
    }
  };
  await Promise.all(Array.from({ length: number("streams") }, follow));
  const { tokens, seconds } = window.result();
  return tokens / seconds;
}

/** Prompt tokens a second, from submission to the first generated token. */
async function prefillRate(engine, fields) {
  const prompt = promptOf(number("prompt"));
  const request = fields(shape.num_hidden_layers, 0);
  const begin = process.hrtime.bigint();
  let rate = 0;
  for await (const event of engine.run({ prompt, maxNewTokens: 2, ...request })) {
    if (event.type === "done" && event.status.code !== 0) throw new Error(event.status.message);
    if (event.type !== "token" || rate > 0) continue;
    rate = prompt.length / (Number(process.hrtime.bigint() - begin) / 1e9);
  }
  return rate;
}

/** In every round an option runs beside a plain request of its own, who is first changes. */
async function measureOptions(engine) {
  const names = Object.keys(OPTIONS).filter((name) => name !== "plain");
  const samples = new Map(["plain", ...names].map((name) => [name, { decode: [], prefill: [] }]));
  const ratios = new Map(names.map((name) => [name, { decode: [], prefill: [] }]));
  await decodeRate(engine, OPTIONS.plain);
  for (let round = 0; round < number("rounds"); round++) {
    for (const name of names) {
      for (const [metric, measure] of [
        ["decode", decodeRate],
        ["prefill", prefillRate],
      ]) {
        const pair = round % 2 === 0 ? ["plain", name] : [name, "plain"];
        const rates = {};
        for (const who of pair) rates[who] = await measure(engine, OPTIONS[who]);
        for (const who of pair) samples.get(who)[metric].push(rates[who]);
        // Time for a token, beside that of a plain one.
        ratios.get(name)[metric].push(rates.plain / rates[name]);
      }
      log(`round ${round + 1}, ${name}: decode x${ratios.get(name).decode.at(-1).toFixed(3)}`);
    }
  }
  return { samples, ratios };
}

const ratioText = (values) =>
  `${median(values).toFixed(3)} ± ${medianDeviation(values).toFixed(3)}`;

function optionTable({ samples, ratios }) {
  const plain = samples.get("plain");
  const rows = [["plain", summary(plain.decode), "1", summary(plain.prefill, 0), "1"]];
  for (const [name, { decode, prefill }] of ratios) {
    const rates = samples.get(name);
    rows.push([
      name,
      summary(rates.decode),
      ratioText(decode),
      summary(rates.prefill, 0),
      ratioText(prefill),
    ]);
  }
  const header = ["option", "decode, tok/s", "× plain", "prefill, tok/s", "× plain"];
  return table(header, rows);
}

async function derive(client, pairs, vectorId) {
  const begin = process.hrtime.bigint();
  let vector = null;
  for await (const message of client.vectors.derive({ vectorId, pairs })) {
    vector = message.vector ?? vector;
  }
  if (vector?.layers.length !== shape.num_hidden_layers) throw new Error("nothing was derived");
  return Number(process.hrtime.bigint() - begin) / 1e9;
}

/** The same texts as requests for one token: what their prefill takes through the service. */
async function plainPrefill(client, pairs) {
  const texts = pairs.flatMap(({ positive, negative }) => [positive, negative]);
  const sampling = { maxNewTokens: 1, temperature: 0 };
  const begin = process.hrtime.bigint();
  await runMany(texts.length, AT_ONCE, (index) => client.generate({ ...texts[index], sampling }));
  return Number(process.hrtime.bigint() - begin) / 1e9;
}

async function measureDerivation() {
  const args = ["--prefix-cache", "off", "--threads", options.threads];
  const server = await Server.start({ model: folder, args });
  const client = server.client();
  const times = { derive: [], plain: [] };
  try {
    const side = () => ({ tokens: { ids: promptOf(number("pair-tokens")) } });
    const makePairs = (count) =>
      Array.from({ length: count }, () => ({ positive: side(), negative: side() }));
    await plainPrefill(client, makePairs(8));
    for (let round = 0; round < number("derive-rounds"); round++) {
      const pairs = makePairs(number("pairs"));
      const measures = [
        async () => times.derive.push(await derive(client, pairs, `round-${round}`)),
        async () => times.plain.push(await plainPrefill(client, pairs)),
      ];
      for (const measure of round % 2 === 0 ? measures : measures.reverse()) await measure();
      log(`round ${round + 1}: derive ${times.derive.at(-1)} s, plain ${times.plain.at(-1)} s`);
    }
  } finally {
    client.close();
    await server.stop();
  }
  return times;
}

function derivationTable({ derive: derived, plain }) {
  const ratios = derived.map((value, i) => value / plain[i]);
  return table(
    ["", "seconds", "× prefill"],
    [
      ["prefill of the same texts, as requests for one token", summary(plain, 2), "1"],
      ["DeriveVector, mean difference on all layers", summary(derived, 2), ratioText(ratios)],
    ],
  );
}

mkdirSync("out", { recursive: true });
const engine = await BenchEngine.open({
  folder,
  weightFormat: "auto",
  threads: number("threads"),
});
engine.putBenchVectors();
const file = path.join("out", "bench-adapter.bin");
engine.engine.putAdapter(makeAdapter({ file, config: engine.config, handle: ADAPTER, rank: 16 }));
const measured = await measureOptions(engine);
engine.close();
const times = await measureDerivation();

writeReport(options.out, "What the steering toolkit costs", [
  factList([
    ...facts,
    ["device", `${engine.ready.device.isa}, ${engine.ready.device.threads} threads`],
    ["checkpoint", `random weights, shape ${options.shape}, ${engine.ready.weightDtype}`],
    ["decode", `${options.streams} streams after ${options.context} tokens, bf16 KV cache`],
    ["prefill", `one prompt of ${options.prompt} tokens`],
    ["derivation", `${options.pairs} pairs of ${options["pair-tokens"]} tokens, through gRPC`],
  ]),
  "Time for a token as a multiple of a plain one, each option beside a plain run of its own; median " +
    "of the ratios ± the median deviation. Rates: median (range). The run stops when an option did " +
    "nothing.",
  optionTable(measured),
  derivationTable(times),
]);
