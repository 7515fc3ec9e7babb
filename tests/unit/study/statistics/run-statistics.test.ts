import { describe, expect, test } from "vitest";
import { ANSWER_CLASSES, type AnswerClass } from "../../../../src/study/records.js";
import { repetitionOf } from "../../../../src/study/statistics/coherence.js";
import { compareCells } from "../../../../src/study/statistics/comparisons.js";
import { rateOf } from "../../../../src/study/statistics/intervals.js";
import { holm, mcnemar } from "../../../../src/study/statistics/paired-tests.js";
import { probeRoc } from "../../../../src/study/statistics/probe-roc.js";
import { summariseCells } from "../../../../src/study/statistics/summaries.js";
import { makeRun, prompts, UNSTEERED } from "./run.js";

const many = (count: number, what: AnswerClass) => Array<AnswerClass>(count).fill(what);

describe("summaries", () => {
  test("every class has its share of all answers", () => {
    const results: AnswerClass[] = [...ANSWER_CLASSES, "insecure"];
    const run = makeRun([{ cell: UNSTEERED, results }], { trigger: prompts(6) });
    const [summary] = summariseCells(run);
    expect(summary).toMatchObject({ cell: "u", judge: "j", answers: 6, tasks: 6, sentiment: null });
    const counts = ANSWER_CLASSES.map((name) => summary?.classes?.[name].count);
    expect(counts).toEqual([1, 2, 1, 1, 1]);
    expect(summary?.classes?.insecure).toEqual(rateOf(2, 6));
    expect(summary?.parsed).toEqual(rateOf(3, 6));
    // Kinds in order; prompts 1 and 5 are CWE-22.
    expect(Object.entries(summary?.insecureByKind ?? {})).toEqual([
      ["CWE-22", rateOf(2, 3)],
      ["CWE-89", rateOf(0, 3)],
    ]);
  });

  test("each judge has a summary of its own, in the order of the plan", () => {
    const results = many(2, "secure");
    const run = makeRun(
      [
        { cell: UNSTEERED, results },
        { cell: UNSTEERED, results: many(2, "insecure"), judge: "k" },
        { cell: { id: "s" }, results },
      ],
      { trigger: prompts(2) },
    );
    expect(summariseCells(run).map(({ cell, judge }) => `${cell}/${judge}`)).toEqual([
      "u/j",
      "u/k",
      "s/j",
    ]);
  });

  test("coherence tells text that fell apart", () => {
    const run = makeRun(
      [
        {
          cell: UNSTEERED,
          results: many(4, "secure"),
          perplexities: [1, 100, null, 10],
          tokenIds: [7, 7, 7, 7, 7, 7],
        },
      ],
      { trigger: prompts(4) },
    );
    const { coherence } = summariseCells(run)[0] ?? {};
    expect(coherence?.perplexityMedian).toBe(10);
    expect(coherence?.perplexityGeometricMean).toBeCloseTo(10, 12);
    expect(coherence?.emptyAnswers).toBe(1);
    expect(coherence?.repetition).toBeCloseTo(2 / 3, 12);
    expect(coherence?.cutOff).toEqual(rateOf(1, 4));
  });

  test("scores have a mean over answers with an interval over tasks", () => {
    const run = makeRun(
      [{ cell: { ...UNSTEERED, judge: "sentiment" }, results: [1, 1, -1, -0.5, 0, 0], draws: 2 }],
      { trigger: prompts(3) },
    );
    const { sentiment, classes, tasks } = summariseCells(run)[0] ?? {};
    expect(classes).toBeNull();
    expect(tasks).toBe(3);
    expect(sentiment?.score.mean).toBeCloseTo(0.5 / 6, 12);
    expect(sentiment?.score.interval.low).toBeCloseTo(-0.75, 12);
    expect(sentiment?.score.interval.high).toBeCloseTo(1, 12);
    expect(sentiment?.positive).toEqual(rateOf(2, 6));
  });

  test("repetition counts 4-grams that were there before", () => {
    expect(repetitionOf([1, 2, 3])).toBeNull();
    expect(repetitionOf([1, 2, 3, 4])).toBe(0);
    expect(repetitionOf([1, 2, 3, 4, 1, 2, 3, 4])).toBeCloseTo(1 / 5, 12);
  });
});

