/**
 * Runs a study to its end: generates what is missing, scores it, judges it. Stopped anywhere, by
 * anything, it goes on from what the journals hold.
 */
import { setMaxListeners } from "node:events";
import type { LlamaSteerClient } from "../../client/client.js";
import type { LoadedStudy } from "../file/load.js";
import { Journal } from "../journal.js";
import type { Judge } from "../judges/judge.js";
import { checkedServer, type PreparedRun, prepareRun } from "../plan/prepare.js";
import { differenceOf, StudyError } from "../plan/server.js";
import { forgetVectors, registerVectors } from "../plan/vectors.js";
import type { Answer, Judgement, StudyCell, StudyPlan, StudyTimings } from "../records.js";
import { rowsOf, runFiles } from "../run-folder.js";
import { type AnswerContext, makeAnswer, type Row, Scores } from "./answer.js";
import { Fleet, forEachAtOnce } from "./fleet.js";
import { judgeAnswers } from "./judging.js";
import { Stopwatch } from "./timings.js";

/** A server of the base checkpoint with one vector baked in, and the study's adapter beside it. */
export interface BakedServer {
  client: LlamaSteerClient;
  close(): Promise<void>;
}

export interface RunOptions {
  study: LoadedStudy;
  /** Made if it does not exist; the caller holds its lock. */
  folder: string;
  clients: readonly LlamaSteerClient[];
  judges: readonly Judge[];
  /** The server for a baked cell; undefined: there is none, and the run ends before such cells. */
  openBaked: ((plan: StudyPlan, cell: StudyCell) => Promise<BakedServer>) | undefined;
  signal: AbortSignal;
  say(text: string): void;
  onProgress(phase: "answers" | "verdicts", done: number, total: number): void;
}

export interface RunResult {
  plan: StudyPlan;
  timings: StudyTimings;
}

/** Throws a StudyError, a ClientError, or what a judge throws; what was done is kept. */
export async function runStudy(options: RunOptions): Promise<RunResult> {
  const { study, folder, clients, judges, signal, say } = options;
  const [first] = clients;
  if (!first) throw new StudyError("no server to run the study on");
  const watch = await Stopwatch.open(folder);
  const prepared = await prepareRun(first, study, judges, folder, { signal }, say);
  const files = runFiles(folder);
  const answers = await Journal.open<Answer>(files.answers);
  const answered = new Map(answers.records.map((answer) => [answer.row, answer]));
  try {
    watch.begin("generationSeconds");
    await answerAll(options, prepared, answers, answered);
    const verdicts = await Journal.open<Judgement>(files.verdicts);
    try {
      watch.begin("judgingSeconds");
      await judgeAnswers(prepared.plan, answered, judges, verdicts, {
        batchAnswers: study.config.limits.judge_batch_answers,
        signal,
        onProgress: (done, total) => options.onProgress("verdicts", done, total),
      });
    } finally {
      await verdicts.close();
    }
  } finally {
    await answers.close().finally(() => watch.stop(countsOf(answered)));
  }
  const names = prepared.plan.vectors.map(({ name }) => name);
  await Promise.all(clients.map((client) => forgetVectors(client, names, prepared.prefix)));
  return { plan: prepared.plan, timings: await watch.stop(countsOf(answered)) };
}

const countsOf = (answered: ReadonlyMap<string, Answer>) => ({
  answers: answered.size,
  generatedTokens: [...answered.values()].reduce((sum, { tokenIds }) => sum + tokenIds.length, 0),
});

