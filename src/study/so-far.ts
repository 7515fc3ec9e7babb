/** What a run that goes on has shown so far: its finished cells, judged. Nothing of the run is changed. */
import { readFile } from "node:fs/promises";
import { readJournal } from "./journal.js";
import type { Judge } from "./judges/judge.js";
import { StudyError } from "./plan/server.js";
import type { Answer, Judgement, ProbeReading, StudyPlan, StudyRun } from "./records.js";
import { judgeAnswers } from "./run/judging.js";
import { rowsOf, runFiles } from "./run-folder.js";

/**
 * A cell is finished when it and the cell that it is paired with have all of their answers. The title
 * says how many are. Throws a StudyError when none is.
 */
export async function readSoFar(
  folder: string,
  judges: readonly Judge[],
  batchAnswers: number,
  signal: AbortSignal,
): Promise<StudyRun> {
  const files = runFiles(folder);
  const whole = JSON.parse(await readFile(files.plan, "utf8")) as StudyPlan;
  const answered = new Map(
    (await readJournal<Answer>(files.answers)).records.map((answer) => [answer.row, answer]),
  );
  const plan = finishedPart(whole, answered);
  const answers = [...rowsOf(plan)].flatMap(({ row }) => answered.get(row) ?? []);
  const verdicts = (await readJournal<Judgement>(files.verdicts)).records;
  const kept = {
    records: verdicts,
    append: (verdict: Judgement) => void verdicts.push(verdict),
    flush: async () => {},
  };
  const options = { batchAnswers, signal, onProgress() {} };
  await judgeAnswers(plan, answered, judges, kept, options);
  const generatedTokens = answers.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
  return {
    study: await readFile(files.study, "utf8"),
    plan,
    answers,
    judgements: inOrderOf(plan, verdicts),
    probe: (await readJournal<ProbeReading>(files.probe)).records,
    timings: {
      ...{ generationSeconds: 0, judgingSeconds: 0, starts: 0 },
      ...{ answers: answers.length, generatedTokens },
    },
  };
}

function finishedPart(plan: StudyPlan, answered: ReadonlyMap<string, Answer>): StudyPlan {
  const unfinished = new Set<string>();
  for (const { row, cell } of rowsOf(plan)) if (!answered.has(row)) unfinished.add(cell.id);
  const cells = plan.cells.filter(
    ({ id, pairedWith }) => !unfinished.has(id) && !unfinished.has(pairedWith ?? ""),
  );
  if (cells.length === 0) throw new StudyError("no cell is finished yet");
  const title = `${plan.title}: ${cells.length} of ${plan.cells.length} cells, unfinished`;
  return { ...plan, title, cells };
}

function inOrderOf(plan: StudyPlan, verdicts: readonly Judgement[]): Judgement[] {
  const byRow = new Map<string, Judgement[]>();
  for (const verdict of verdicts) {
    byRow.set(verdict.row, [...(byRow.get(verdict.row) ?? []), verdict]);
  }
  const names = (plan.judges ?? []).map(({ name }) => name);
  return [...rowsOf(plan)].flatMap(({ row }) => {
    const found = byRow.get(row) ?? [];
    return names.flatMap((name) => found.find(({ judge }) => judge === name) ?? []);
  });
}
