/** A run's folder on disk; see records.ts for what is in it. */
import { open, readFile, rename } from "node:fs/promises";
import path from "node:path";
import { readJournal } from "./journal.js";
import {
  type Answer,
  type Judgement,
  type ProbeReading,
  rowId,
  type StudyPlan,
  type StudyRun,
  type StudyTimings,
} from "./records.js";

export const NO_TIMINGS: StudyTimings = {
  generationSeconds: 0,
  judgingSeconds: 0,
  answers: 0,
  generatedTokens: 0,
  starts: 0,
};

export function runFiles(folder: string) {
  return {
    study: path.join(folder, "study.yaml"),
    plan: path.join(folder, "plan.json"),
    vectors: path.join(folder, "vectors"),
    answers: path.join(folder, "answers.jsonl"),
    verdicts: path.join(folder, "verdicts.jsonl"),
    probe: path.join(folder, "probe.jsonl"),
    timings: path.join(folder, "timings.json"),
    report: path.join(folder, "report"),
  };
}

/** Every row of a plan, in its order: cell by cell, prompt by prompt, draw by draw. */
export function* rowsOf(
  plan: StudyPlan,
): Generator<{ row: string; cell: StudyPlan["cells"][number]; prompt: number; draw: number }> {
  for (const cell of plan.cells) {
    const prompts = plan.promptSets[cell.promptSet] ?? [];
    for (const [prompt, { id }] of prompts.entries()) {
      for (let draw = 0; draw < plan.sampling.draws; draw++) {
        yield { row: rowId(cell.id, id, draw), cell, prompt, draw };
      }
    }
  }
}

/** Throws an Error that says what is missing when the run has not come to its end. */
export async function readRun(folder: string): Promise<StudyRun> {
  const files = runFiles(folder);
  const plan = await readJson<StudyPlan>(files.plan);
  if (!plan) throw new Error(`${folder}: no study was begun there (plan.json is missing)`);
  const answers = firstByKey((await readJournal<Answer>(files.answers)).records, ({ row }) => row);
  const verdicts = firstByKey((await readJournal<Judgement>(files.verdicts)).records, verdictKey);
  const run: StudyRun = {
    study: await readFile(files.study, "utf8"),
    plan,
    answers: [],
    judgements: [],
    probe: (await readJournal<ProbeReading>(files.probe)).records,
    timings: (await readJson<StudyTimings>(files.timings)) ?? NO_TIMINGS,
  };
  let missing = 0;
  for (const { row, cell } of rowsOf(plan)) {
    const answer = answers.get(row);
    if (answer) run.answers.push(answer);
    else missing++;
    for (const judge of plan.judges ?? []) {
      if (judge.kind !== cell.judge) continue;
      const verdict = verdicts.get(verdictKey({ row, judge: judge.name }));
      if (verdict) run.judgements.push(verdict);
      else missing++;
    }
  }
  if (missing > 0) {
    throw new Error(
      `${folder}: ${missing} answers and verdicts are missing; run the study to its end`,
    );
  }
  return run;
}

export const verdictKey = ({ row, judge }: { row: string; judge: string }) => `${row}\n${judge}`;

function firstByKey<T>(records: readonly T[], key: (record: T) => string): Map<string, T> {
  const map = new Map<string, T>();
  for (const record of records) if (!map.has(key(record))) map.set(key(record), record);
  return map;
}

/** undefined when the file does not exist. */
export async function readJson<T>(file: string): Promise<T | undefined> {
  try {
    return JSON.parse(await readFile(file, "utf8")) as T;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return undefined;
    throw new Error(`${file}: ${(error as Error).message}`);
  }
}

/** All of it or, after a crash, what was there before. */
export async function writeWhole(file: string, content: string | Uint8Array): Promise<void> {
  const temporary = `${file}.new`;
  const handle = await open(temporary, "w");
  try {
    await handle.writeFile(content);
    await handle.sync();
  } finally {
    await handle.close();
  }
  await rename(temporary, file);
}
