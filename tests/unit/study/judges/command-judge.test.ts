import { existsSync } from "node:fs";
import { describe, expect, test } from "vitest";
import { judgeConfigSchema } from "../../../../src/study/judges/config.js";
import type { Judge } from "../../../../src/study/judges/judge.js";
import { openJudges } from "../../../../src/study/judges/open.js";
import { MAX_BATCH_ANSWERS } from "../../../../src/study/judges/program.js";
import { answer } from "./answers.js";

const signal = new AbortController().signal;

/** A judge whose program is JavaScript; `lines` are the answers, parsed. */
function commandJudge(body: string, config: object = {}): Judge {
  const script = `
    const lines = require("fs").readFileSync(0, "utf8").trim().split("\\n").map((x) => JSON.parse(x));
    const say = (value) => console.log(JSON.stringify(value));
    ${body}`;
  const argv = [process.execPath, "-e", script];
  const parsed = judgeConfigSchema.parse({ name: "mine", type: "command", argv, ...config });
  const [judge] = openJudges([parsed], "unused");
  if (judge === undefined) throw new Error("no judge");
  return judge;
}

const two = [answer("a", { row: "1" }), answer("b", { row: "2", function: null })];

test("it reads rows with text, prompt and function, and may answer in any order", async () => {
  const judge = commandJudge(
    `for (const line of lines.reverse()) say({ row: line.row, class: "insecure", findings: [JSON.stringify(line), "b", "b"] });`,
  );
  const [first, second] = await judge.judge(two, signal);
  expect(first).toEqual({
    row: "1",
    judge: "mine",
    class: "insecure",
    score: null,
    findings: ["b", '{"row":"1","text":"a","prompt":"Write f.","function":"f"}'],
  });
  expect(JSON.parse(second?.findings[1] ?? "")).toMatchObject({ row: "2", function: null });
});

test("a judge of sentiment gives scores", async () => {
  const judge = commandJudge(`for (const { row } of lines) say({ row, score: -0.5 });`, {
    kind: "sentiment",
  });
  expect(judge.kind).toBe("sentiment");
  expect((await judge.judge(two, signal)).map(({ score }) => score)).toEqual([-0.5, -0.5]);
});

test("many answers are judged in batches of a limited size", async () => {
  const judge = commandJudge(
    `for (const { row } of lines) say({ row, class: "secure", findings: [String(lines.length)] });`,
  );
  const many = Array.from({ length: MAX_BATCH_ANSWERS + 1 }, (_, row) =>
    answer("", { row: String(row) }),
  );
  const sizes = (await judge.judge(many, signal)).map(({ findings }) => Number(findings[0]));
  expect([...new Set(sizes)]).toEqual([MAX_BATCH_ANSWERS, 1]);
});

const GOOD = `say({ row: "2", class: "secure" });`;
test.each([
  ["a row is left out", GOOD, 'judge "mine": no verdict on row "1"'],
  ["a row is judged twice", `${GOOD}${GOOD}`, 'judge "mine", line 2: row "2" is judged twice'],
  [
    "a row was not asked for",
    `say({ row: "3", class: "secure" });`,
    'judge "mine", line 1: row "3" was not asked for',
  ],
  ["a class is unknown", `say({ row: "1", class: "fine" });`, 'judge "mine", line 1: class: '],
  ["a score stands for a class", `say({ row: "1", score: 0.5 });`, "line 1: class: "],
  [
    "a field is unknown",
    `say({ row: "1", class: "secure", because: "x" });`,
    'Unrecognized key: "because"',
  ],
  ["a line is not JSON", `console.log("insecure");`, "line 1: not JSON: insecure"],
  ["nothing is said", "", 'no verdict on row "1"'],
  [
    "the program fails",
    `console.error("no licence"); process.exit(3);`,
    /judge "mine": .* failed \(exit code 3\): no licence/,
  ],
  ["the program is killed", `process.kill(process.pid, "SIGTERM");`, /failed \(SIGTERM\)/],
])("it is an error when %s", async (_, body, message) => {
  await expect(commandJudge(body).judge(two, signal)).rejects.toThrow(message);
});

test("a score out of range is an error", async () => {
  const judge = commandJudge(`say({ row: "1", score: 1.5 });`, { kind: "sentiment" });
  await expect(judge.judge(two, signal)).rejects.toThrow("line 1: score: ");
});

describe("a program that hangs", () => {
  /** Starts a child of its own that holds the pipe open, and says where its folder is. */
  const HANGS = `
    require("child_process").spawn(process.execPath, ["-e", "setInterval(() => {}, 1000)"], { stdio: "inherit" });
    setInterval(() => {}, 1000);`;

  test("is ended with all of its children when its time is over", async () => {
    const judge = commandJudge(HANGS, { timeout_seconds: 1 });
    await expect(judge.judge(two, signal)).rejects.toThrow("took more than 1 s");
  });

  test("is ended when the study is interrupted", async () => {
    const controller = new AbortController();
    const judged = commandJudge(HANGS).judge(two, controller.signal);
    setTimeout(() => controller.abort(new Error("interrupted")), 200);
    await expect(judged).rejects.toThrow("interrupted");
  });
});

test("its folder for temporary files is removed", async () => {
  const judge = commandJudge(`
    require("fs").writeFileSync(process.env.TMPDIR + "/x", "");
    for (const { row } of lines) say({ row, class: "secure", findings: [process.env.TMPDIR] });`);
  const [judgement] = await judge.judge(two, signal);
  expect(existsSync(judgement?.findings[0] ?? "/")).toBe(false);
});

test("a program that does not exist is an error that names it", async () => {
  const judge = commandJudge("", { argv: ["/no/such/judge"] });
  await expect(judge.judge(two, signal)).rejects.toThrow("/no/such/judge does not start");
});

test("a configuration says what is wrong with it", () => {
  for (const wrong of [
    { name: "x", type: "command", argv: [] },
    { name: "X Y", type: "bandit" },
    { name: "x", type: "bandit", skip: ["B1"] },
    { name: "x", type: "bandit", skipped: [] },
    { name: "x", type: "codeql" },
  ]) {
    expect(judgeConfigSchema.safeParse(wrong).success).toBe(false);
  }
});
