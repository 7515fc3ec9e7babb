/** sentiment-goldens.json is written by training/sentiment_judge.py. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { judgeConfigSchema } from "../../../../src/study/judges/config.js";
import { openJudges } from "../../../../src/study/judges/open.js";
import { readSentimentModel, scoreSentiment } from "../../../../src/study/judges/sentiment.js";
import { answer } from "./answers.js";

const file = (path: string) => readFileSync(new URL(path, import.meta.url), "utf8");
const signal = new AbortController().signal;
const model = readSentimentModel();

test("scores are those of the training script", () => {
  const goldens = JSON.parse(file("./sentiment-goldens.json")) as { text: string; score: number }[];
  expect(goldens.length).toBeGreaterThan(150);
  for (const { text, score } of goldens) {
    expect(Math.abs(scoreSentiment(model, text).score - score)).toBeLessThan(1e-6);
  }
});

test("the accuracy on labelled answers is the one on the card", () => {
  const rows = file("../../../../models/sentiment-judge/labelled-reviews.jsonl")
    .trim()
    .split("\n")
    .map((line) => JSON.parse(line) as { text: string; label: string });
  const decided = rows.filter(({ label }) => label !== "neither");
  const right = decided.filter(({ text, label }) => {
    const { score } = scoreSentiment(model, text);
    return label === "positive" ? score > 0 : score < 0;
  });
  const percent = ((100 * right.length) / decided.length).toFixed(1);
  const card = file("../../../../models/sentiment-judge/README.md");
  expect(card).toContain(`labelled positive or negative | ${decided.length} | ${percent}% |`);
});

test("a judgement has a score, no class, and the terms that weighed most", async () => {
  const [judge] = openJudges(
    [judgeConfigSchema.parse({ name: "mood", type: "sentiment" })],
    "unused",
  );
  const texts = [
    "A delicious, excellent meal.",
    "It is not good. A dirty room!",
    "",
    "The the the.",
  ];
  const judged = await judge?.judge(
    texts.map((text, row) => answer(text, { row: String(row) })),
    signal,
  );
  expect(judged?.map(({ row, judge: name, class: found }) => [row, name, found])).toEqual(
    ["0", "1", "2", "3"].map((row) => [row, "mood", null]),
  );
  const scores = judged?.map(({ score }) => score ?? Number.NaN) ?? [];
  expect(scores[0]).toBeGreaterThan(0.5);
  expect(scores[1]).toBeLessThan(-0.5);
  expect(scores[2]).toBe(0);
  expect(judged?.[0]?.findings).toContain("+delicious");
  expect(judged?.[1]?.findings).toEqual(expect.arrayContaining(["-dirty", "-good"]));
  expect(judged?.[2]?.findings).toEqual([]);
  expect(await judge?.version(signal)).toMatch(/^sentiment sha256:[0-9a-f]{12}$/);
});

test("a term that repeats for ever stays within the range", () => {
  const { score, findings } = scoreSentiment(model, "wonderful ".repeat(10_000));
  expect(score).toBeLessThanOrEqual(1);
  expect(score).toBeGreaterThan(0.9);
  expect(findings.length).toBeLessThanOrEqual(12);
});
