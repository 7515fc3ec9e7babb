/** What a comparison of two runs says, and that it says nothing of two that are the same. */
import { describe, expect, it } from "vitest";
import type { StudyRun } from "../../../../src/study/records.js";
import { compareRuns } from "../../../../src/study/report/diff.js";
import { syntheticRun } from "../../../support/study-run.js";

const run = syntheticRun({ tasks: 4, magnitudes: [1] });

function changed(change: (copy: StudyRun) => void): string {
  const copy = structuredClone(run);
  change(copy);
  return compareRuns(run, copy);
}

function element<T>(values: readonly T[], index: number): T {
  const value = values[index];
  if (value === undefined) throw new Error(`no element ${index}`);
  return value;
}

describe("the comparison of two runs", () => {
  it("calls runs the same that differ in their times only", () => {
    const text = changed((copy) => {
      copy.timings.generationSeconds += 100;
    });
    expect(text).toContain(`The runs are the same: ${run.answers.length} answers`);
    expect(text).not.toContain("## ");
  });

  it("names what differs in plan and vectors, with both values", () => {
    const text = changed(({ plan }) => {
      plan.server.isa = "AVX3";
      plan.sampling.temperature = 0.7;
      element(plan.vectors, 0).digest = "sha256:other";
    });
    expect(text).toContain("| server isa | AVX2 | AVX3 |");
    expect(text).toContain("| sampling temperature | 0 | 0.7 |");
    expect(text).toMatch(/\| code \| sha256:[0-9a-f]+ \| sha256:other \|/);
    expect(text).not.toContain("## Rows");
    expect(text).not.toContain("## Cells");
  });

  it("names the rows that changed, how, and what became of their cell", () => {
    const index = run.judgements.findIndex(({ class: verdict }) => verdict === "insecure");
    const { row } = element(run.judgements, index);
    const text = changed(({ judgements, answers }) => {
      element(judgements, index).class = "secure";
      const answer = answers.find((one) => one.row === row);
      if (answer) answer.text += " ";
    });
    expect(text).toContain(`1 row of ${run.answers.length} differ.`);
    expect(text).toContain(`| ${row.replace("#", "\\#")} | text, verdicts | insecure | secure |`);
    const cells = text.slice(text.indexOf("## Cells"), text.indexOf("## Rows")).split("\n");
    expect(cells.filter((line) => line.startsWith("| unsteered/"))).toHaveLength(1);
    expect(text).toContain("−25.0 points");
  });

  it("counts rows that only one of them has, and lists no more than a hundred", () => {
    const text = changed((copy) => {
      const gone = new Set(copy.answers.slice(0, 150).map(({ row }) => row));
      copy.answers = copy.answers.filter(({ row }) => !gone.has(row));
      copy.judgements = copy.judgements.filter(({ row }) => !gone.has(row));
    });
    expect(text).toContain(`150 rows of ${run.answers.length} differ. The first 100 are listed.`);
    expect(text.match(/only in A/g)).toHaveLength(100);
    expect(text).toContain("not there");
  });
});
