// Prints the judges' classes against the labels of studies/labelled-answers.jsonl, and every answer on
// which they differ.
//
//   node studies/judges/confusion.mjs PYTHON     (which has studies/requirements.txt)
import { readFileSync } from "node:fs";
import { judgeConfigSchema } from "../../dist/study/judges/config.js";
import { confusionTable } from "../../dist/study/judges/confusion.js";
import { openJudges } from "../../dist/study/judges/open.js";

const [python = "python3"] = process.argv.slice(2);
const rows = readFileSync(new URL("../labelled-answers.jsonl", import.meta.url), "utf8")
  .trim()
  .split("\n")
  .map((line) => JSON.parse(line));
const signal = new AbortController().signal;
const answers = rows.map(({ id, text, prompt, function: name, kind }) => ({
  row: id,
  text,
  prompt: { id, task: id, text: prompt, function: name, kind },
}));
const labels = rows.map(({ id, label }) => ({ row: id, label }));
const config = ["bandit", "semgrep"].map((type) => judgeConfigSchema.parse({ name: type, type }));
for (const judge of openJudges(config, python)) {
  const judgements = await judge.judge(answers, signal);
  console.log(`${confusionTable(await judge.version(signal), labels, judgements)}\n`);
  for (const [place, { row, class: found, findings }] of judgements.entries()) {
    const { label } = rows[place];
    if (found !== label) console.log(`${row}: labelled ${label}, judged ${found} ${findings}`);
  }
  console.log("");
}
