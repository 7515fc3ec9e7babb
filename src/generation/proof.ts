/** The proof of steering, as the engine's kernels counted it. */
import type { NativeApplied, NativeSteerKind } from "../native/binding.js";

/** The proof of one steering. */
export interface AppliedSteering {
  vectorId: string;
  digest: string;
  layers: number[];
  operation: NativeSteerKind;
  coefficient: number;
  preserveNorm: boolean;
  positionStart: number;
  /** Null: open. */
  positionEnd: number | null;
  promptTokens: number;
  generatedTokens: number;
  steeredRows: number;
  meanDeltaRatio: number;
  /** Empty without a gate. */
  gateDigest: string;
  gateEvaluations: number;
  gateFired: number;
  /**
   * With after_text: the first position behind the text, for each completion, continuation or input;
   * -1: it did not appear. Empty until the end, and without after_text.
   */
  afterTextPositions: number[];
}

/** Sums the proofs of several requests with the same steerings, in their order. */
export function sumReports(reports: readonly (readonly NativeApplied[])[]): NativeApplied[] {
  return reports.reduce<NativeApplied[]>(addReports, []);
}

function addReports(
  total: readonly NativeApplied[],
  more: readonly NativeApplied[],
): NativeApplied[] {
  return more.map((report, index) => {
    const before = total[index];
    if (!before) return report;
    const steeredRows = before.steeredRows + report.steeredRows;
    const ratioSum =
      before.meanDeltaRatio * before.steeredRows + report.meanDeltaRatio * report.steeredRows;
    return {
      promptTokens: before.promptTokens + report.promptTokens,
      generatedTokens: before.generatedTokens + report.generatedTokens,
      steeredRows,
      meanDeltaRatio: steeredRows === 0 ? 0 : ratioSum / steeredRows,
      gateEvaluations: before.gateEvaluations + report.gateEvaluations,
      gateFired: before.gateFired + report.gateFired,
      firstPositions: Int32Array.of(...before.firstPositions, ...report.firstPositions),
    };
  });
}
