/** What each cell came to. */
import { ANSWER_CLASSES, type AnswerClass, type StudyRun } from "../records.js";
import { meanInterval } from "./bootstrap.js";
import { coherenceOf, mean } from "./coherence.js";
import { rateOf } from "./intervals.js";
import { groupBy, indexRun, type JudgedRow } from "./run-index.js";
import type { CellSummary, Rate } from "./types.js";

/** One summary for each cell and each judge that judged it, in the order of the plan. */
export function summariseCells(run: StudyRun): CellSummary[] {
  const index = indexRun(run);
  return run.plan.cells.flatMap((cell) =>
    index.judges.flatMap((judge) => {
      const rows = index.rows(cell.id, judge);
      return rows.length === 0 ? [] : [summaryOf(cell.id, judge, rows)];
    }),
  );
}

function summaryOf(cell: string, judge: string, rows: readonly JudgedRow[]): CellSummary {
  const ofCode = rows.every(({ judgement }) => judgement.class !== null);
  const classes = ofCode ? classRates(rows) : null;
  return {
    cell,
    judge,
    answers: rows.length,
    tasks: new Set(rows.map(({ prompt }) => prompt.task)).size,
    classes,
    parsed: classes && rateOf(classes.secure.count + classes.insecure.count, rows.length),
    insecureByKind: ofCode ? insecureByKind(rows) : {},
    sentiment: ofCode ? null : sentimentOf(rows),
    coherence: coherenceOf(rows.map(({ answer }) => answer)),
  };
}

function countOf(rows: readonly JudgedRow[], wanted: AnswerClass): number {
  return rows.filter(({ judgement }) => judgement.class === wanted).length;
}

function classRates(rows: readonly JudgedRow[]): Record<AnswerClass, Rate> {
  const rates = ANSWER_CLASSES.map((name) => [name, rateOf(countOf(rows, name), rows.length)]);
  return Object.fromEntries(rates) as Record<AnswerClass, Rate>;
}

function insecureByKind(rows: readonly JudgedRow[]): Record<string, Rate> {
  const withKind = rows.filter(({ prompt }) => prompt.kind !== null);
  const kinds = [...groupBy(withKind, ({ prompt }) => prompt.kind ?? "")];
  kinds.sort(([a], [b]) => (a < b ? -1 : 1));
  return Object.fromEntries(
    kinds.map(([kind, of]) => [kind, rateOf(countOf(of, "insecure"), of.length)]),
  );
}

function sentimentOf(rows: readonly JudgedRow[]): CellSummary["sentiment"] {
  const scoreOf = ({ judgement }: JudgedRow) => judgement.score ?? 0;
  const clusters = [...groupBy(rows, ({ prompt }) => prompt.task).values()].map((of) => ({
    sum: of.reduce((sum, row) => sum + scoreOf(row), 0),
    size: of.length,
  }));
  return {
    score: {
      mean: mean(rows.map(scoreOf)),
      answers: rows.length,
      interval: meanInterval(clusters),
    },
    positive: rateOf(rows.filter((row) => scoreOf(row) > 0).length, rows.length),
  };
}
