/** The model as the rest of the service sees it: names, text and numbers, no weights. */
import path from "node:path";
import { FailedPreconditionError, invalid } from "../errors.js";
import type { NativeLlamaConfig } from "../native/binding.js";
import { type ChatInput, ChatTemplate } from "./chat-template.js";
import { type Checkpoint, openCheckpoint } from "./checkpoint.js";
import { Tokenizer } from "./tokenizer.js";

export interface LoadedModel {
  name: string;
  checkpoint: Checkpoint;
  config: NativeLlamaConfig;
  tokenizer: Tokenizer;
  /** Null when the checkpoint has none. */
  chatTemplate: ChatTemplate | null;
}

/** Reads everything but the weights. Throws a StartupError. */
export function openModel(folder: string, name: string | null): LoadedModel {
  const checkpoint = openCheckpoint(folder);
  return {
    name: name ?? path.basename(path.resolve(folder)),
    checkpoint,
    config: checkpoint.config,
    tokenizer: Tokenizer.open(folder, checkpoint.config.vocabSize),
    chatTemplate: ChatTemplate.open(folder),
  };
}

export interface ChatRequest extends ChatInput {
  allowSpecialTokens: boolean;
}

/** The prompt text of a conversation; `field` is its path in the request. */
export function renderChat(model: LoadedModel, chat: ChatRequest, field: string): string {
  if (!model.chatTemplate) {
    throw new FailedPreconditionError("the checkpoint has no chat template", "NO_CHAT_TEMPLATE");
  }
  if (!chat.allowSpecialTokens) {
    for (const [index, message] of chat.messages.entries()) {
      for (const [name, text] of Object.entries(message)) {
        const special = model.tokenizer.findSpecialToken(text);
        if (special !== null) {
          throw invalid(
            `${field}.messages[${index}].${name}`,
            `holds the special token ${special}; set allow_special_tokens if that is meant`,
          );
        }
      }
    }
  }
  return model.chatTemplate.render(chat, field);
}
