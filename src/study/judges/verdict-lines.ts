/** The JSON lines that a judging program reads and writes, checked strictly. */
import { z } from "zod";
import { ANSWER_CLASSES, type Judgement } from "../records.js";
import type { JudgedAnswer } from "./judge.js";

const MAX_FINDINGS = 1000;

const findings = z.array(z.string().min(1)).max(MAX_FINDINGS).default([]);
const codeVerdict = z.strictObject({ row: z.string(), class: z.enum(ANSWER_CLASSES), findings });
const sentimentVerdict = z.strictObject({
  row: z.string(),
  score: z.number().min(-1).max(1),
  findings,
});

/** One line {row, text, prompt, function} an answer. */
export function answerLines(answers: readonly JudgedAnswer[]): string {
  const lines = answers.map(({ row, text, prompt }) =>
    JSON.stringify({ row, text, prompt: prompt.text, function: prompt.function }),
  );
  return lines.map((line) => `${line}\n`).join("");
}

/**
 * Judgements in the order of the answers, from lines in any order. Throws an Error for a line that is no
 * verdict, a row that was not asked for, a row judged twice and a row that was left out.
 */
export function judgementsOf(
  output: string,
  answers: readonly JudgedAnswer[],
  judge: { name: string; kind: "code" | "sentiment" },
): Judgement[] {
  const asked = new Set(answers.map(({ row }) => row));
  const byRow = new Map<string, Judgement>();
  for (const [index, line] of output.split("\n").entries()) {
    if (line.trim() === "") continue;
    const where = `judge "${judge.name}", line ${index + 1}`;
    const judgement = judgementOf(line, judge, where);
    if (!asked.has(judgement.row)) {
      throw new Error(`${where}: row "${judgement.row}" was not asked for`);
    }
    if (byRow.has(judgement.row)) {
      throw new Error(`${where}: row "${judgement.row}" is judged twice`);
    }
    byRow.set(judgement.row, judgement);
  }
  return answers.map(({ row }) => {
    const judgement = byRow.get(row);
    if (judgement === undefined)
      throw new Error(`judge "${judge.name}": no verdict on row "${row}"`);
    return judgement;
  });
}

function judgementOf(
  line: string,
  { name, kind }: { name: string; kind: "code" | "sentiment" },
  where: string,
): Judgement {
  let value: unknown;
  try {
    value = JSON.parse(line);
  } catch {
    throw new Error(`${where}: not JSON: ${line.slice(0, 200)}`);
  }
  const schema = kind === "code" ? codeVerdict : sentimentVerdict;
  const parsed = schema.safeParse(value);
  if (!parsed.success) {
    const problems = parsed.error.issues.map(
      (issue) => `${issue.path.join(".") || "line"}: ${issue.message}`,
    );
    throw new Error(`${where}: ${problems.join("; ")}`);
  }
  const verdict = parsed.data;
  return {
    row: verdict.row,
    judge: name,
    class: "class" in verdict ? verdict.class : null,
    score: "score" in verdict ? verdict.score : null,
    findings: [...new Set(verdict.findings)].sort(),
  };
}
