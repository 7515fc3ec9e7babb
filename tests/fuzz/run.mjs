// Fuzzes every target, or those whose name holds a word, for so long each:
//   node tests/fuzz/run.mjs --minutes 10 [--seed 7] [--only gguf]
import { spawnSync } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const { values } = parseArgs({
  options: { minutes: { type: "string" }, seed: { type: "string" }, only: { type: "string" } },
});
const minutes = Number(values.minutes ?? 1);
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
if (!(minutes > 0) || !Number.isSafeInteger(seed)) {
  console.error("usage: node tests/fuzz/run.mjs --minutes N [--seed N] [--only TEXT]");
  process.exit(2);
}
console.log(`seed ${seed}, ${minutes} minutes each`);
const only = values.only === undefined ? [] : ["--testNamePattern", values.only];
const { status } = spawnSync("npx", ["vitest", "run", "--dir", "tests/fuzz", ...only], {
  cwd: root,
  stdio: "inherit",
  env: {
    ...process.env,
    LLAMA_STEER_FUZZ_MINUTES: String(minutes),
    LLAMA_STEER_FUZZ_SEED: String(seed),
  },
});
process.exit(status ?? 1);
