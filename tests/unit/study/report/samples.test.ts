/** Which answers a report's page holds. */
import { describe, expect, it } from "vitest";
import { joinRows } from "../../../../src/study/report/rows.js";
import { drawSamples } from "../../../../src/study/report/samples.js";
import { syntheticRun } from "../../../support/study-run.js";

describe("the sample of answers", () => {
  const run = syntheticRun({ tasks: 60, magnitudes: [1] });
  const samples = drawSamples(run, joinRows(run));

  it("is bounded, and holds every cell alike, each steered answer with its unsteered one", () => {
    expect(samples.rows.length).toBeLessThanOrEqual(2400);
    expect(samples.rows.length).toBeLessThan(run.answers.length);
    const perCell = run.plan.cells.map(
      (_, index) => samples.rows.filter(({ cell }) => cell === index).length,
    );
    expect(new Set(perCell)).toEqual(new Set([samples.perCell]));
    for (const { cell, prompt, paired } of samples.rows) {
      expect(paired >= 0).toBe(run.plan.cells[cell]?.pairedWith !== null);
      if (paired >= 0) expect(samples.rows[paired]?.prompt).toBe(prompt);
    }
  });

  it("depends on the plan and not on what the answers say", () => {
    const other = structuredClone(run);
    for (const answer of other.answers) answer.text = "";
    const rowsOf = (one: typeof run) => drawSamples(one, joinRows(one)).rows.map(({ row }) => row);
    expect(rowsOf(other)).toEqual(rowsOf(run));
    other.plan.digest = "sha256:another";
    expect(rowsOf(other)).not.toEqual(rowsOf(run));
  });

  it("offers as filters what the steered answers have", () => {
    const filter = (key: string) => samples.filters.find((one) => one.key === key)?.options ?? [];
    expect(filter("vector")).toContain("code");
    expect(filter("vector")).not.toContain("none");
    expect(filter("verdict")).toEqual([...filter("verdict")].sort());
    expect(filter("magnitude").indexOf("−1.00")).toBeLessThan(filter("magnitude").indexOf("+1.00"));
  });
});
