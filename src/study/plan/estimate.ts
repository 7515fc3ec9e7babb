/** What a study costs, before it is run. */
import type { CallOptions, LlamaSteerClient } from "../../client/client.js";
import type { LoadedStudy } from "../file/load.js";
import type { CellPurpose, StudyCell } from "../records.js";
import { makeAnswer, promptIdsOf, Scores } from "../run/answer.js";
import { Fleet, forEachAtOnce } from "../run/fleet.js";
import { cellsOf } from "./cells.js";
import { checkedServer, samplingOf } from "./prepare.js";
import { StudyError } from "./server.js";

/** Answers that the speed is measured on. */
const WARM_UP_ANSWERS = 48;

export interface Outline {
  cells: StudyCell[];
  byPurpose: { purpose: CellPurpose; cells: number; answers: number }[];
  answers: number;
  tokensAtMost: number;
}

export function outlineOf(study: LoadedStudy): Outline {
  const { draws, max_new_tokens } = study.config.sampling;
  const cells = cellsOf(study.config);
  const counts = new Map<CellPurpose, { cells: number; answers: number }>();
  for (const { purpose, promptSet } of cells) {
    const count = counts.get(purpose) ?? { cells: 0, answers: 0 };
    count.cells++;
    count.answers += (study.promptSets[promptSet]?.length ?? 0) * draws;
    counts.set(purpose, count);
  }
  const byPurpose = [...counts].map(([purpose, count]) => ({ purpose, ...count }));
  const answers = byPurpose.reduce((sum, count) => sum + count.answers, 0);
  return { cells, byPurpose, answers, tokensAtMost: answers * max_new_tokens };
}

export interface WarmUp {
  answersPerSecond: number;
  tokensPerSecond: number;
  tokensPerAnswer: number;
}

/** Checks the servers, and the length of every prompt. Throws a StudyError. */
export async function checkServers(
  clients: readonly LlamaSteerClient[],
  study: LoadedStudy,
  call: CallOptions & { signal: AbortSignal },
): Promise<void> {
  for (const client of clients) await checkedServer(client, study, call);
  const [client] = clients;
  if (!client) return;
  const { contextTokens } = await client.model.get(call);
  const { max_new_tokens } = study.config.sampling;
  const texts = new Set(
    Object.values(study.promptSets).flatMap((set) => set.map(({ text }) => text)),
  );
  await forEachAtOnce(texts, 16, async (text) => {
    const { length } = await promptIdsOf(client, text, study.config.model.chat, call.signal);
    if (length + max_new_tokens > contextTokens) {
      throw new StudyError(
        `a prompt of ${length} tokens and ${max_new_tokens} new ones exceed the context of ` +
          `${contextTokens} tokens: ${JSON.stringify(text.slice(0, 80))}`,
      );
    }
  });
}

/** Makes a few unsteered answers, which are thrown away, as a run would make them. */
export async function measureSpeed(
  clients: readonly LlamaSteerClient[],
  study: LoadedStudy,
  signal: AbortSignal,
): Promise<WarmUp> {
  const { config } = study;
  const [cell] = cellsOf(config);
  if (!cell) throw new StudyError("the study has no cell");
  const prompts = (study.promptSets[cell.promptSet] ?? []).slice(0, WARM_UP_ANSWERS);
  const fleet = new Fleet(clients, { waitMs: 10_000, prepare: async () => {}, say() {} }, signal);
  const scores = new Scores(fleet, config.model.chat, signal);
  const plan = { sampling: samplingOf(study), vectors: [] };
  const context = { plan, config, prefix: "", fleet, signal, scores };
  let tokens = 0;
  const begin = performance.now();
  await forEachAtOnce(
    prompts,
    config.limits.in_flight_per_server * clients.length,
    async (prompt) => {
      const { tokenIds } = await makeAnswer(context, { cell, prompt, draw: 0 });
      tokens += tokenIds.length;
    },
  );
  const seconds = (performance.now() - begin) / 1000;
  return {
    answersPerSecond: prompts.length / seconds,
    tokensPerSecond: tokens / seconds,
    tokensPerAnswer: tokens / prompts.length,
  };
}