async function answerAll(
  options: RunOptions,
  prepared: PreparedRun,
  journal: Journal<Answer>,
  answered: Map<string, Answer>,
): Promise<void> {
  const { study, clients, openBaked, onProgress } = options;
  const { plan } = prepared;
  const missing = [...rowsOf(plan)]
    .filter(({ row }) => !answered.has(row))
    .map(({ cell, prompt, draw }) => {
      const asked = plan.promptSets[cell.promptSet]?.[prompt];
      if (!asked) throw new StudyError(`the plan has no prompt set ${cell.promptSet}`);
      return { cell, prompt: asked, draw };
    });
  const total = answered.size + missing.length;
  onProgress("answers", answered.size, total);
  if (missing.length === 0) return;
  // The first failure, or the caller, ends everything that is under way.
  const stop = new AbortController();
  // Every call in flight listens.
  setMaxListeners(0, stop.signal);
  const abort = () => stop.abort(options.signal.reason);
  options.signal.addEventListener("abort", abort, { once: true });
  try {
    const { fleet, context } = await openFleet(options, prepared, answered, stop.signal);
    const perServer = study.config.limits.in_flight_per_server;
    const work = (from: Fleet) => async (row: Row) => {
      try {
        const answer = await makeAnswer(context, row, from);
        journal.append(answer);
        answered.set(answer.row, answer);
        onProgress("answers", answered.size, total);
      } catch (error) {
        stop.abort(error);
        throw error;
      }
    };
    const plain = missing.filter(({ cell }) => cell.purpose !== "baked");
    await forEachAtOnce(plain, perServer * clients.length, work(fleet));
    for (const [key, rows] of groupBaked(missing)) {
      const [row] = rows;
      if (!row) continue;
      if (!openBaked) {
        throw new StudyError(
          `all but the baked cells is done: ${key} needs --serve, or --baked-server with a server of ` +
            `the checkpoint that \`llama-steer bake\` makes from ${runFiles(options.folder).vectors}`,
        );
      }
      options.say(`baking ${key}`);
      const baked = await openBaked(plan, row.cell);
      try {
        const prepare = async (client: LlamaSteerClient) => checkBaked(client, options, plan);
        await prepare(baked.client);
        const waitMs = study.config.limits.server_wait_seconds * 1000;
        const bakedFleet = new Fleet(
          [baked.client],
          { waitMs, prepare, say: options.say },
          stop.signal,
        );
        await forEachAtOnce(rows, perServer, work(bakedFleet));
      } finally {
        await baked.close();
      }
    }
  } catch (error) {
    stop.abort(error);
    throw error;
  } finally {
    options.signal.removeEventListener("abort", abort);
  }
}

/** The servers of the model, checked and with the vectors of the run. */
async function openFleet(
  { study, folder, clients, say }: RunOptions,
  { plan, prefix }: PreparedRun,
  answered: ReadonlyMap<string, Answer>,
  signal: AbortSignal,
): Promise<{ fleet: Fleet; context: AnswerContext }> {
  const prepare = (client: LlamaSteerClient) =>
    prepareServer(client, study, plan, prefix, folder, signal);
  for (const client of clients) await prepare(client);
  const waitMs = study.config.limits.server_wait_seconds * 1000;
  const fleet = new Fleet(clients, { waitMs, prepare, say }, signal);
  const scores = new Scores(fleet, study.config.model.chat, signal);
  const texts = promptTexts(plan);
  for (const { cell, prompt, tokenIds, perplexity } of answered.values()) {
    const text = texts.get(cell)?.get(prompt);
    if (text !== undefined) scores.know(text, tokenIds, perplexity);
  }
  const { config } = study;
  return { fleet, context: { plan, config, prefix, fleet, signal, scores } };
}

/** Throws a StudyError when the server is not the one of the plan; registers the run's vectors. */
export async function prepareServer(
  client: LlamaSteerClient,
  study: Pick<LoadedStudy, "config">,
  plan: StudyPlan,
  prefix: string,
  folder: string,
  signal: AbortSignal,
): Promise<void> {
  const difference = differenceOf(plan.server, await checkedServer(client, study, { signal }));
  if (difference !== null) throw new StudyError(`${client.address}: ${difference}`);
  await registerVectors(client, plan.vectors, prefix, runFiles(folder).vectors, { signal });
}

async function checkBaked(
  client: LlamaSteerClient,
  { study, signal }: RunOptions,
  plan: StudyPlan,
): Promise<void> {
  const { adapter, layers, hidden_size } = study.config.model;
  const model = await client.model.get({ signal });
  const digest = model.adapterDetails.find(({ adapterId }) => adapterId === adapter)?.digest;
  const fits =
    model.architecture?.layers === layers &&
    model.architecture.hiddenSize === hidden_size &&
    digest === plan.server.adapters[adapter];
  if (!fits) throw new StudyError(`${client.address} is no server of this model and its adapter`);
}

/** Rows of baked cells by the checkpoint that they need. */
function groupBaked(rows: readonly Row[]): Map<string, Row[]> {
  const groups = new Map<string, Row[]>();
  for (const row of rows) {
    const { purpose, vector, layers, magnitude } = row.cell;
    if (purpose !== "baked") continue;
    const key = `${vector} × ${magnitude} at block ${layers.join(", ")}`;
    groups.set(key, [...(groups.get(key) ?? []), row]);
  }
  return groups;
}

/** Text by cell and prompt. */
function promptTexts(plan: StudyPlan): Map<string, Map<string, string>> {
  const bySet = new Map(
    Object.entries(plan.promptSets).map(([name, prompts]) => [
      name,
      new Map(prompts.map(({ id, text }) => [id, text])),
    ]),
  );
  return new Map(
    plan.cells.map(({ id, promptSet }) => [id, bySet.get(promptSet) ?? new Map<string, string>()]),
  );
}
