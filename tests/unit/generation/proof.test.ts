/** Proofs of several sequences together. */
import { expect, it } from "vitest";
import { sumReports } from "../../../src/generation/proof.js";
import type { NativeApplied } from "../../../src/native/binding.js";

const report = (overrides: Partial<NativeApplied>): NativeApplied => ({
  promptTokens: 0,
  generatedTokens: 0,
  steeredRows: 0,
  meanDeltaRatio: 0,
  gateEvaluations: 0,
  gateFired: 0,
  firstPositions: Int32Array.of(-1),
  ...overrides,
});

it("counts are added, ratios weighted by rows, positions listed in order", () => {
  const a = report({
    promptTokens: 3,
    generatedTokens: 1,
    steeredRows: 4,
    meanDeltaRatio: 0.5,
    gateEvaluations: 6,
    gateFired: 4,
    firstPositions: Int32Array.of(2),
  });
  const b = report({ promptTokens: 1, steeredRows: 12, meanDeltaRatio: 0.1, gateEvaluations: 2 });
  expect(sumReports([[a], [b]])).toEqual([
    {
      promptTokens: 4,
      generatedTokens: 1,
      steeredRows: 16,
      meanDeltaRatio: (0.5 * 4 + 0.1 * 12) / 16,
      gateEvaluations: 8,
      gateFired: 4,
      firstPositions: Int32Array.of(2, -1),
    },
  ]);
});

it("a ratio over no rows is 0", () => {
  expect(sumReports([[report({})], [report({})]])[0]?.meanDeltaRatio).toBe(0);
  expect(sumReports([])).toEqual([]);
});
