// The programs around the CUDA benches: turns and rounds, and the page that is made of figures.
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { afterEach, beforeEach, expect, test } from "vitest";

const BENCH = path.resolve(import.meta.dirname, "../../../bench/cuda");
const run = promisify(execFile);
const environment = { ...process.env, PYTHONDONTWRITEBYTECODE: "1" };

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "cuda-bench-"));
});
afterEach(() => rm(folder, { recursive: true }));

const put = (name: string, content: unknown) =>
  writeFile(
    path.join(folder, name),
    typeof content === "string" ? content : JSON.stringify(content),
  );

async function report(): Promise<string> {
  const page = path.join(folder, "page.md");
  await run("python3", [path.join(BENCH, "report.py"), folder, "--report", page], {
    env: environment,
  });
  return readFile(page, "utf8");
}

/** Cells of the first row that begins so. */
function row(page: string, begin: string): string[] {
  const line = page.split("\n").find((text) => text.startsWith(`| ${begin} |`));
  return (line ?? "").split("|").map((cell) => cell.trim());
}

const decode = (streams: number, context: number, steering = "none") =>
  `decode streams=${streams} context=${context} tokens=64 steering=${steering} prompts=same`;

interface Sample {
  round: number;
  contestant: string;
  order: string;
  tokens?: number;
  seconds?: number;
  error?: string;
}

/** A step of `ms`, for each round. */
const steps = (contestant: string, order: string, streams: number, ms: number[]): Sample[] =>
  ms.map((each, round) => ({
    round,
    contestant,
    order,
    tokens: 63 * streams,
    seconds: (63 * each) / 1e3,
  }));

const prompt = (contestant: string, order: string, ms: number[]): Sample[] =>
  ms.map((each, round) => ({ round, contestant, order, tokens: 1, seconds: each / 1e3 }));

const group = (name: string, contestants: string[], samples: Sample[]) => ({
  group: name,
  shape: "llama-3.1-8b",
  rounds: 3,
  contestants: Object.fromEntries(contestants.map((who) => [who, { mode: "compile" }])),
  samples,
});

test("the limits table puts medians beside floors of this GPU and beside PyTorch", async () => {
  await put("machine.json", { gpu: "NVIDIA Test", driver: "1.2", nvcc: "V13", commit: "abc" });
  await put("limits.json", { copy_gbps: 4000, dense_tflops: 800 });
  await put(
    "engine-forward.json",
    group(
      "forward",
      ["ours", "pytorch"],
      [
        ...steps("ours", decode(1, 128), 1, [4.0, 9.0, 3.9]),
        ...steps("pytorch", decode(1, 128), 1, [5.0, 5.0, 5.0]),
        ...steps("ours", decode(64, 1024), 64, [8.0, 8.0, 8.0]),
        ...prompt("ours", "prefill tokens=8192", [180, 190, 200]),
      ],
    ),
  );
  const page = await report();
  expect(page).toContain("# The CUDA backend on NVIDIA Test");
  // 15,009,849,344 bytes of weights and 160 tokens of 131,072 bytes, at 4 TB/s.
  expect(row(page, "decode, 1 stream, context 128").slice(2, -1)).toEqual([
    "3.76 ms",
    "≥ 90% of the floor",
    "4.00 ms",
    "250 tokens/s",
    "94%",
    "5.00 ms",
    "met",
  ]);
  // 64 times 1056 tokens more: 5.97 ms of 8.
  expect(row(page, "decode, 64 streams, context 1024").slice(2, -1)).toEqual([
    "5.97 ms",
    "≥ 80% of the floor",
    "8.00 ms",
    "8000 tokens/s",
    "75%",
    "not measured",
    "**missed**",
  ]);
  expect(row(page, "prefill 8192").slice(2, 5)).toEqual([
    "164.93 ms",
    "≥ 75% of the floor",
    "190.00 ms",
  ]);
});

test("steering and capture are ratios within a round", async () => {
  // The machine slows down from round to round; the ratio does not.
  const slower = [10, 12, 20];
  await put(
    "engine-steering.json",
    group(
      "steering",
      ["ours"],
      [
        ...steps("ours", decode(64, 1024), 64, slower),
        ...steps(
          "ours",
          decode(64, 1024, "distinct"),
          64,
          slower.map((ms) => ms * 1.004),
        ),
        { round: 0, contestant: "ours", order: decode(64, 1024, "one-layer"), error: "broken" },
      ],
    ),
  );
  await put(
    "engine-capture.json",
    group(
      "capture",
      ["ours"],
      [
        ...prompt("ours", "prefill tokens=512", [10, 20, 10]),
        ...prompt("ours", "capture tokens=512 dtype=f32", [12, 24, 12]),
      ],
    ),
  );
  const page = await report();
  expect(row(page, "steering, every request distinct, all layers").slice(3, 5)).toEqual([
    "+0.40% ± 0.00",
    "met",
  ]);
  expect(row(page, "capture of all layers, float32").slice(3, 5)).toEqual([
    "+20.00% ± 0.00",
    "**missed**",
  ]);
  expect(page).not.toContain("one-layer");
});

