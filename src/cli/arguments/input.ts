/** Prompts of a command: --prompt, --chat with --system, or --file. */
import { readFileSync } from "node:fs";
import type { CaptureInput, Chat, ChatMessage } from "../../client/client.js";
import { UsageError } from "../exit.js";

export interface InputOptions {
  prompt?: string;
  chat?: string;
  system?: string;
  file?: string;
}

/** The one input that the options give. Throws a UsageError when there is none, or more than one. */
export function readInput(options: InputOptions): CaptureInput {
  const { prompt, chat, system, file } = options;
  const given = [prompt, chat, file].filter((value) => value !== undefined);
  if (given.length !== 1) {
    throw new UsageError(
      given.length === 0
        ? "say what to continue: --prompt TEXT, --chat TEXT or --file FILE (- is standard input)"
        : "give only one of --prompt, --chat and --file",
    );
  }
  if (system !== undefined && chat === undefined) throw new UsageError("--system needs --chat");
  if (prompt !== undefined) return { prompt };
  if (chat !== undefined) return { chat: chatOf(chat, system) };
  return readInputFile(file as string);
}

export function chatOf(user: string, system?: string): Chat {
  const messages: ChatMessage[] = [{ role: "user", content: user }];
  if (system !== undefined) messages.unshift({ role: "system", content: system });
  return { messages };
}

/** A .json file is a conversation; any other is a prompt as it stands. */
function readInputFile(file: string): CaptureInput {
  const text = readText(file);
  if (!file.endsWith(".json")) return { prompt: text };
  const content = parseJson(text, file);
  return inputOf(Array.isArray(content) ? { messages: content } : content, file);
}

/** One prompt a line, or, in a .jsonl file, one string or object a line. */
export function readInputLines(file: string): CaptureInput[] {
  return readLines(file).map(({ text, place }) =>
    file.endsWith(".jsonl") ? inputOf(parseJson(text, place), place) : { prompt: text },
  );
}

/** Lines that are not blank, with `FILE:LINE` for errors. */
export function readLines(file: string): { text: string; place: string }[] {
  const lines = readText(file)
    .split(/\r?\n/)
    .map((text, index) => ({ text, place: `${file}:${index + 1}` }))
    .filter(({ text }) => text.trim() !== "");
  if (lines.length === 0) throw new UsageError(`${file}: is empty`);
  return lines;
}

/** A prompt from JSON: "text", {"prompt": "text"} or {"messages": [{role, content}]}. */
export function inputOf(value: unknown, place: string): CaptureInput {
  if (typeof value === "string") return { prompt: value };
  const { prompt, messages } = (value ?? {}) as Record<string, unknown>;
  if (typeof prompt === "string") return { prompt };
  if (Array.isArray(messages) && messages.length > 0 && messages.every(isMessage)) {
    return { chat: { messages } };
  }
  throw new UsageError(
    `${place}: is neither a text, {"prompt": …} nor {"messages": [{"role": …, "content": …}]}`,
  );
}

function isMessage(value: unknown): value is { role: string; content: string } {
  const { role, content } = (value ?? {}) as Record<string, unknown>;
  return typeof role === "string" && typeof content === "string";
}

export function parseJson(text: string, place: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new UsageError(`${place}: is not JSON: ${(error as Error).message}`);
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file === "-" ? 0 : file, "utf8");
  } catch (error) {
    throw new UsageError(`${file}: cannot be read: ${(error as Error).message}`);
  }
}
