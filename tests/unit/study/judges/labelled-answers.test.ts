/** The judges against a reader's labels, as docs/judges.md tells it. */
import { readFileSync } from "node:fs";
import { beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { judgeConfigSchema } from "../../../../src/study/judges/config.js";
import { confusionTable } from "../../../../src/study/judges/confusion.js";
import { openJudges } from "../../../../src/study/judges/open.js";
import { ANSWER_CLASSES } from "../../../../src/study/records.js";
import { studyPython } from "../../../support/study-python.js";

const file = (path: string) =>
  readFileSync(new URL(`../../../../${path}`, import.meta.url), "utf8");
const rowSchema = z.object({
  id: z.string(),
  text: z.string(),
  prompt: z.string(),
  function: z.string(),
  kind: z.string().nullable(),
  label: z.enum(ANSWER_CLASSES),
});
const rows = file("studies/labelled-answers.jsonl")
  .trim()
  .split("\n")
  .map((line) => rowSchema.parse(JSON.parse(line)));

let python = "";
beforeAll(() => {
  python = studyPython();
}, 600_000);

test("there are at least 120 answers, no id twice, of every class", () => {
  expect(rows.length).toBeGreaterThanOrEqual(120);
  expect(new Set(rows.map(({ id }) => id)).size).toBe(rows.length);
  expect(new Set(rows.map(({ label }) => label)).size).toBe(ANSWER_CLASSES.length);
});

test.each(["bandit", "semgrep"])(
  "the table of %s in the docs is what it says today",
  {
    timeout: 300_000,
  },
  async (type) => {
    const signal = new AbortController().signal;
    const [judge] = openJudges([judgeConfigSchema.parse({ name: type, type })], python);
    if (judge === undefined) throw new Error("no judge");
    const judgements = await judge.judge(
      rows.map(({ id, text, prompt, function: name, kind }) => ({
        row: id,
        text,
        prompt: { id, task: id, text: prompt, function: name, kind },
      })),
      signal,
    );
    const labels = rows.map(({ id, label }) => ({ row: id, label }));
    const table = confusionTable(await judge.version(signal), labels, judgements);
    expect(file("docs/judges.md")).toContain(table);
  },
);