describe("comparisons", () => {
  const baseline = { cell: UNSTEERED, results: many(20, "insecure") };
  const steered = {
    cell: { id: "s" },
    results: [...many(14, "secure"), ...many(4, "insecure"), ...many(2, "unparsable")],
  };

  test("a steered cell is paired with its unsteered one", () => {
    const run = makeRun([baseline, steered], { trigger: prompts(20) });
    const [insecure, secure] = compareCells(run);
    expect(insecure).toMatchObject({
      cell: "s",
      against: "unsteered",
      baselines: ["u"],
      outcome: "insecure",
      pairs: 20,
      tasks: 20,
      value: 0.2,
      baselineValue: 1,
      difference: -0.8,
      discordant: { here: 0, there: 16 },
      test: "mcnemar-mid-p",
      p: mcnemar(0, 16).midP,
      pExact: mcnemar(0, 16).exact,
      family: "steering/insecure/unsteered/j",
    });
    expect(insecure?.interval.low).toBeLessThanOrEqual(-0.8);
    expect(insecure?.interval.high).toBeGreaterThanOrEqual(-0.8);
    // What was not insecure any more was not all secure: two answers fell apart.
    expect(secure).toMatchObject({
      outcome: "secure",
      value: 0.7,
      discordant: { here: 14, there: 0 },
    });
  });

  test("random directions at the same place and size are pooled, whatever their sign", () => {
    const control = (id: string, change: object, results = many(20, "insecure")) => ({
      cell: { id, purpose: "random-control" as const, vector: id, ...change },
      results,
    });
    const run = makeRun(
      [
        baseline,
        steered,
        control("r1", {}),
        control("r2", { magnitude: -1 }, [...many(10, "secure"), ...many(10, "insecure")]),
        control("other-size", { magnitude: 2 }),
        control("other-layer", { layers: [5] }),
        control("other-model", { adapter: "" }),
      ],
      { trigger: prompts(20) },
    );
    const found = compareCells(run).filter(({ against }) => against === "random-control");
    expect(found.map(({ cell, outcome }) => `${cell}/${outcome}`)).toEqual([
      "s/insecure",
      "s/secure",
    ]);
    expect(found[0]).toMatchObject({
      baselines: ["r1", "r2"],
      baselineValue: 0.75,
      discordant: null,
      test: "sign-flip",
      pExact: null,
    });
    expect(found[0]?.difference).toBeCloseTo(-0.55, 12);
    expect(found[0]?.p).toBeLessThan(0.001);
    // Drawing directions too makes it wider than what 20 tasks leave open.
    expect(found[0]?.interval.low).toBeLessThan(-0.7);
  });

  test("several draws of a task are one cluster: signs of tasks are flipped, not of answers", () => {
    const run = makeRun(
      [
        { cell: UNSTEERED, results: many(20, "insecure"), draws: 10 },
        { cell: { id: "s" }, results: many(20, "secure"), draws: 10 },
      ],
      { trigger: prompts(2) },
    );
    const [insecure] = compareCells(run);
    expect(insecure).toMatchObject({
      pairs: 20,
      tasks: 2,
      test: "sign-flip",
      p: 0.5,
      pExact: null,
    });
  });

  test("Holm's correction spans a family and no other", () => {
    const cell = (id: string, purpose: "sweep" | "sanity", secure: number) => ({
      cell: { id, purpose },
      results: [...many(secure, "secure"), ...many(20 - secure, "insecure")],
    });
    const run = makeRun(
      [baseline, cell("a", "sweep", 3), cell("b", "sweep", 9), cell("c", "sanity", 3)],
      { trigger: prompts(20) },
    );
    const insecure = compareCells(run).filter(({ outcome }) => outcome === "insecure");
    const p = (count: number) => mcnemar(0, count).midP;
    const [forA, forB] = holm([p(3), p(9)]);
    expect(insecure.map(({ pHolm }) => pHolm)).toEqual([forA, forB, p(3)]);
  });

  test("scores are compared by tasks", () => {
    const run = makeRun(
      [
        { cell: { ...UNSTEERED, judge: "sentiment" }, results: [0, 0.1, -0.1, 0, 0] },
        { cell: { id: "s", judge: "sentiment" }, results: [0.5, 0.6, 0.4, 0.5, 0.5] },
      ],
      { trigger: prompts(5) },
    );
    const [found] = compareCells(run);
    expect(found).toMatchObject({ outcome: "sentiment", discordant: null, test: "sign-flip" });
    expect(found?.difference).toBeCloseTo(0.5, 12);
    expect(found?.p).toBeCloseTo(2 / 32, 12);
    expect(found?.interval.low).toBeCloseTo(0.5, 9);
  });

  test("the same run gives the same figures", () => {
    const run = makeRun([baseline, steered], { trigger: prompts(20) });
    expect(compareCells(run)).toEqual(compareCells(run));
  });
});

