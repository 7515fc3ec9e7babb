// Every check of the project, one after the other; see ./check. Arguments pick steps by name.
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const reports = path.join(root, "out", "reports");

const run = (command, args, env = {}) =>
  spawnSync(command, args, { cwd: root, stdio: "inherit", env: { ...process.env, ...env } })
    .status === 0;

/** What a command prints, trimmed; null when it fails. */
const output = (command, args) => {
  const options = { cwd: root, encoding: "utf8", stdio: ["ignore", "pipe", "inherit"] };
  const { status, stdout } = spawnSync(command, args, options);
  return status === 0 ? stdout.trim() : null;
};

/** A command that passes or fails as one. */
const one = (command, args) => () => {
  const passed = run(command, args);
  return { passed: passed ? 1 : 0, failed: passed ? 0 : 1 };
};

/** A count of at least one failure when the runner itself broke. */
const counted = (ok, passed, failed) =>
  ok && passed > 0 && failed === 0 ? { passed, failed } : { passed, failed: Math.max(failed, 1) };

const vitest =
  (room, name = room, files = [], env = {}) =>
  () => {
    const report = path.join(reports, `vitest-${name}.json`);
    rmSync(report, { force: true });
    const ok = run(
      "npx",
      [
        "vitest",
        "run",
        ...files,
        "--dir",
        `tests/${room}`,
        "--reporter=default",
        "--reporter=json",
        `--outputFile.json=${report}`,
      ],
      env,
    );
    if (!existsSync(report)) return counted(false, 0, 1);
    const { numPassedTests, numFailedTests } = JSON.parse(readFileSync(report, "utf8"));
    return counted(ok, numPassedTests, numFailedTests);
  };

/**
 * What LeakSanitizer says when it crashes itself, after a test has passed: on some layouts of memory it
 * trips over the thread-local storage of a library that has been loaded at run time. Such tests, and no
 * others, run once more without its look at that storage.
 */
const LEAK_CHECK_CRASHED = "LeakSanitizer has encountered a fatal error";

/**
 * Builds with plain CMake (no npm) in out/`folder` and runs the native tests: all, or those of some
 * `targets` and of one `label`. Steps that share a folder share what they compile.
 */
const native =
  (name, cmakeOptions, { folder: place = name, targets = [], label } = {}) =>
  () => {
    const folder = `out/${place}`;
    const report = path.join(reports, `${name}.xml`);
    rmSync(report, { force: true });
    const configure = ["-S", ".", "-B", folder, "-G", "Ninja", "-DLLAMA_STEER_TESTS=ON"];
    const build = ["--build", folder, "--parallel", "2"];
    if (targets.length > 0) build.push("--target", ...targets);
    const built = run("cmake", [...configure, ...cmakeOptions]) && run("cmake", build);
    if (!built) return counted(false, 0, 1);
    const ok = run("ctest", [
      "--test-dir",
      folder,
      ...(label ? ["--label-regex", label] : []),
      "--output-on-failure",
      "--parallel",
      "2",
      "--output-junit",
      report,
    ]);
    if (!existsSync(report)) return counted(false, 0, 1);
    const text = readFileSync(report, "utf8");
    const attribute = (key) => Number(text.match(`${key}="(\\d+)"`)?.[1]);
    const failed = attribute("failures");
    const ran = attribute("tests") - attribute("skipped");
    if (failed > 0 && text.split(LEAK_CHECK_CRASHED).length - 1 === failed) {
      const again = ["--test-dir", folder, "--rerun-failed", "--output-on-failure"];
      if (run("ctest", again, { LSAN_OPTIONS: "use_tls=0" })) return counted(true, ran, 0);
    }
    return counted(ok, ran - failed, failed);
  };

const SANITIZED_ADDRESS = ["-DLLAMA_STEER_ADDON=OFF", "-DLLAMA_STEER_SANITIZE=address,undefined"];

/**
 * The CUDA backend on the emulator, with the sanitizers: NVIDIA's headers, no GPU, no nvcc. The engine
 * is that of native-address.
 */
const emulated = () => {
  const toolkit = output("scripts/cuda-toolkit.sh", []);
  if (toolkit === null) return counted(false, 0, 1);
  return native(
    "cuda-emulated",
    [
      ...SANITIZED_ADDRESS,
      "-DLLAMA_STEER_CUDA=OFF",
      "-DLLAMA_STEER_CUDA_EMULATED=ON",
      `-DLLAMA_STEER_CUDA_TOOLKIT=${toolkit}`,
    ],
    {
      folder: "native-address",
      targets: ["kernels", "model", "engine", "emulator", "bench"].map((t) => `test_cuda_${t}`),
      label: "cuda",
    },
  )();
};

/** The goldens of transformers once more, on the CUDA backend over the emulator. */
const emulatedParity = () => {
  const addon = output("node", ["scripts/emulated-addon.mjs"]);
  if (addon === null) return counted(false, 0, 1);
  return vitest("parity", "cuda-parity", ["parity.test.ts"], {
    LLAMA_STEER_TEST_DEVICE: "cuda",
    LLAMA_STEER_ADDON_PATH: addon,
  })();
};

const STEPS = {
  biome: one("npx", ["biome", "ci", "."]),
  "buf-lint": one("npx", ["buf", "lint"]),
  "buf-breaking": one("scripts/check-breaking.sh", []),
  imports: one("node", ["scripts/check-imports.mjs"]),
  "clang-format": one("scripts/format-native.sh", ["--check"]),
  types: one("npm", ["run", "--silent", "typecheck"]),
  "node-gyp": one("npx", ["node-gyp", "rebuild"]),
  unit: vitest("unit"),
  rpc: vitest("rpc"),
  parity: vitest("parity"),
  deploy: vitest("deploy"),
  browser: vitest("browser"),
  fuzz: vitest("fuzz"),
  native: native("native", ["-DLLAMA_STEER_BENCH=ON"]),
  "native-address": native("native-address", [
    ...SANITIZED_ADDRESS,
    "-DLLAMA_STEER_CUDA_EMULATED=OFF",
  ]),
  "cuda-emulated": emulated,
  "native-thread": native("native-thread", [
    "-DLLAMA_STEER_ADDON=OFF",
    "-DLLAMA_STEER_SANITIZE=thread",
  ]),
  "cuda-parity": emulatedParity,
  "cuda-compile": one("node", ["scripts/cuda-compile.mjs"]),
  quickstart: one("./quickstart", []),
};

const chosen = process.argv.slice(2);
const unknown = chosen.filter((name) => !(name in STEPS));
if (unknown.length > 0) {
  console.error(`unknown step: ${unknown.join(", ")}; there are: ${Object.keys(STEPS).join(", ")}`);
  process.exit(2);
}

mkdirSync(reports, { recursive: true });
const rows = [];
for (const [name, step] of Object.entries(STEPS)) {
  if (chosen.length > 0 && !chosen.includes(name)) continue;
  console.log(`\n=== ${name}`);
  const start = process.hrtime.bigint();
  const result = step();
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  rows.push({ name, ...result, seconds: Math.round(seconds) });
}
console.log("");
console.table(rows);
const total = (key) => rows.reduce((sum, row) => sum + row[key], 0);
console.log(`${total("passed")} passed, ${total("failed")} failed`);
process.exit(total("failed") === 0 ? 0 : 1);
