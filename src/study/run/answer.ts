/** Makes one row of a study: an answer, and how likely the unsteered base model finds it. */
import { createHash } from "node:crypto";
import type {
  Completion,
  GenerateRequest,
  GenerateResponse,
  LlamaSteerClient,
  Steering,
} from "../../client/client.js";
import { inputOf } from "../file/load.js";
import type { StudyConfig } from "../file/schema.js";
import { StudyError } from "../plan/server.js";
import {
  type Answer,
  rowId,
  type StudyCell,
  type StudyPlan,
  type StudyPrompt,
} from "../records.js";
import type { Fleet } from "./fleet.js";
import { proofOf, steeringOf } from "./steering.js";

export interface AnswerContext {
  plan: Pick<StudyPlan, "sampling" | "vectors" | "probe">;
  config: StudyConfig;
  prefix: string;
  /** Servers of the model; answers are scored there, too. */
  fleet: Fleet;
  signal: AbortSignal;
  scores: Scores;
}

export interface Row {
  cell: StudyCell;
  prompt: StudyPrompt;
  draw: number;
}

type Made = Pick<Answer, "text" | "tokenIds" | "finishReason" | "steering">;

/** `fleet`: where it is generated; for a baked cell the servers of the baked checkpoint. */
export async function makeAnswer(
  context: AnswerContext,
  { cell, prompt, draw }: Row,
  fleet: Fleet = context.fleet,
): Promise<Answer> {
  const seed = seedOf(context.plan, prompt.id, draw);
  const made = await fleet.call((client) =>
    cell.purpose === "scratchpad-only"
      ? steerScratchpad(context, client, cell, prompt, seed)
      : generate(context, client, cell, prompt, seed),
  );
  return {
    row: rowId(cell.id, prompt.id, draw),
    ...{ cell: cell.id, prompt: prompt.id, draw, seed },
    ...made,
    perplexity: await context.scores.perplexity(prompt.text, made.tokenIds),
  };
}

/** The same for a prompt and a draw in every cell: cells differ in their steering alone. */
function seedOf({ sampling }: Pick<StudyPlan, "sampling">, prompt: string, draw: number): string {
  const hash = createHash("sha256")
    .update(JSON.stringify([sampling.seed, prompt, draw]))
    .digest();
  return hash.readBigUInt64LE(0).toString();
}

type Input = Pick<GenerateRequest, "chat" | "prompt" | "tokens">;

function requestOf(
  { plan }: AnswerContext,
  cell: StudyCell,
  input: Input,
  seed: string,
  steering: Steering[],
): GenerateRequest & { sampling: object } {
  const { temperature, topP, maxNewTokens } = plan.sampling;
  const sampling = { temperature, topP, maxNewTokens, seed };
  return { ...input, steering, adapterId: cell.adapter, sampling };
}

async function generate(
  context: AnswerContext,
  client: LlamaSteerClient,
  cell: StudyCell,
  prompt: StudyPrompt,
  seed: string,
): Promise<Made> {
  const steering = steeringOf(context.plan, cell, context.prefix);
  const input = inputOf(prompt.text, context.config.model.chat);
  const request = requestOf(context, cell, input, seed, steering);
  const response = await client.generate(request, { signal: context.signal });
  return { ...madeOf(completionOf(response)), steering: proofOf(response.applied) };
}

/**
 * Steers the rows of the scratchpad and no others: the tokens behind the one that completes the opening
 * text, up to the one that completes the closing text, which is not steered. First the scratchpad is
 * generated, steered; then its tokens stand in the prompt of a second request, steered at exactly their
 * positions, and the rest is generated unsteered. Rows do not depend on how a sequence is cut, so the
 * second request continues the first.
 */
