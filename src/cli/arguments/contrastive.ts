/** Contrastive pairs and texts of files, and which token of them is read. */
import { type Command, Option } from "commander";
import type { ContrastiveInput, ContrastivePair, TokenRule } from "../../client/client.js";
import { UsageError } from "../exit.js";
import { chatOf, inputOf, parseJson, readLines } from "./input.js";

export interface TokenOptions {
  token?: keyof typeof RULES;
  atText?: string;
  asChat?: boolean;
}

const RULES = {
  last: "TOKEN_RULE_LAST",
  "all-mean": "TOKEN_RULE_ALL_MEAN",
  "completion-mean": "TOKEN_RULE_COMPLETION_MEAN",
} as const;

export const PAIRS_HELP =
  'JSONL of {"positive": …, "negative": …}: each a text, {"prompt": …} or {"messages": […]}, the ' +
  'latter two with a "completion" if you like';

/** The options that say what is read of each text. */
export function addTokenOptions(command: Command): Command {
  return command
    .addOption(
      new Option("--token <RULE>", "which tokens are read: the last, or a mean (default: last)")
        .choices(Object.keys(RULES))
        .conflicts("atText"),
    )
    .option("--at-text <TEXT>", "read at the token that completes this text")
    .addOption(asChatOption());
}

export const asChatOption = () =>
  new Option("--as-chat", "texts are messages of a user, through the chat template");

export function tokenRuleOf({ token, atText }: TokenOptions): {
  tokenRule?: TokenRule;
  tokenText?: string;
} {
  if (atText !== undefined) return { tokenRule: "TOKEN_RULE_AT_TEXT", tokenText: atText };
  return token === undefined ? {} : { tokenRule: RULES[token] };
}

/** Throws a UsageError with `FILE:LINE`. */
export function readPairs(file: string, asChat = false): ContrastivePair[] {
  return readLines(file).map(({ text, place }) => {
    const { positive, negative } = (parseJson(text, place) ?? {}) as Record<string, unknown>;
    if (positive === undefined || negative === undefined) {
      throw new UsageError(`${place}: needs "positive" and "negative"`);
    }
    return {
      positive: contrastiveInput(positive, `${place}: positive`, asChat),
      negative: contrastiveInput(negative, `${place}: negative`, asChat),
    };
  });
}

/** One text a line, or, in a .jsonl file, a text or an object a line. */
export function readTexts(file: string, asChat = false): ContrastiveInput[] {
  return readLines(file).map(({ text, place }) =>
    contrastiveInput(file.endsWith(".jsonl") ? parseJson(text, place) : text, place, asChat),
  );
}

function contrastiveInput(value: unknown, place: string, asChat: boolean): ContrastiveInput {
  const { prompt, chat } = inputOf(value, place);
  const { completion } = (value ?? {}) as Record<string, unknown>;
  if (completion !== undefined && typeof completion !== "string") {
    throw new UsageError(`${place}: "completion" is no text`);
  }
  return {
    ...(chat || asChat ? { chat: chat ?? chatOf(prompt ?? "") } : { prompt: prompt ?? "" }),
    ...(completion !== undefined && { completion }),
  };
}
