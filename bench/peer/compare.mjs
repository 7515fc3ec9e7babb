#!/usr/bin/env node
/**
 * llama-steer beside node-llama-cpp on the same random weights: one run, interleaved, medians.
 * bench/run-peer.sh prepares what it needs. Options: see OPTIONS.
 */
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import { factList, runFacts, table, writeReport } from "../lib/report.mjs";
import { median, medianDeviation, summary } from "../lib/stats.mjs";
import { checkAgreement } from "./agreement.mjs";
import { openAddon, openNative, openPeer } from "./contestants.mjs";
import { BYTES_PER_WEIGHT, decodeBytes, prefillFlop } from "./limits.mjs";

const OPTIONS = {
  checkpoint: { type: "string", default: "out/ckpt-llama-3.2-1b" },
  shape: { type: "string", default: "llama-3.2-1b" },
  native: { type: "string", default: "out/bench/bench/native" },
  threads: { type: "string", default: "2" },
  rounds: { type: "string", default: "5" },
  "steering-rounds": { type: "string", default: "15" },
  prompt: { type: "string", default: "512" },
  context: { type: "string", default: "128" },
  tokens: { type: "string", default: "24" },
  "agree-only": { type: "boolean", default: false },
  out: { type: "string" },
};

const { values: options } = parseArgs({ options: OPTIONS });
const number = (name) => Number(options[name]);
const threads = number("threads");
const rounds = number("rounds");
const facts = runFacts();
const config = JSON.parse(readFileSync(path.join(options.checkpoint, "config.json"), "utf8"));
const vocabSize = config.vocab_size;
const batchOf = (streams) => ({
  streams,
  context: number("context"),
  tokens: number("tokens"),
});

const METRICS = {
  [`prefill ${options.prompt}`]: (who, mode) => who.prefill(number("prompt"), mode),
  "decode, 1 stream": (who, mode) => who.decode(batchOf(1), mode),
  "decode, 8 streams": (who, mode) => who.decode(batchOf(8), mode),
  "decode, 16 streams": (who, mode) => who.decode(batchOf(16), mode),
};
const PREFILL = Object.keys(METRICS)[0];

function measureMachine() {
  const executable = path.join(options.native, "bench_machine");
  return JSON.parse(execFileSync(executable, [String(threads)], { encoding: "utf8" }));
}

const openGguf = (weights) =>
  openPeer({ gguf: `${options.checkpoint}.${weights}.gguf`, weights, threads, vocabSize });
const openOurs = (weights) =>
  openAddon({ checkpoint: options.checkpoint, weights, threads, vocabSize });

/** Absent when bench_engine is not built. */
async function openEngineAlone(weights) {
  const executable = path.join(options.native, "bench_engine");
  if (!existsSync(executable)) return [];
  return [await openNative({ executable, shape: options.shape, weights, threads })];
}

const log = (text) => process.stderr.write(`${text}\n`);

/** With and without flash attention once each: the peer's better one is measured further. */
async function chooseFlashAttention(peer) {
  for (const [metric, measure] of Object.entries(METRICS)) {
    const rates = [await measure(peer, true), await measure(peer, false)];
    peer.flashAttention[metric] = rates[0] >= rates[1];
    log(`  ${peer.name}, ${metric}: flash attention ${rates.map((rate) => rate.toFixed(1))}`);
  }
}

/**
 * All metrics of all contestants, `rounds` times; who begins changes from round to round. What the
 * machine can do is measured anew before each, since it changes with the neighbours.
 */
async function measureGroup(contestants, machine) {
  const rates = new Map(contestants.map((who) => [who, {}]));
  for (const peer of contestants.filter(({ isOurs }) => !isOurs)) await chooseFlashAttention(peer);
  for (const who of contestants.filter(({ isOurs }) => isOurs)) await who.prefill(number("prompt"));
  for (let round = 0; round < rounds; round++) {
    for (const [metric, measure] of Object.entries(METRICS)) {
      const limits = measureMachine();
      machine.push(limits);
      for (let i = 0; i < contestants.length; i++) {
        const who = contestants[(round + i) % contestants.length];
        const mode = who.isOurs ? undefined : who.flashAttention[metric];
        const rate = await measure(who, mode);
        const share = shareOfLimit(metric, rate, who.weights, limits);
        const row = rates.get(who);
        row[metric] = [...(row[metric] ?? []), { rate, share }];
        log(`  round ${round + 1}, ${metric}, ${who.name}: ${rate.toFixed(1)} tok/s`);
      }
    }
  }
  return rates;
}

/** Share of the limit: FMA peak for prefill, read bandwidth for decode. */
function shareOfLimit(metric, rate, weights, limits) {
  if (metric === PREFILL) {
    const tokens = number("prompt");
    return (prefillFlop(config, tokens) * (rate / tokens)) / (limits.fma_gflop_per_s * 1e9);
  }
  const streams = Number(/\d+/.exec(metric)[0]);
  const bytes = decodeBytes(config, BYTES_PER_WEIGHT[weights]);
  return ((rate / streams) * bytes) / (limits.read_gb_per_s * 1e9);
}

