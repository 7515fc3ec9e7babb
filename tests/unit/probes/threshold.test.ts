import { describe, expect, it } from "vitest";
import { thresholdOf } from "../../../src/probes/threshold.js";
import { auroc, scoreReads } from "../../../src/vectors/derive/score.js";
import { seededNormals } from "../../../src/vectors/random.js";

describe("the threshold", () => {
  const scores = Float64Array.from([5, 1, 4, 2, 3, 10, 9, 8, 7, 6]);

  it.each([
    [0, 10, 0],
    [0.05, 10, 0],
    [0.1, 9, 0.1],
    [0.25, 8, 0.2],
    [0.99, 1, 0.9],
  ])("at a rate of %d is %d", (rate, score, measured) => {
    const calibration = thresholdOf(scores, rate);
    expect(calibration.threshold).toBe(score);
    expect(calibration.measuredFalsePositiveRate).toBe(measured);
    expect(calibration).toMatchObject({
      falsePositiveRate: rate,
      benignInputs: 10,
      benignMean: 5.5,
    });
    expect(calibration.benignStandardDeviation).toBeCloseTo(Math.sqrt(8.25), 12);
  });

  it("never lets more fire than asked for, equal scores included", () => {
    for (let seed = 0; seed < 50; seed += 1) {
      const drawn = [...seededNormals(BigInt(seed), 0, 1 + seed * 3)];
      const rounded = Float64Array.from(drawn, (value) => Math.round(value * 2));
      for (const rate of [0, 0.01, 0.1, 0.5, 0.9]) {
        const { threshold, measuredFalsePositiveRate } = thresholdOf(rounded, rate);
        expect(measuredFalsePositiveRate).toBeLessThanOrEqual(rate);
        expect(rounded.filter((score) => score > threshold).length / rounded.length).toBe(
          measuredFalsePositiveRate,
        );
      }
    }
  });
});

describe("AUROC", () => {
  it.each([
    [[1, 2, 3, 4], [false, false, true, true], 1],
    [[1, 2, 3, 4], [true, true, false, false], 0],
    [[1, 1, 1, 1], [true, false, true, false], 0.5],
    [[1, 2, 2, 3], [false, false, true, true], 0.875],
    [[-1, 5, 0], [true, false, true], 0],
  ])("of %j labelled %j is %d", (scores, positive, expected) => {
    expect(auroc(scores, positive)).toBe(expected);
  });

  it("is the share of pairs in the right order, ties half", () => {
    const scores = [...seededNormals(3n, 0, 60)].map((value) => Math.round(value * 3));
    const positive = [...seededNormals(4n, 0, 60)].map((value) => value > 0.3);
    let wins = 0;
    let pairs = 0;
    for (const [i, score] of scores.entries()) {
      for (const [j, other] of scores.entries()) {
        if (!positive[i] || positive[j]) continue;
        pairs += 1;
        wins += score > other ? 1 : score === other ? 0.5 : 0;
      }
    }
    expect(auroc(scores, positive)).toBeCloseTo(wins / pairs, 12);
  });
});

describe("scores of reads", () => {
  const reads = { rows: 4, columns: 2, values: Float32Array.of(3, 4, 1, 0, -1, 0, 0, 2) };
  const task = {
    kind: "score",
    reads,
    direction: Float32Array.of(1, 0),
    scores: null,
    positive: [true, null, false, null],
    randomDirections: 20,
    randomSeed: 5n,
  } as const;

  it("are dot products; only labelled texts count", () => {
    const { scores, discrimination } = scoreReads({ ...task, positive: [...task.positive] });
    expect([...scores]).toEqual([3, 1, -1, 0]);
    expect(discrimination).toMatchObject({ auroc: 1, positives: 1, negatives: 1, randomSeed: "5" });
    expect(discrimination?.randomAuroc).toHaveLength(20);
    expect(Math.min(...(discrimination?.randomAuroc ?? []))).toBeGreaterThanOrEqual(0.5);
  });

  it("are taken as the engine has them where it does", () => {
    const given = Float64Array.of(-1, 0, 1, 0);
    const { scores, discrimination } = scoreReads({
      ...task,
      positive: [...task.positive],
      scores: given,
    });
    expect([...scores]).toEqual([...given]);
    expect(discrimination?.auroc).toBe(0);
  });

  it("have no discrimination without both kinds", () => {
    for (const positive of [
      [null, null, null, null],
      [true, true, null, true],
      [false, null, null, null],
    ]) {
      expect(scoreReads({ ...task, positive }).discrimination).toBeNull();
    }
  });
});
