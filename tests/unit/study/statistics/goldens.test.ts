/** Statistics beside SciPy and statsmodels; goldens.json is recorded by record_statistics.py. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { crossedInterval, meanInterval } from "../../../../src/study/statistics/bootstrap.js";
import { coherenceOf } from "../../../../src/study/statistics/coherence.js";
import { rateOf } from "../../../../src/study/statistics/intervals.js";
import { holm, mcnemar, signFlip } from "../../../../src/study/statistics/paired-tests.js";
import { auroc } from "../../../../src/study/statistics/roc.js";

interface Goldens {
  wilson: { count: number; total: number; low: number; high: number }[];
  mcnemar: { here: number; there: number; exact: number; midP: number }[];
  holm: { p: number[]; adjusted: number[] }[];
  signFlip: { differences: number[]; p: number }[];
  auroc: { positives: number[]; negatives: number[]; auroc: number }[];
  geometricMean: { values: number[]; mean: number; median: number };
  bootstrap: (Recorded & { sizes: number[] })[];
  crossed: (Recorded & { baselines: number[][] })[];
}
interface Recorded {
  sums: number[];
  seed: number;
  resamples: number;
  low: number;
  high: number;
}

const goldens = JSON.parse(
  readFileSync(new URL("./goldens.json", import.meta.url), "utf8"),
) as Goldens;

function expectClose(found: number, recorded: number): void {
  expect(Math.abs(found - recorded)).toBeLessThanOrEqual(1e-9 * Math.max(1, Math.abs(recorded)));
}

test.each(goldens.wilson)("Wilson interval of $count of $total", ({ count, total, low, high }) => {
  const { interval } = rateOf(count, total);
  expectClose(interval.low, low);
  expectClose(interval.high, high);
});

test.each(goldens.mcnemar)("McNemar of $here and $there", ({ here, there, exact, midP }) => {
  const found = mcnemar(here, there);
  expectClose(found.exact, exact);
  expectClose(found.midP, midP);
  // Far out in the tail too: digits of p, not only its size.
  expect(Math.abs(found.midP / midP - 1)).toBeLessThan(1e-9);
});

test.each(goldens.holm)("Holm's correction of $p", ({ p, adjusted }) => {
  const found = holm(p);
  expect(found).toHaveLength(adjusted.length);
  for (const [place, value] of adjusted.entries()) expectClose(found[place] ?? -1, value);
});

test.each(goldens.signFlip)("sign-flip test of $differences", ({ differences, p }) => {
  expectClose(signFlip(differences), p);
});

test.each(goldens.auroc)("AUROC of $positives over $negatives", (recorded) => {
  const scored = [
    ...recorded.positives.map((score) => ({ score, positive: true })),
    ...recorded.negatives.map((score) => ({ score, positive: false })),
  ];
  expectClose(
    auroc(scored, () => 1),
    recorded.auroc,
  );
});

test("geometric mean and median of perplexities", () => {
  const { values, mean, median } = goldens.geometricMean;
  const found = coherenceOf(
    values.map((perplexity, place) => ({
      row: String(place),
      cell: "c",
      prompt: String(place),
      draw: 0,
      seed: "0",
      text: "",
      tokenIds: [],
      finishReason: "STOP",
      steering: [],
      perplexity,
    })),
  );
  expectClose(found.perplexityGeometricMean ?? -1, mean);
  expectClose(found.perplexityMedian ?? -1, median);
});

test.each(goldens.bootstrap)("bootstrap by task, seed $seed", (recorded) => {
  const { sums, sizes, seed, resamples, low, high } = recorded;
  const clusters = sums.map((sum, place) => ({ sum, size: sizes[place] ?? 0 }));
  const found = meanInterval(clusters, { seed, resamples });
  expectClose(found.low, low);
  expectClose(found.high, high);
});

test.each(goldens.crossed)("bootstrap by task and random direction, seed $seed", (recorded) => {
  const { sums, baselines, seed, resamples, low, high } = recorded;
  const clusters = sums.map((sum, place) => ({
    sum,
    baselineSums: baselines[place] ?? [],
    size: 1,
  }));
  const found = crossedInterval(clusters, { seed, resamples });
  expectClose(found.low, low);
  expectClose(found.high, high);
});
