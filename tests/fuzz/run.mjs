// Fuzzes every target, or those whose name begins with a word, for so long each:
//   node tests/fuzz/run.mjs --minutes 10 [--seed 7] [--target gguf] [--sanitize]
// --sanitize: with the addon built under AddressSanitizer and UndefinedBehaviorSanitizer, in
// out/addon-address. Only checkpoint and wire give bytes to C++; the importers are TypeScript.
import { execFileSync, spawnSync } from "node:child_process";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const { values } = parseArgs({
  options: {
    minutes: { type: "string", default: "1" },
    seed: { type: "string" },
    target: { type: "string" },
    sanitize: { type: "boolean", default: false },
  },
});
const minutes = Number(values.minutes);
const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 31));
if (!(minutes > 0) || !Number.isSafeInteger(seed)) {
  console.error(
    "usage: node tests/fuzz/run.mjs --minutes N [--seed N] [--target NAME] [--sanitize]",
  );
  process.exit(2);
}

/** Builds the addon under sanitizers; what a process needs to load it. */
function sanitized() {
  const build = path.join(root, "out", "addon-address");
  const cmake = (...args) => execFileSync("cmake", args, { cwd: root, stdio: "inherit" });
  cmake("-S", ".", "-B", build, "-G", "Ninja", "-DLLAMA_STEER_SANITIZE=address,undefined");
  cmake("--build", build, "--parallel", "2", "--target", "llama_steer");
  // Node itself is not built with them: their libraries must be there before it.
  const runtime = (name) => execFileSync("c++", [`-print-file-name=${name}`], { encoding: "utf8" });
  return {
    LLAMA_STEER_ADDON_PATH: path.join(build, "llama_steer.node"),
    LD_PRELOAD: ["libasan.so", "libubsan.so"].map((name) => runtime(name).trim()).join(" "),
    // Node frees nothing at its end. Memory that cannot be had is an error that the engine reports.
    ASAN_OPTIONS: "detect_leaks=0:allocator_may_return_null=1:quarantine_size_mb=16",
    UBSAN_OPTIONS: "print_stacktrace=1:halt_on_error=1",
  };
}

console.log(`seed ${seed}, ${minutes} minutes each`);
const only = values.target === undefined ? [] : ["--testNamePattern", `^${values.target}`];
const { status } = spawnSync("npx", ["vitest", "run", "--dir", "tests/fuzz", ...only], {
  cwd: root,
  stdio: "inherit",
  env: {
    ...process.env,
    ...(values.sanitize ? sanitized() : {}),
    LLAMA_STEER_FUZZ_MINUTES: String(minutes),
    LLAMA_STEER_FUZZ_SEED: String(seed),
  },
});
process.exit(status ?? 1);
