/** The checkpoint's chat template, rendered as transformers' `apply_chat_template` does. */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { Template } from "@huggingface/jinja";
import { invalid, StartupError } from "../errors.js";
import { isObject, type JsonObject, readJsonObject, reasonOf } from "./json.js";

export interface ChatMessage {
  role: string;
  content: string;
}

export interface ChatInput {
  messages: ChatMessage[];
  addGenerationPrompt: boolean;
  /** Passed as `date_string`; null: not passed. */
  date: string | null;
}

export class ChatTemplate {
  private constructor(
    private readonly template: Template,
    /** Texts of special tokens by their names in templates: bos_token, eos_token, … */
    private readonly tokens: Record<string, string>,
  ) {}

  /** Null when the checkpoint has none. */
  static open(folder: string): ChatTemplate | null {
    const configFile = path.join(folder, "tokenizer_config.json");
    const config = existsSync(configFile) ? readJsonObject(configFile) : {};
    const ownFile = path.join(folder, "chat_template.jinja");
    const source = existsSync(ownFile) ? readFileSync(ownFile, "utf8") : templateOf(config);
    if (source === null) return null;
    try {
      return new ChatTemplate(new Template(source), tokenTexts(config));
    } catch (error) {
      throw new StartupError(`${folder}: the chat template cannot be parsed: ${reasonOf(error)}`);
    }
  }

  /** `field` is the path of the chat in the request, for errors of the template. */
  render(chat: ChatInput, field: string): string {
    try {
      return this.template.render({
        ...this.tokens,
        messages: chat.messages.map(({ role, content }) => ({ role, content })),
        // Defined but none, as `apply_chat_template` passes them: templates ask for either.
        tools: null,
        documents: null,
        add_generation_prompt: chat.addGenerationPrompt,
        ...(chat.date === null ? {} : { date_string: chat.date }),
      });
    } catch (error) {
      throw invalid(`${field}.messages`, `the chat template refuses them: ${reasonOf(error)}`);
    }
  }
}

/** `chat_template` is a string, or a list of named ones of which "default" counts. */
function templateOf(config: JsonObject): string | null {
  const value = config["chat_template"];
  if (typeof value === "string") return value;
  if (!Array.isArray(value)) return null;
  const chosen: unknown = value.find((entry) => isObject(entry) && entry["name"] === "default");
  return isObject(chosen) && typeof chosen["template"] === "string" ? chosen["template"] : null;
}

const TOKEN_NAMES = ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"];

/** A token that is not set is undefined in templates. */
function tokenTexts(config: JsonObject): Record<string, string> {
  const texts: Record<string, string> = {};
  for (const name of TOKEN_NAMES) {
    const text = tokenText(config[name]);
    if (text !== null) texts[name] = text;
  }
  return texts;
}

/** A token is a string or an object with its content. */
function tokenText(value: unknown): string | null {
  if (typeof value === "string") return value;
  return isObject(value) && typeof value["content"] === "string" ? value["content"] : null;
}
