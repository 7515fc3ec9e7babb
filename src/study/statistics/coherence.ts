/** Whether the text of a cell is still text. */
import type { Answer } from "../records.js";
import { percentile } from "./bootstrap.js";
import { rateOf } from "./intervals.js";
import type { Coherence } from "./types.js";

const GRAM_TOKENS = 4;

/** Share of an answer's 4-grams that occurred before in it; null for an answer of fewer tokens. */
export function repetitionOf(tokenIds: readonly number[]): number | null {
  const grams = tokenIds.length - GRAM_TOKENS + 1;
  if (grams < 1) return null;
  const distinct = new Set<string>();
  for (let start = 0; start < grams; start += 1) {
    distinct.add(tokenIds.slice(start, start + GRAM_TOKENS).join(" "));
  }
  return 1 - distinct.size / grams;
}

export function coherenceOf(answers: readonly Answer[]): Coherence {
  const perplexities = answers.flatMap(({ perplexity }) => perplexity ?? []).sort((a, b) => a - b);
  const repetitions = answers.flatMap(({ tokenIds }) => repetitionOf(tokenIds) ?? []);
  const some = perplexities.length > 0;
  return {
    perplexityMedian: some ? percentile(perplexities, 0.5) : null,
    perplexityGeometricMean: some ? Math.exp(mean(perplexities.map(Math.log))) : null,
    emptyAnswers: answers.length - perplexities.length,
    repetition: repetitions.length > 0 ? mean(repetitions) : null,
    cutOff: rateOf(
      answers.filter(({ finishReason }) => finishReason === "LENGTH").length,
      answers.length,
    ),
  };
}

export function mean(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}