test("attention, kernels, tests and checkers get their tables", async () => {
  const limits = { copy_gbps: 3000, mma_tflops: 600, dense_tflops: 790 };
  const kernel = (name: string, variant: string, tflops: number) => ({
    ...{ kernel: name, variant, tflops, us: 10, gbps: 100, flop: 1, share: 0.5 },
  });
  const run1 = { limits, cases: [kernel("AttentionPrefill", "rows=8192 context=0", 500)] };
  await put("kernels.json", run1);
  await put("attention-ours-1.json", run1);
  await put("attention-pytorch-1.json", {
    rows: [
      { kind: "prefill", backend: "cudnn", tokens: 8192, tflops: 400 },
      { kind: "prefill", backend: "flash", tokens: 8192, error: "no kernel" },
    ],
  });
  await put(
    "tests-parallel.xml",
    '<testsuite tests="7" failures="1" skipped="0"><testcase name="A.B" status="fail"/></testsuite>',
  );
  await put("tests-alone.xml", '<testsuite tests="2" failures="0" skipped="0"/>');
  await put(
    "sanitize.jsonl",
    [
      '{"tool": "memcheck", "program": "p", "rc": 9, "summary": "ERROR SUMMARY: 3 errors"}',
      '{"tool": "memcheck", "program": "p", "rc": 0, "summary": "ERROR SUMMARY: 0 errors"}',
    ].join("\n"),
  );
  await put("memory.json", { shape: "llama-3.1-8b", kv_blocks: 1024, weight_bytes: 2 ** 34 });
  const page = await report();
  expect(page).toContain(
    "16.0 GiB of weights the engine made 1024 KV blocks of what was free: 16384 tokens, 2.0 GiB.",
  );
  expect(row(page, "attention forward, causal, GQA, 8192 tokens").slice(3, 5)).toEqual([
    "1.25 of its speed",
    "met",
  ]);
  expect(row(page, "8192").slice(2, 5)).toEqual(["500.0", "400.0", "not measured"]);
  expect(row(page, "`AttentionPrefill`").slice(2, 4)).toEqual(["rows=8192 context=0", "10.00"]);
  expect(page).toContain("9 tests, 1 failed, 0 skipped");
  expect(page).toContain("Failed: `A.B`.");
  expect(row(page, "memcheck")).toContain("ERROR SUMMARY: 0 errors");
});

test("what was not measured is said to be so", async () => {
  const page = await report();
  for (const title of [
    "limits table",
    "Steering",
    "Capture",
    "CUDA graphs",
    "Kernels that overlap",
    "Steps ahead",
    "Memory",
    "Kernels",
  ]) {
    expect(page).toMatch(new RegExp(`## (The )?${title}\n`));
  }
  expect(page.match(/not measured/g)?.length).toBeGreaterThan(10);
  await expect(
    run("python3", [path.join(BENCH, "report.py"), path.join(folder, "absent")]),
  ).rejects.toThrow("no such folder");
});

const FAKE = `#!/usr/bin/env python3
import json, os, sys
me = os.environ.get("LLAMA_STEER_CUDA_GRAPHS", "on")
print(json.dumps({"device": "fake", "argv": sys.argv[1:]}), flush=True)
for line in sys.stdin:
    line = line.strip()
    with open(os.path.join(os.path.dirname(__file__), "log"), "a") as log:
        log.write(me + " " + line + "\\n")
    streams = int(line.split("streams=")[1].split()[0])
    print(json.dumps({"order": line, "tokens": streams, "seconds": 0.001}), flush=True)
`;

test("what is compared takes turns, and who begins changes", async () => {
  const bench = path.join(folder, "bench_engine");
  await writeFile(bench, FAKE, { mode: 0o755 });
  const out = path.join(folder, "engine-graphs.json");
  const options = ["--bench", bench, "--shape", "tiny", "--rounds", "2", "--out", out];
  await run("python3", [path.join(BENCH, "engine.py"), "graphs", ...options], {
    env: environment,
  });
  const log = (await readFile(path.join(folder, "log"), "utf8")).trim().split("\n");
  const turns = log.map((line) => line.split(" ").slice(0, 3).join(" "));
  const [one, three] = ["decode streams=1", "decode streams=3"];
  const even = [`on ${one}`, `off ${one}`, `on ${three}`, `off ${three}`];
  const odd = [`off ${three}`, `on ${three}`, `off ${one}`, `on ${one}`];
  // Two rounds to warm up, then those that count.
  expect(turns).toEqual([...even, ...odd, ...even, ...odd]);
  const result = JSON.parse(await readFile(out, "utf8"));
  expect(result.samples).toHaveLength(8);
  expect(result.contestants.graphs.argv).toContain("--prefix-cache");
  const page = await report();
  expect(row(page, "decode, 3 streams, context 40, a step").slice(2, 4)).toEqual([
    "1.000 ms",
    "1.000 ms",
  ]);
});
