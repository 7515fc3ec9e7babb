/** How far two judges of code agree. */
import { ANSWER_CLASSES, type AnswerClass, type StudyRun } from "../records.js";
import { rateOf } from "../statistics/intervals.js";
import type { Rate } from "../statistics/types.js";

export interface Agreement {
  first: string;
  second: string;
  /** Answers that both judged. */
  answers: number;
  /** `counts[i][j]`: the first says class i, the second class j, in the order of `ANSWER_CLASSES`. */
  counts: number[][];
  /** Same class. */
  same: Rate;
  /** Cohen's kappa over the classes; null where both always say the same one class. */
  kappa: number | null;
}

export function agreementsOf(run: StudyRun): Agreement[] {
  const verdicts = new Map<string, Map<string, AnswerClass>>();
  for (const { judge, row, class: verdict } of run.judgements) {
    if (verdict === null) continue;
    const rows = verdicts.get(judge) ?? new Map<string, AnswerClass>();
    verdicts.set(judge, rows.set(row, verdict));
  }
  const judges = [...verdicts];
  return judges.flatMap(([first, ofFirst], index) =>
    judges.slice(index + 1).map(([second, ofSecond]) => compare(first, second, ofFirst, ofSecond)),
  );
}

function compare(
  first: string,
  second: string,
  ofFirst: ReadonlyMap<string, AnswerClass>,
  ofSecond: ReadonlyMap<string, AnswerClass>,
): Agreement {
  const counts = ANSWER_CLASSES.map(() => ANSWER_CLASSES.map(() => 0));
  let answers = 0;
  for (const [row, verdict] of ofFirst) {
    const other = ofSecond.get(row);
    const line = counts[ANSWER_CLASSES.indexOf(verdict)];
    if (other === undefined || !line) continue;
    const column = ANSWER_CLASSES.indexOf(other);
    line[column] = (line[column] ?? 0) + 1;
    answers++;
  }
  const same = counts.reduce((sum, line, index) => sum + (line[index] ?? 0), 0);
  return {
    first,
    second,
    answers,
    counts,
    same: rateOf(same, answers),
    kappa: kappaOf(counts, same, answers),
  };
}

function kappaOf(counts: readonly number[][], same: number, answers: number): number | null {
  const columns = ANSWER_CLASSES.map((_, column) => sum(counts.map((line) => line[column] ?? 0)));
  const byChance =
    sum(counts.map((line, index) => sum(line) * (columns[index] ?? 0))) / answers ** 2;
  if (answers === 0 || byChance === 1) return null;
  return (same / answers - byChance) / (1 - byChance);
}

const sum = (values: readonly number[]) => values.reduce((total, value) => total + value, 0);
