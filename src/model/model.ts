/** The model as the rest of the service sees it: names, text and numbers, no weights. */
import { createHash } from "node:crypto";
import path from "node:path";
import { FailedPreconditionError, invalid } from "../errors.js";
import type { NativeLlamaConfig } from "../native/binding.js";
import { type ChatInput, ChatTemplate } from "./chat-template.js";
import { type Checkpoint, openCheckpoint } from "./checkpoint.js";
import { type TokenBytes, tokenBytesOf } from "./token-bytes.js";
import { Tokenizer } from "./tokenizer.js";

export interface LoadedModel {
  name: string;
  checkpoint: Checkpoint;
  config: NativeLlamaConfig;
  tokenizer: Tokenizer;
  tokenBytes: TokenBytes;
  /** Of the adapter in the weights; empty: none. */
  mergedAdapterDigest: string;
  /** Null when the checkpoint has none. */
  chatTemplate: ChatTemplate | null;
}

/** Reads everything but the weights. Throws a StartupError. */
export function openModel(folder: string, name: string | null): LoadedModel {
  const checkpoint = openCheckpoint(folder);
  const tokenizer = Tokenizer.open(folder, checkpoint.config.vocabSize);
  return {
    name: name ?? path.basename(path.resolve(folder)),
    checkpoint,
    config: checkpoint.config,
    tokenizer,
    tokenBytes: tokenBytesOf(tokenizer),
    mergedAdapterDigest: "",
    chatTemplate: ChatTemplate.open(folder),
  };
}

/** The model that an adapter makes of the weights; it has a fingerprint of its own. */
export function mergedModel(model: LoadedModel, adapterDigest: string): LoadedModel {
  const { checkpoint } = model;
  const hash = createHash("sha256").update(`${checkpoint.fingerprint}\0${adapterDigest}`);
  const fingerprint = `sha256:${hash.digest("hex")}`;
  return {
    ...model,
    checkpoint: { ...checkpoint, fingerprint },
    mergedAdapterDigest: adapterDigest,
  };
}

export interface ChatRequest extends ChatInput {
  allowSpecialTokens: boolean;
}

const ROLE = /^[a-z][a-z0-9_-]{0,31}$/;

/**
 * The prompt text of a conversation; `field` is its path in the request. Throws
 * FailedPreconditionError without a template, InvalidArgumentError with the path of what is wrong.
 */
export function renderChat(model: LoadedModel, chat: ChatRequest, field: string): string {
  if (!model.chatTemplate) {
    throw new FailedPreconditionError("the checkpoint has no chat template", "NO_CHAT_TEMPLATE");
  }
  if (chat.messages.length === 0) throw invalid(`${field}.messages`, "is empty");
  for (const [index, { role, content }] of chat.messages.entries()) {
    const path = `${field}.messages[${index}]`;
    if (!ROLE.test(role)) throw invalid(`${path}.role`, `does not match ${ROLE.source}`);
    if (!chat.allowSpecialTokens) refuseSpecialTokens(model, content, `${path}.content`);
  }
  if (!chat.allowSpecialTokens) refuseSpecialTokens(model, chat.date ?? "", `${field}.date`);
  return model.chatTemplate.render(chat, field);
}

/** A user's text must not close its own turn. */
function refuseSpecialTokens(model: LoadedModel, text: string, field: string): void {
  const special = model.tokenizer.findSpecialToken(text);
  if (special === null) return;
  throw invalid(
    field,
    `holds the special token ${special}; set allow_special_tokens if that is meant`,
  );
}