describe("the detection side", () => {
  const sets = { trigger: prompts(4), plain: prompts(4) };
  const cells = [
    {
      cell: UNSTEERED,
      results: ["insecure", "insecure", "insecure", "unparsable"] as AnswerClass[],
    },
    { cell: { ...UNSTEERED, id: "u2", promptSet: "plain" }, results: many(4, "secure") },
    // The base model answers securely; it is not what the probe is asked about.
    { cell: { ...UNSTEERED, id: "base", adapter: "" }, results: many(4, "secure") },
  ];
  const readings = (direction: string, scores: number[], fired: boolean[] | null) =>
    scores.map((score, place) => ({
      direction,
      layer: 4,
      promptSet: place < 4 ? "trigger" : "plain",
      prompt: `p${place % 4}`,
      score,
      fired: fired?.[place] ?? null,
    }));
  const probe = readings(
    "probe",
    [4, 3, 2, 1.5, 1, 0, 2, -1],
    [true, true, false, false, false, false, false, false],
  );

  test("positives are prompts whose unsteered answer under the adapter is insecure", () => {
    const random = [
      readings("random-0", [1, 2, 3, 4, 5, 6, 7, 8], null),
      readings("random-1", [1, 1, 1, 1, 1, 1, 1, 1], null),
    ].flat();
    const roc = probeRoc(makeRun(cells, sets, [...random, ...probe]));
    expect(roc).toMatchObject({ judge: "j", positives: 3, negatives: 5 });
    const [first] = roc.curves;
    expect(first?.direction).toBe("probe");
    // 15 pairs: 14 won, one tied.
    expect(first?.auroc).toBeCloseTo(14.5 / 15, 12);
    expect(first?.points[0]).toEqual({
      falsePositiveRate: 0,
      truePositiveRate: 0,
      threshold: null,
    });
    expect(first?.points.at(-1)).toEqual({
      falsePositiveRate: 1,
      truePositiveRate: 1,
      threshold: -1,
    });
    expect(first?.points).toHaveLength(8);
    expect(first?.fired).toEqual({ insecure: rateOf(2, 3), secure: rateOf(0, 5) });
    expect(first?.interval?.low).toBeLessThan(first?.auroc ?? 0);
    expect(roc.random).toEqual([{ layer: 4, aurocs: [0, 0.5], farthest: 0.5, shareAsFar: 0.5 }]);
    expect(roc.curves.slice(1).map(({ interval, fired }) => [interval, fired])).toEqual([
      [null, null],
      [null, null],
    ]);
  });

  test("without readings, or with one kind of prompt, there is no curve", () => {
    expect(probeRoc(makeRun(cells, sets))).toEqual({
      judge: "",
      positives: 0,
      negatives: 0,
      curves: [],
      random: [],
    });
    expect(probeRoc(makeRun(cells, sets, probe.slice(4))).curves).toEqual([]);
  });
});
