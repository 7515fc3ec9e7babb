// Are the emulated tests worth something? Puts faults of the kinds that GPU code suffers from into a
// copy of the CUDA backend, one at a time, and expects the tests to fail. Needs what the check
// cuda-emulated needs; takes some minutes.
//   node scripts/cuda-mutations.mjs [--write]     --write keeps the table in bench/results/
import { execFileSync, spawnSync } from "node:child_process";
import {
  cpSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const ORDERS = ["forwards", "backwards", "random:1"];
/** The tests of one kernel each, and those of whole steps. */
const PROGRAMS = ["test_cuda_kernels", "test_cuda_model"];
/** Short ones: a fault of these kinds shows at once, or never. */
const ATTENTION = "*Attention*ASequence*:*Attention*LongContext*:*Attention*ChunksOfAPrompt*";
const LINEAR = "*Linear*AsCloseToFloat64*:*Linear*ReadsNothing*";
const SHARED_SLICES = "*Linear*SlicesThatBlocksShare*";
const FUSED = "*Fused*NoSequence*:*Fused*Float64*:*Fused*NanInOneRow*";
const STEPS = "OrderTest.*:Graphs.AReplayedPass*";
const NORM = "*Norm*EveryWidth*:*Norm*SeveralOperations*";

const MUTATIONS = [
  {
    fault: "a barrier is missing: attention weights are read before all warps wrote theirs",
    file: "cuda/kernels/attention_decode.cu",
    find: "  }\n  __syncthreads();\n}\n",
    replace: "  }\n}\n",
    tests: ATTENTION,
  },
  {
    fault: "a barrier is missing: sums of slices are added before all warps wrote theirs",
    file: "cuda/kernels/linear_gemv.h",
    find: "  __syncthreads();\n",
    replace: "",
    tests: LINEAR,
  },
  {
    fault: "a barrier is missing: a stage of the ring is refilled while others read it",
    file: "cuda/kernels/linear_gemm.cu",
    find: "    __syncthreads();  // this stage",
    replace: "    // this stage",
    tests: LINEAR,
  },
  {
    fault: "a barrier is missing: the sum over a block",
    file: "cuda/device/reduce.h",
    find: "    __syncthreads();\n",
    replace: "",
    tests: NORM,
  },
  {
    fault:
      "a race of blocks: the sums of a shared tile are added before the last block left its own",
    file: "cuda/kernels/linear_split.h",
    find: "before + 1 == static_cast<unsigned>(splits)",
    replace: "before == 0",
    tests: SHARED_SLICES,
  },
  {
    fault: "a counter of arrived blocks is not reset for the next launch",
    file: "cuda/kernels/linear_split.h",
    find: "*arrived = 0;",
    replace: "*arrived = static_cast<unsigned>(splits);",
    tests: SHARED_SLICES,
  },
  {
    fault: "an order of addition that depends on who comes last: slices of shared tiles backwards",
    file: "cuda/kernels/linear_split.h",
    find: "partials + i * T::kValues",
    replace: "partials + (i == 0 ? 0 : count - i) * T::kValues",
    tests: SHARED_SLICES,
  },
  {
    fault: "an asynchronous copy is not waited for",
    file: "cuda/kernels/attention_prefill.cu",
    find: "CopyAsyncWait<1>()",
    replace: "CopyAsyncWait<2>()",
    tests: ATTENTION,
  },
  {
    fault: "a read before the kernel before has ended: rows of x, in projections of few rows",
    file: "cuda/kernels/linear_gemv.h",
    find: "  WaitForPrior();\n",
    replace: "",
    tests: STEPS,
    program: "test_cuda_model",
  },
  {
    fault: "a read before the kernel before has ended: rows of x, in projections of many rows",
    file: "cuda/kernels/linear_gemm.cu",
    find: "  WaitForPrior();\n",
    replace: "",
    tests: STEPS,
    program: "test_cuda_model",
  },
  {
    fault: "a read before the kernel before has ended: residual and what is added to it",
    file: "cuda/kernels/residual_steer_norm.cu",
    find: "    WaitForPrior();\n    LoadAndAdd();\n",
    replace: "    LoadAndAdd();\n    WaitForPrior();\n",
    tests: STEPS,
    program: "test_cuda_model",
  },
  {
    fault: "a read before the kernel before has ended: splits of attention, in their merge",
    file: "cuda/kernels/attention_decode.cu",
    find: "  WaitForPrior();\n  if (row >=",
    replace: "  if (row >=",
    tests: STEPS,
    program: "test_cuda_model",
  },
  {
    fault: "a wrong index into the block table: the same pages for every tile",
    file: "cuda/kernels/attention_tile.h",
    find: "block_table[(first_token + token) / kPageTokens]",
    replace: "block_table[token / kPageTokens]",
    tests: ATTENTION,
  },
  {
    fault: "a wrong index into the block table: keys and values go to the page before",
    file: "cuda/step_tables.cc",
    find: "span.block_table_offset + page)];",
    replace: "span.block_table_offset + (page > 0 ? page - 1 : 0))];",
    tests: ATTENTION,
  },
  {
    fault: "a wrong index into the pages: values go where keys lie",
    file: "cuda/kernels/linear_gemv_qkv.cu",
    find: "which == kValues ? key + kPageTokens * head_size : key",
    replace: "key",
    tests: FUSED,
  },
  {
    fault: "a row of no sequence is not left out of the pages",
    file: "cuda/kernels/linear_gemv_qkv.cu",
    find: "    if (block < 0) return;  // belongs to no sequence\n",
    replace: "",
    tests: FUSED,
  },
  {
    fault: "a wrong column: what gate and up give is stored by outputs of the tile",
    file: "cuda/kernels/linear_gemv_gated.cu",
    find: "const int64_t col = parts[0].first_output + output;",
    replace: "const int64_t col = output;",
    tests: FUSED,
  },
  {
    fault: "a read out of bounds: rows of a weight past the last one",
    file: "cuda/kernels/linear_gemv.h",
    find: "first + 8 <= last_output ? first + 8 : last_output",
    replace: "first + 8",
    tests: LINEAR,
  },
  {
    fault: "a read out of bounds: one row too many in a tile, of a weight and of x",
    file: "cuda/kernels/linear_gemm.cu",
    find: "row < rows);",
    replace: "row <= rows);",
    tests: LINEAR,
  },
];

const run = (command, args, options = {}) => {
  const result = spawnSync(command, args, { encoding: "utf8", maxBuffer: 64 << 20, ...options });
  if (result.status === 0) return;
  process.stderr.write(result.stdout + result.stderr);
  throw new Error(`${command} ${args.join(" ")} failed`);
};

const toolkit = execFileSync(path.join(root, "scripts", "cuda-toolkit.sh"))
  .toString()
  .trim();
const optionsFor = (folder) => [
  ...["-G", "Ninja", "-DLLAMA_STEER_ADDON=OFF", "-DLLAMA_STEER_CUDA=OFF"],
  ...[
    "-DLLAMA_STEER_CUDA_EMULATED=ON",
    `-DLLAMA_STEER_CUDA_TOOLKIT=${toolkit.replace(root, folder)}`,
  ],
  "-DLLAMA_STEER_SANITIZE=address,undefined",
];
const build = (folder, target) =>
  run("cmake", ["--build", folder, "--parallel", "2", "--target", target]);

const scratch = mkdtempSync(path.join(root, "out", "mutations-"));
process.on("exit", () => rmSync(scratch, { recursive: true, force: true }));
const copy = path.join(scratch, "source");
/** As the repository has it: a compiler cache then knows the files that are not changed. */
const copyBuild = path.join(copy, "out", "native-address");

/** The tests of the repository, beside which the plugin of the copy is put. */
function prepare() {
  const tests = path.join(root, "out", "native-address");
  run("cmake", ["-S", root, "-B", tests, "-DLLAMA_STEER_TESTS=ON", ...optionsFor(root)]);
  for (const program of PROGRAMS) {
    build(tests, program);
    cpSync(path.join(tests, program), path.join(scratch, program));
  }
  for (const part of ["CMakeLists.txt", "cmake", "addon", "cuda"]) {
    cpSync(path.join(root, part), path.join(copy, part), { recursive: true });
  }
  mkdirSync(path.join(copy, "out"));
  symlinkSync(path.join(root, "out", "cuda-toolkit"), path.join(copy, "out", "cuda-toolkit"));
  run("cmake", ["-S", copy, "-B", copyBuild, ...optionsFor(copy)]);
}

function buildPlugin() {
  build(copyBuild, "llama_steer_cuda_emulated");
  const name = "libllama_steer_cuda.so";
  cpSync(path.join(copyBuild, name), path.join(scratch, name));
}

/** How the tests find out, in the first order of threads in which they do; null: they pass. */
function verdict(filter, program = PROGRAMS[0]) {
  for (const order of ORDERS) {
    const { status, stdout, stderr } = spawnSync(
      path.join(scratch, program),
      [`--gtest_filter=${filter}`, "--gtest_fail_fast"],
      {
        encoding: "utf8",
        maxBuffer: 64 << 20,
        env: { ...process.env, LLAMA_STEER_EMULATOR_ORDER: order },
      },
    );
    if (status === 0) continue;
    const sanitizer = stderr.match(/ERROR: (AddressSanitizer: [\w-]+)|(runtime error: .*)/);
    const test = stdout.match(/\[ RUN +\] (\S+)(?![\s\S]*\[ RUN)/)?.[1] ?? "the start";
    return { order, test, how: sanitizer?.[1] ?? sanitizer?.[2] ?? "wrong values" };
  }
  return null;
}

prepare();
buildPlugin();
for (const [filter, program] of new Map(MUTATIONS.map((m) => [m.tests, m.program]))) {
  const failure = verdict(filter, program);
  if (failure) throw new Error(`without any fault ${failure.test} fails: ${failure.how}`);
}

const rows = [];
for (const { fault, file, find, replace, tests, program } of MUTATIONS) {
  const target = path.join(copy, file);
  const source = readFileSync(target, "utf8");
  if (source.split(find).length !== 2) throw new Error(`${file} does not hold once: ${find}`);
  writeFileSync(target, source.replace(find, replace));
  buildPlugin();
  const found = verdict(tests, program);
  writeFileSync(target, source);
  rows.push({ fault, file, found });
  const text = found ? `${found.how} in ${found.test} (${found.order})` : "NOT FOUND";
  console.log(`${fault} [${file}]: ${text}`);
}

if (process.argv.includes("--write")) {
  const lines = rows.map(({ fault, file, found }) => {
    const cells = found ? `\`${found.test}\`, ${found.order} | ${found.how}` : "**none** | –";
    return `| ${fault} | \`${file}\` | ${cells} |`;
  });
  writeFileSync(
    path.join(root, "bench", "results", "cuda-mutations.md"),
    `# Faults that the emulated tests find

\`node scripts/cuda-mutations.mjs --write\`: each fault alone in a copy of the backend; the first test that
fails, and the order of threads under which it does.

| fault | file | found by | as |
| --- | --- | --- | --- |
${lines.join("\n")}
`,
  );
}
const missed = rows.filter(({ found }) => !found).length;
console.log(`${rows.length - missed} found, ${missed} not found`);
process.exit(missed === 0 ? 0 : 1);
