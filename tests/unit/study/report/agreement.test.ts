import { describe, expect, it } from "vitest";
import type { AnswerClass, Judgement } from "../../../../src/study/records.js";
import { agreementsOf } from "../../../../src/study/report/agreement.js";
import { syntheticRun } from "../../../support/study-run.js";

const template = syntheticRun({ tasks: 4, magnitudes: [1] });

function agreementOf(verdicts: [AnswerClass, AnswerClass, number][]) {
  const judgements: Judgement[] = verdicts.flatMap(([first, second, times], group) =>
    Array.from({ length: times }, (_, index) => `${group}-${index}`).flatMap((row) => [
      { row, judge: "one", class: first, score: null, findings: [] },
      { row, judge: "two", class: second, score: null, findings: [] },
    ]),
  );
  return agreementsOf({ ...template, judgements });
}

describe("the agreement of two judges", () => {
  it("is the share of equal classes, and Cohen's kappa", () => {
    // Observed 0.7, by chance 0.5.
    const [agreement] = agreementOf([
      ["secure", "secure", 20],
      ["secure", "insecure", 5],
      ["insecure", "secure", 10],
      ["insecure", "insecure", 15],
    ]);
    expect(agreement).toMatchObject({ first: "one", second: "two", answers: 50 });
    expect(agreement?.same.rate).toBe(0.7);
    expect(agreement?.kappa).toBeCloseTo(0.4, 12);
    expect(agreement?.counts.slice(0, 2).map((line) => line.slice(0, 2))).toEqual([
      [20, 5],
      [10, 15],
    ]);
  });

  it("has no kappa where both say one class only", () => {
    const [agreement] = agreementOf([["secure", "secure", 9]]);
    expect(agreement?.same.rate).toBe(1);
    expect(agreement?.kappa).toBeNull();
  });

  it("counts the answers that both judged, and no judge of sentiment", () => {
    const agreements = agreementsOf(template);
    const code = template.judgements.filter(({ judge }) => judge === "bandit").length;
    expect(agreements.map(({ first, second, answers }) => [first, second, answers])).toEqual([
      ["bandit", "semgrep", code],
    ]);
  });
});
