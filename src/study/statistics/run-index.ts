/** A run, by cell and judge. */
import type { Answer, Judgement, StudyCell, StudyPrompt, StudyRun } from "../records.js";

/** An answer with what one judge said of it. */
export interface JudgedRow {
  answer: Answer;
  prompt: StudyPrompt;
  judgement: Judgement;
}

export interface RunIndex {
  cells: Map<string, StudyCell>;
  /** Judges in the order in which they first appear. */
  judges: string[];
  /** The rows of a cell that a judge judged, in the order of the plan; empty for a judge of another kind. */
  rows(cell: string, judge: string): JudgedRow[];
}

export function indexRun(run: StudyRun): RunIndex {
  const cells = new Map(run.plan.cells.map((cell) => [cell.id, cell]));
  const answers = new Map(run.answers.map((answer) => [answer.row, answer]));
  const prompts = new Map(
    Object.entries(run.plan.promptSets).map(([name, set]) => [
      name,
      new Map(set.map((prompt) => [prompt.id, prompt])),
    ]),
  );
  const byCell = new Map<string, Map<string, JudgedRow[]>>();
  const judges = new Set<string>();
  for (const judgement of run.judgements) {
    const answer = answers.get(judgement.row);
    const set = cells.get(answer?.cell ?? "")?.promptSet;
    const prompt = prompts.get(set ?? "")?.get(answer?.prompt ?? "");
    if (answer === undefined || prompt === undefined) {
      throw new Error(`the verdict on row "${judgement.row}" is on no answer of the plan`);
    }
    judges.add(judgement.judge);
    const ofCell = byCell.get(answer.cell) ?? new Map<string, JudgedRow[]>();
    byCell.set(answer.cell, ofCell);
    const rows = ofCell.get(judgement.judge) ?? [];
    ofCell.set(judgement.judge, rows);
    rows.push({ answer, prompt, judgement });
  }
  return {
    cells,
    judges: [...judges],
    rows: (cell, judge) => byCell.get(cell)?.get(judge) ?? [],
  };
}

/** Groups in the order of their first member. */
export function groupBy<T>(values: readonly T[], key: (value: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const value of values) {
    const group = groups.get(key(value));
    if (group === undefined) groups.set(key(value), [value]);
    else group.push(value);
  }
  return groups;
}
