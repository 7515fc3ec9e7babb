// Compiles the CUDA backend for every target architecture, needing neither a GPU nor an installed
// toolkit, and prints the registers and spills of each kernel. Fails when a kernel spills more than a word or two.
//   node scripts/cuda-compile.mjs [--write]     --write keeps the table in bench/results/
import { execFileSync, spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const build = path.join(root, "out", "cuda");
const toolkit = execFileSync(path.join(root, "scripts", "cuda-toolkit.sh"))
  .toString()
  .trim();
const cmake = path.join(root, "out", "cuda-toolkit", "bin", "cmake");
const capacityBytes = 64 << 20;
/** Stores and loads together, in the whole kernel: outside of its loops. */
const toleratedSpillBytes = 16;

const run = (args) => {
  const { status, stdout, stderr } = spawnSync(cmake, args, {
    cwd: root,
    encoding: "utf8",
    maxBuffer: capacityBytes,
  });
  if (status !== 0) {
    process.stderr.write(stdout + stderr);
    process.exit(1);
  }
  return stdout + stderr;
};

run([
  ...["-S", ".", "-B", build, "-G", "Ninja"],
  ...["-DLLAMA_STEER_ADDON=OFF", "-DLLAMA_STEER_CUDA=ON", "-DLLAMA_STEER_BENCH=ON"],
  `-DLLAMA_STEER_CUDA_TOOLKIT=${toolkit}`,
]);
// From scratch: the assembler speaks of what it compiles only.
const log = run([
  "--build",
  build,
  "--target",
  "llama_steer_cuda",
  "bench_cuda_kernels",
  "--clean-first",
  "--parallel",
  "2",
]);

/** Kernel -> architecture -> { registers, spillBytes }. */
const kernels = new Map();
const architectures = new Set();
let entry = null;
let spillBytes = 0;
for (const line of log.split("\n")) {
  const compiling = line.match(/Compiling entry function '(\S+)' for '(\S+)'/);
  const spill = line.match(/(\d+) bytes spill stores, (\d+) bytes spill loads/);
  const used = line.match(/Used (\d+) registers/);
  if (compiling) [, ...entry] = compiling;
  if (spill) spillBytes = Number(spill[1]) + Number(spill[2]);
  if (!used || !entry) continue;
  const [mangled, architecture] = entry;
  const name = execFileSync("c++filt", [mangled])
    .toString()
    .replace(/^void /, "")
    .replace(/llama_steer::cuda::|\(anonymous namespace\)::/g, "")
    .replace(/\([A-Z][\w:]*Params\)\n$/, "")
    .replace(/\((?:int|bool)\)/g, "")
    .trim();
  if (name.startsWith("bench::")) continue;
  if (!kernels.has(name)) kernels.set(name, new Map());
  kernels.get(name).set(architecture, { registers: Number(used[1]), spillBytes });
  architectures.add(architecture);
  entry = null;
}

const columns = [...architectures].sort(
  (a, b) => parseInt(a.slice(3), 10) - parseInt(b.slice(3), 10),
);
const cell = (use) => {
  if (!use) return "";
  return use.spillBytes > 0 ? `${use.registers} (spills ${use.spillBytes} B)` : `${use.registers}`;
};
const table = [
  `| kernel | ${columns.join(" | ")} |`,
  `| --- |${" ---: |".repeat(columns.length)}`,
  ...[...kernels]
    .sort(([a], [b]) => a.localeCompare(b))
    .map(
      ([name, uses]) => `| \`${name}\` | ${columns.map((c) => cell(uses.get(c))).join(" | ")} |`,
    ),
].join("\n");
console.log(table);

if (process.argv.includes("--write")) {
  const compiler = execFileSync(path.join(toolkit, "bin", "nvcc"), ["--version"]).toString();
  const version = compiler.match(/V\d+\.\d+\.\d+/)?.[0];
  writeFileSync(
    path.join(root, "bench", "results", "cuda-registers.md"),
    `# Registers of a thread, by kernel and architecture

\`node scripts/cuda-compile.mjs --write\`, nvcc ${version}. Spills would be named beside the number.

${table}
`,
  );
}
const spilling = [...kernels].filter(([, uses]) =>
  [...uses.values()].some((u) => u.spillBytes > toleratedSpillBytes),
);
for (const [name] of spilling) console.error(`${name} spills registers`);
if (kernels.size === 0) console.error("the compiler reported no kernel");
process.exit(kernels.size > 0 && spilling.length === 0 ? 0 : 1);