async function steerScratchpad(
  context: AnswerContext,
  client: LlamaSteerClient,
  cell: StudyCell,
  prompt: StudyPrompt,
  seed: string,
): Promise<Made> {
  const { plan, config, prefix, signal } = context;
  const texts = config.steps.scratchpad_only;
  if (!texts) throw new StudyError("the study has no step scratchpad_only");
  const call = { signal };
  const positions = { generated: {}, afterText: texts.open };
  const input = inputOf(prompt.text, config.model.chat);
  const request = requestOf(context, cell, input, seed, steeringOf(plan, cell, prefix, positions));
  const first = await client.generate(
    { ...request, sampling: { ...request.sampling, stop: [texts.close] } },
    call,
  );
  const pad = completionOf(first);
  const left = plan.sampling.maxNewTokens - pad.tokenIds.length;
  const begin = first.applied[0]?.afterTextPositions[0] ?? -1;
  if (pad.finishReason !== "FINISH_REASON_STOP_TEXT" || left <= 0) {
    const whole = { ...madeOf(pad), steering: proofOf(first.applied) };
    // What stood behind the closing text is no part of a text that ends there.
    return pad.finishReason === "FINISH_REASON_STOP_TEXT"
      ? { ...whole, finishReason: "LENGTH" }
      : whole;
  }
  const promptIds = await promptIdsOf(client, prompt.text, config.model.chat, signal);
  const end = promptIds.length + pad.tokenIds.length - 1;
  const range = { range: { start: begin, end } };
  const steering = begin >= 0 && begin < end ? steeringOf(plan, cell, prefix, range) : [];
  const rest = { tokens: { ids: [...promptIds, ...pad.tokenIds] } };
  const second = await client.generate(
    {
      ...requestOf(context, cell, rest, seed, steering),
      sampling: { ...request.sampling, maxNewTokens: left },
    },
    call,
  );
  const last = completionOf(second);
  const tokenIds = [...pad.tokenIds, ...last.tokenIds];
  return {
    ...madeOf(last),
    text: await client.model.detokenize(tokenIds, { signal, skipSpecialTokens: true }),
    tokenIds,
    // In the second request the scratchpad stands in the prompt; in the answer it was generated.
    steering: proofOf(second.applied).map((steering) => ({
      ...steering,
      promptTokens: 0,
      generatedTokens: steering.promptTokens + steering.generatedTokens,
    })),
  };
}

export async function promptIdsOf(
  client: LlamaSteerClient,
  text: string,
  chat: boolean,
  signal: AbortSignal,
): Promise<number[]> {
  const { tokenIds } = chat
    ? await client.model.renderChat({ messages: [{ role: "user", content: text }] }, { signal })
    : await client.model.tokenize({ text }, { signal });
  return tokenIds;
}

function completionOf({ completions }: GenerateResponse): Completion {
  const [completion] = completions;
  if (!completion) throw new StudyError("the server sent no completion");
  return completion;
}

function madeOf({ text, tokenIds, finishReason }: Completion): Omit<Made, "steering"> {
  switch (finishReason) {
    case "FINISH_REASON_STOP":
    case "FINISH_REASON_STOP_TEXT":
    case "FINISH_REASON_LENGTH": {
      const reason = finishReason.replace("FINISH_REASON_", "") as Made["finishReason"];
      return { text, tokenIds: [...tokenIds], finishReason: reason };
    }
    default:
      throw new StudyError(`the server ended an answer with ${finishReason}`);
  }
}

/** Perplexities under the unsteered base model; equal answers to a prompt are scored once. */
export class Scores {
  readonly #known = new Map<string, Promise<number | null>>();
  readonly #fleet: Fleet;
  readonly #chat: boolean;
  readonly #signal: AbortSignal;

  constructor(fleet: Fleet, chat: boolean, signal: AbortSignal) {
    this.#fleet = fleet;
    this.#chat = chat;
    this.#signal = signal;
  }

  /** What an earlier start found out. */
  know(prompt: string, tokenIds: readonly number[], perplexity: number | null): void {
    this.#known.set(keyOf(prompt, tokenIds), Promise.resolve(perplexity));
  }

  perplexity(prompt: string, tokenIds: readonly number[]): Promise<number | null> {
    const key = keyOf(prompt, tokenIds);
    let score = this.#known.get(key);
    if (!score) {
      score = this.#score(prompt, tokenIds);
      this.#known.set(key, score);
    }
    return score;
  }

  async #score(prompt: string, tokenIds: readonly number[]): Promise<number | null> {
    if (tokenIds.length === 0) return null;
    const request = {
      ...inputOf(prompt, this.#chat),
      continuations: [{ tokens: { ids: [...tokenIds] } }],
    };
    const { scores } = await this.#fleet.call((client) =>
      client.score(request, { signal: this.#signal }),
    );
    const [score] = scores;
    if (!score) throw new StudyError("the server sent no score");
    return score.perplexity;
  }
}

const keyOf = (prompt: string, tokenIds: readonly number[]) =>
  createHash("sha256")
    .update(JSON.stringify([prompt, tokenIds]))
    .digest("base64");