function groupTable(rates) {
  const ratesOf = (who, metric) => rates.get(who)[metric].map(({ rate }) => rate);
  const contestants = [...rates.keys()];
  const rows = [];
  for (const metric of Object.keys(METRICS)) {
    const peers = contestants.filter(({ isOurs }) => !isOurs);
    const best = Math.max(...peers.map((who) => median(ratesOf(who, metric))));
    for (const who of contestants) {
      const samples = ratesOf(who, metric);
      const middle = median(samples);
      const share = median(rates.get(who)[metric].map((one) => one.share));
      const flash = who.isOurs ? "" : who.flashAttention[metric] ? "on" : "off";
      rows.push([
        metric,
        who.name,
        flash,
        summary(samples),
        who.isOurs ? (middle / best).toFixed(2) : "",
        `${(share * 100).toFixed(0)}%`,
      ]);
    }
  }
  const header = ["metric", "program", "flash attention", "tok/s: median (range)"];
  return table([...header, "÷ best peer", "share of limit"], rows);
}

/** Paired: in each round every variant runs next to its own unsteered one. */
const STEERING_CASES = [
  { name: "1 stream, 1 vector on 1 layer", streams: 1, steering: "one layer" },
  { name: "1 stream, 1 vector on all layers", streams: 1, steering: "all layers" },
  { name: "8 streams, 8 vectors, all layers each", streams: 8, steering: "distinct" },
];

async function measureSteering(ours) {
  const overheads = new Map(STEERING_CASES.map((item) => [item, []]));
  for (let round = 0; round < number("steering-rounds"); round++) {
    for (const item of STEERING_CASES) {
      const batch = batchOf(item.streams);
      const order = round % 2 === 0 ? ["none", item.steering] : [item.steering, "none"];
      const rate = {};
      for (const steering of order) rate[steering] = await ours.decode(batch, steering);
      overheads.get(item).push((rate.none / rate[item.steering] - 1) * 100);
    }
    log(`  steering round ${round + 1}`);
  }
  const rows = STEERING_CASES.map((item) => {
    const samples = overheads.get(item);
    return [
      item.name,
      `${median(samples).toFixed(2)}%`,
      `±${medianDeviation(samples).toFixed(2)}`,
      summary(samples, 2),
    ];
  });
  const header = ["steering", "overhead of decode", "median deviation (points)", "median (range)"];
  return table(header, rows);
}

const AGREEMENT_HEADER = [
  "pair",
  "greedy tokens equal",
  "|Δ logprob| of the top 20: largest",
  "RMS",
];

const closeAll = (contestants) => {
  for (const who of contestants) who.close();
};

/** Only whether both run the same model: seconds instead of minutes. */
async function checkOnly() {
  const rows = [];
  for (const [ours, theirs] of [
    ["bf16", "bf16"],
    ["bf16", "f16"],
    ["int8", "q8_0"],
  ]) {
    const pair = [await openOurs(ours), await openGguf(theirs)];
    rows.push(await checkAgreement(pair[0], pair[1], vocabSize));
    closeAll(pair);
  }
  console.log(table(AGREEMENT_HEADER, rows));
}

async function main() {
  const machine = [];
  log("bf16, f16");
  const ours = await openOurs("bf16");
  const float = [
    ours,
    ...(await openEngineAlone("bf16")),
    await openGguf("bf16"),
    await openGguf("f16"),
  ];
  const agreement = [await checkAgreement(ours, float.at(-2), vocabSize)];
  const floatRates = await measureGroup(float, machine);
  const { systemInfo } = await float.at(-1).describe();
  const { device } = await ours.describe();
  closeAll(float.slice(1));
  const steering = await measureSteering(ours);
  ours.close();

  log("int8, q8_0");
  const oursInt8 = await openOurs("int8");
  const integer = [oursInt8, ...(await openEngineAlone("int8")), await openGguf("q8_0")];
  agreement.push(await checkAgreement(oursInt8, integer.at(-1), vocabSize));
  const integerRates = await measureGroup(integer, machine);
  closeAll(integer);

  const read = summary(machine.map((one) => one.read_gb_per_s));
  const fma = summary(machine.map((one) => one.fma_gflop_per_s));
  const peerVersion = JSON.parse(readFileSync(new URL("package.json", import.meta.url), "utf8"))
    .dependencies["node-llama-cpp"];
  writeReport(
    options.out ?? `bench/results/peer-${options.shape}.md`,
    `${options.shape} beside node-llama-cpp`,
    [
      factList([
        ...facts,
        ["llama-steer", `${device.kind}, ${device.isa}, ${device.threads} threads, KV bf16`],
        ["peer", `node-llama-cpp ${peerVersion}, ${threads} threads, KV f16; ${systemInfo.trim()}`],
        ["measured read bandwidth, GB/s", read],
        ["measured float32 FMA peak, GFLOP/s", fma],
      ]),
      `${rounds} rounds, interleaved; each row is a median over rounds. Decode: greedy, ` +
        `${options.context} tokens of context, ${options.tokens} steps, tok/s over all streams. ` +
        "Ours counts whole steps, sampling included, as events arrive; the peer's counts " +
        "`llama_decode` alone, called through its lowest-level batch interface, with flash " +
        "attention on or off, whichever was faster in a first round. Limit of prefill: the FMA " +
        "peak; of decode: reading every weight once a step at the read bandwidth. Both are measured " +
        "anew before each metric of each round, and the share is the median over rounds.",
      "## The same model",
      table(AGREEMENT_HEADER, agreement),
      "## bf16, f16",
      groupTable(floatRates),
      "## int8, Q8_0",
      groupTable(integerRates),
      "## Steering",
      `${options["steering-rounds"]} rounds; in each, a steered batch beside an unsteered one.`,
      steering,
    ],
  );
}

await (options["agree-only"] ? checkOnly() : main());
