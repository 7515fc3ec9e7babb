/** Makes one row of a finished or unfinished run again, and says whether it is the same. */
import { readFile } from "node:fs/promises";
import type { LlamaSteerClient } from "../client/client.js";
import { parseStudy } from "./file/parse.js";
import type { StudyConfig } from "./file/schema.js";
import { readJournal } from "./journal.js";
import type { Judge } from "./judges/judge.js";
import { StudyError } from "./plan/server.js";
import { forgetVectors, idPrefix } from "./plan/vectors.js";
import type { Answer, Judgement, StudyPlan } from "./records.js";
import { makeAnswer, Scores } from "./run/answer.js";
import { Fleet } from "./run/fleet.js";
import { prepareServer, type RunOptions } from "./run/run.js";
import { readJson, rowsOf, runFiles } from "./run-folder.js";

export interface RecordedRow {
  plan: StudyPlan;
  config: StudyConfig;
  answer: Answer;
  judgements: Judgement[];
}

export interface Replayed {
  answer: Answer;
  judgements: Judgement[];
  /** What is not as it was recorded; empty: every bit is. */
  differences: string[];
}

/** Throws a StudyError for a row that the run does not have. */
export async function readRow(folder: string, row: string): Promise<RecordedRow> {
  const files = runFiles(folder);
  const plan = await readJson<StudyPlan>(files.plan);
  if (!plan) throw new StudyError(`${folder}: no study was begun there (plan.json is missing)`);
  const { records } = await readJournal<Answer>(files.answers);
  const answer = records.find((record) => record.row === row);
  if (!answer) {
    const known = records[0] ? `; its rows look like ${records[0].row}` : "";
    throw new StudyError(`${folder} has no row ${row}${known}`);
  }
  const verdicts = (await readJournal<Judgement>(files.verdicts)).records;
  const config = parseStudy(await readFile(files.study, "utf8"), files.study);
  return {
    ...{ plan, config, answer },
    judgements: verdicts.filter((verdict) => verdict.row === row),
  };
}

export interface ReplayOptions {
  folder: string;
  client: LlamaSteerClient;
  /** Empty: the verdicts are not made again. */
  judges: readonly Judge[];
  openBaked: RunOptions["openBaked"];
  signal: AbortSignal;
}

/** Throws a StudyError when the server is not the one of the run. */
export async function replayRow(
  recorded: RecordedRow,
  { folder, client, judges, openBaked, signal }: ReplayOptions,
): Promise<Replayed> {
  const { plan, config } = recorded;
  const prefix = idPrefix(plan.digest, plan.server);
  const prepare = () => prepareServer(client, { config }, plan, prefix, folder, signal);
  await prepare();
  const waitMs = config.limits.server_wait_seconds * 1000;
  const fleet = new Fleet([client], { waitMs, prepare, say() {} }, signal);
  const scores = new Scores(fleet, config.model.chat, signal);
  const context = { plan, config, prefix, fleet, signal, scores };
  const row = [...rowsOf(plan)].find(({ row }) => row === recorded.answer.row);
  const prompt = row && plan.promptSets[row.cell.promptSet]?.[row.prompt];
  if (!row || !prompt) throw new StudyError(`the plan has no row ${recorded.answer.row}`);
  const { cell, draw } = row;
  let answer: Answer;
  if (cell.purpose === "baked") {
    if (!openBaked) throw new StudyError("a baked row needs --serve, or --baked-server");
    const baked = await openBaked(plan, cell);
    try {
      const options = { waitMs, prepare: async () => {}, say() {} };
      const from = new Fleet([baked.client], options, signal);
      answer = await makeAnswer(context, { cell, prompt, draw }, from);
    } finally {
      await baked.close();
    }
  } else answer = await makeAnswer(context, { cell, prompt, draw });
  const names = plan.vectors.map(({ name }) => name);
  await forgetVectors(client, names, prefix);
  const judgements: Judgement[] = [];
  for (const judge of judges) {
    if (judge.kind !== cell.judge) continue;
    const asked = { row: answer.row, text: answer.text, prompt };
    judgements.push(...(await judge.judge([asked], signal)));
  }
  return { answer, judgements, differences: differencesOf(recorded, answer, judgements) };
}

function differencesOf(
  recorded: RecordedRow,
  answer: Answer,
  judgements: readonly Judgement[],
): string[] {
  const before = recorded.answer;
  const differences: string[] = [];
  const first = before.tokenIds.findIndex((id, index) => id !== answer.tokenIds[index]);
  if (first >= 0 || before.tokenIds.length !== answer.tokenIds.length) {
    const at = first < 0 ? before.tokenIds.length : first;
    differences.push(
      `token ${at} is ${answer.tokenIds[at] ?? "missing"}, was ${before.tokenIds[at] ?? "missing"}`,
    );
  }
  for (const key of ["text", "finishReason", "seed", "perplexity", "steering"] as const) {
    if (JSON.stringify(before[key]) === JSON.stringify(answer[key])) continue;
    differences.push(
      `${key} is ${JSON.stringify(answer[key])}, was ${JSON.stringify(before[key])}`,
    );
  }
  for (const judgement of judgements) {
    const was = recorded.judgements.find(({ judge }) => judge === judgement.judge);
    if (JSON.stringify(was) === JSON.stringify(judgement)) continue;
    differences.push(`${judgement.judge} says ${verdictOf(judgement)}, said ${verdictOf(was)}`);
  }
  return differences;
}

export function verdictOf(judgement: Judgement | undefined): string {
  if (!judgement) return "nothing";
  const verdict = judgement.class ?? `sentiment ${judgement.score}`;
  return judgement.findings.length > 0 ? `${verdict} (${judgement.findings.join(", ")})` : verdict;
}
