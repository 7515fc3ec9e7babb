/** A judge of sentiment: one table of weights, made by training/sentiment_judge.py, which computes the same score. */
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { z } from "zod";
import type { Judge } from "./judge.js";

const MODEL = fileURLToPath(new URL("../../../models/sentiment-judge/model.json", import.meta.url));
const TOKEN = /[a-z]+(?:'[a-z]+)?|[.!?;\n]/g;
const MAX_FINDINGS = 12;

const modelSchema = z.strictObject({
  negations: z.array(z.string()),
  negationReachWords: z.int().min(0),
  negated: z.number(),
  weights: z.record(z.string(), z.number()),
});

export interface SentimentModel {
  negations: ReadonlySet<string>;
  negationReachWords: number;
  /** What a word after a negation counts. */
  negated: number;
  /** By word, and by pair of neighbouring words ("a b"). */
  weights: ReadonlyMap<string, number>;
  digest: string;
}

/** Throws an Error for a file that is no model. */
export function readSentimentModel(file: string = MODEL): SentimentModel {
  const bytes = readFileSync(file);
  const { weights, negations, ...rest } = modelSchema.parse(JSON.parse(bytes.toString("utf8")));
  return {
    ...rest,
    negations: new Set(negations),
    weights: new Map(Object.entries(weights)),
    digest: createHash("sha256").update(bytes).digest("hex"),
  };
}

/** Signed counts of words and pairs, and the number of words. */
function termsOf(
  model: SentimentModel,
  text: string,
): { terms: Map<string, number>; words: number } {
  const terms = new Map<string, number>();
  const add = (term: string, value: number) => terms.set(term, (terms.get(term) ?? 0) + value);
  let words = 0;
  let previous = "";
  let sinceNegation = model.negationReachWords + 1;
  for (const [token] of text.toLowerCase().replaceAll("\u2019", "'").matchAll(TOKEN)) {
    if (token < "a") {
      previous = "";
      sinceNegation = model.negationReachWords + 1;
      continue;
    }
    words += 1;
    sinceNegation += 1;
    add(token, sinceNegation <= model.negationReachWords ? model.negated : 1);
    if (previous !== "") add(`${previous} ${token}`, 1);
    if (model.negations.has(token) || token.endsWith("n't")) sinceNegation = 0;
    previous = token;
  }
  return { terms, words };
}

/** Score, −1 to 1; 0 for a text without a known term. `findings`: the terms that weighed most, signed, sorted. */
export function scoreSentiment(
  model: SentimentModel,
  text: string,
): { score: number; findings: string[] } {
  const { terms, words } = termsOf(model, text);
  let total = 0;
  const weighed: { term: string; by: number }[] = [];
  for (const [term, value] of terms) {
    const by = value * (model.weights.get(term) ?? 0);
    total += by;
    if (by !== 0) weighed.push({ term, by });
  }
  weighed.sort((a, b) => Math.abs(b.by) - Math.abs(a.by) || (a.term < b.term ? -1 : 1));
  const findings = weighed
    .slice(0, MAX_FINDINGS)
    .map(({ term, by }) => (by > 0 ? `+${term}` : `-${term}`));
  return { score: Math.tanh(total / Math.sqrt(Math.max(words, 1)) / 2), findings: findings.sort() };
}

export function openSentimentJudge(name: string): Judge {
  const model = readSentimentModel();
  return {
    name,
    kind: "sentiment",
    version: async () => `sentiment sha256:${model.digest.slice(0, 12)}`,
    judge: async (answers, signal) =>
      answers.map(({ row, text }) => {
        signal.throwIfAborted();
        return { row, judge: name, class: null, ...scoreSentiment(model, text) };
      }),
  };
}
