/** Prompts, conversations and token ids. */

import type { Chat__Output } from "../generated/llamasteer/v1/Chat.js";
import type { TokenIds__Output } from "../generated/llamasteer/v1/TokenIds.js";
import type { InputSpec } from "../generation/context.js";
import type { ChatRequest } from "../model/model.js";
import type { Checker } from "./checker.js";
import type { RequestLimits } from "./limits.js";

/** A message with the oneof `input`. */
interface WithInput {
  input?: "prompt" | "chat" | "tokens";
  prompt?: string;
  chat?: Chat__Output | null;
  tokens?: TokenIds__Output | null;
}

const MAX_DATE_BYTES = 64;

/** `prefix` is the path of the message that holds the input: "" or "inputs[0].". */
export function readInput(
  request: WithInput,
  prefix: string,
  limits: RequestLimits,
  check: Checker,
): InputSpec {
  const field = `${prefix}${request.input ?? "input"}`;
  switch (request.input) {
    case "prompt": {
      const text = request.prompt ?? "";
      if (text === "") check.add(field, "is empty");
      check.atMost(field, Buffer.byteLength(text), limits.maxPromptBytes, "bytes");
      return { kind: "prompt", text, field };
    }
    case "chat":
      return { kind: "chat", chat: readChat(request.chat ?? null, field, limits, check), field };
    case "tokens":
      return {
        kind: "tokens",
        ids: readTokens(request.tokens ?? null, field, limits, check),
        field,
      };
    default:
      check.add(field, "is missing: prompt, chat or tokens");
      return { kind: "tokens", ids: [], field };
  }
}

export function readChat(
  chat: Chat__Output | null,
  field: string,
  limits: RequestLimits,
  check: Checker,
): ChatRequest {
  const messages = chat?.messages ?? [];
  const path = `${field}.messages`;
  if (messages.length === 0) check.add(path, "is empty");
  check.atMost(path, messages.length, limits.maxChatMessages, "messages");
  let bytes = 0;
  for (const [index, { role, content }] of messages.entries()) {
    if (role === "") check.add(`${path}[${index}].role`, "is empty");
    bytes += Buffer.byteLength(role) + Buffer.byteLength(content);
  }
  check.atMost(path, bytes, limits.maxPromptBytes, "bytes");
  check.atMost(`${field}.date`, Buffer.byteLength(chat?.date ?? ""), MAX_DATE_BYTES, "bytes");
  return {
    messages: messages.map(({ role, content }) => ({ role, content })),
    addGenerationPrompt: chat?.addGenerationPrompt ?? true,
    date: chat?.date ?? null,
    allowSpecialTokens: chat?.allowSpecialTokens ?? false,
  };
}

export function readTokens(
  tokens: TokenIds__Output | null,
  field: string,
  limits: RequestLimits,
  check: Checker,
): number[] {
  const ids = tokens?.ids ?? [];
  if (ids.length === 0) check.add(`${field}.ids`, "is empty");
  checkTokenIds(`${field}.ids`, ids, limits, check);
  return ids;
}

/** Names the first id that is none. */
export function checkTokenIds(
  field: string,
  ids: readonly number[],
  limits: RequestLimits,
  check: Checker,
): void {
  const index = ids.findIndex((id) => id >= limits.vocabSize);
  if (index < 0) return;
  check.add(`${field}[${index}]`, `${ids[index]}: the vocabulary has ${limits.vocabSize} tokens`);
}
