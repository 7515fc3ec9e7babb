/** Judges what was answered; equal answers to a prompt are judged once. */

import type { Journal } from "../journal.js";
import type { Judge, JudgedAnswer } from "../judges/judge.js";
import { StudyError } from "../plan/server.js";
import type { Answer, Judgement, StudyPlan } from "../records.js";
import { rowsOf, verdictKey } from "../run-folder.js";

export interface JudgingOptions {
  batchAnswers: number;
  signal: AbortSignal;
  onProgress(done: number, total: number): void;
}

/** Every row that a judge of its kind has not judged; each batch is on the disk before the next. */
export async function judgeAnswers(
  plan: StudyPlan,
  answers: ReadonlyMap<string, Answer>,
  judges: readonly Judge[],
  journal: Pick<Journal<Judgement>, "records" | "append" | "flush">,
  { batchAnswers, signal, onProgress }: JudgingOptions,
): Promise<void> {
  const known = new Set(journal.records.map(verdictKey));
  const work = judges.map((judge) => ({ judge, groups: groupsOf(plan, answers, judge, known) }));
  const total = work.reduce((sum, { groups }) => sum + groups.length, 0);
  let done = 0;
  for (const { judge, groups } of work) {
    for (let first = 0; first < groups.length; first += batchAnswers) {
      signal.throwIfAborted();
      const batch = groups.slice(first, first + batchAnswers);
      const verdicts = await judge.judge(
        batch.map(({ answer }) => answer),
        signal,
      );
      for (const [index, { answer, rows }] of batch.entries()) {
        const verdict = verdicts[index];
        if (verdict?.row !== answer.row || verdict.judge !== judge.name) {
          throw new StudyError(`the judge ${judge.name} left out the answer ${answer.row}`);
        }
        for (const row of rows) journal.append({ ...verdict, row });
      }
      await journal.flush();
      done += batch.length;
      onProgress(done, total);
    }
  }
}

interface Group {
  /** The first row of the group. */
  answer: JudgedAnswer;
  /** All that have its prompt and its text. */
  rows: string[];
}

function groupsOf(
  plan: StudyPlan,
  answers: ReadonlyMap<string, Answer>,
  { name, kind }: Judge,
  known: ReadonlySet<string>,
): Group[] {
  const groups = new Map<string, Group>();
  for (const { row, cell, prompt } of rowsOf(plan)) {
    if (cell.judge !== kind || known.has(verdictKey({ row, judge: name }))) continue;
    const answer = answers.get(row);
    const asked = plan.promptSets[cell.promptSet]?.[prompt];
    if (!answer || !asked) throw new StudyError(`${row} was not answered`);
    const key = JSON.stringify([asked.text, asked.function, answer.text]);
    const group = groups.get(key);
    if (group) group.rows.push(row);
    else groups.set(key, { answer: { row, text: answer.text, prompt: asked }, rows: [row] });
  }
  return [...groups.values()];
}
