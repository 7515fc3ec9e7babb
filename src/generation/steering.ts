/** Steerings of a request: from what the client wrote to what the engine does, and the proof. */
import { invalid } from "../errors.js";
import type { LoadedModel } from "../model/model.js";
import {
  type NativeApplied,
  type NativeSteering,
  type NativeSteerKind,
  OPEN_END,
} from "../native/binding.js";
import type { PinnedVector, VectorRegistry } from "../vectors/registry.js";
import type { VectorRow } from "../vectors/vector.js";
import { overlap, type PositionScope, resolvePositions } from "./positions.js";

export interface SteeringSpec {
  /** Path in the request, for errors. */
  field: string;
  source: { kind: "id"; vectorId: string } | { kind: "inline"; rows: VectorRow[] };
  operation: NativeSteerKind;
  coefficient: number;
  clampMin: number;
  clampMax: number;
  /** Empty: every block that the vector holds. */
  layers: number[];
  preserveNorm: boolean;
  positions: PositionScope;
}

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
}

/** Vectors pinned for one request. Release it when the request has ended. */
export class PinnedSteering {
  private constructor(
    private readonly specs: readonly SteeringSpec[],
    private readonly pinned: readonly PinnedVector[],
    private readonly layers: readonly number[][],
  ) {}

  static pin(
    specs: readonly SteeringSpec[],
    registry: VectorRegistry,
    model: LoadedModel,
  ): PinnedSteering {
    const pinned: PinnedVector[] = [];
    try {
      const layers = specs.map((spec) => {
        const vector =
          spec.source.kind === "id"
            ? registry.acquire(spec.source.vectorId, `${spec.field}.vector_id`)
            : registry.acquireInline(spec.source.rows, `${spec.field}.inline`);
        pinned.push(vector);
        return checkedLayers(spec, vector, model);
      });
      return new PinnedSteering(specs, pinned, layers);
    } catch (error) {
      for (const vector of pinned) vector.release();
      throw error;
    }
  }

  release(): void {
    for (const vector of this.pinned) vector.release();
  }

  /** For a prompt of this length. `lastPosition`: the last one whose row is computed. */
  resolve(promptTokens: number, lastPosition: number): NativeSteering[] {
    return this.specs.map((spec, index) => {
      const range = resolvePositions(spec.positions, promptTokens, `${spec.field}.positions`);
      if (range.begin > lastPosition) {
        throw invalid(
          `${spec.field}.positions`,
          `start at ${range.begin}; the last token whose row is computed stands at ${lastPosition}`,
        );
      }
      return {
        vector: this.vector(index).handle,
        kind: spec.operation,
        coefficient: spec.coefficient,
        clampMin: spec.clampMin,
        clampMax: spec.clampMax,
        layers: Int32Array.from(this.layersOf(index)),
        preserveNorm: spec.preserveNorm,
        positionBegin: range.begin,
        positionEnd: range.end,
        gate: null,
        afterText: new Uint8Array(),
      };
    });
  }

  /** The proof; without reports, what is going to act. */
  proof(steering: readonly NativeSteering[], reports: readonly NativeApplied[]): AppliedSteering[] {
    return this.specs.map((spec, index) => {
      const vector = this.vector(index);
      const range = steering[index];
      const report = reports[index];
      const open = range === undefined || range.positionEnd === OPEN_END;
      return {
        vectorId: vector.vectorId,
        digest: vector.digest,
        layers: this.layersOf(index),
        operation: spec.operation,
        coefficient: spec.coefficient,
        preserveNorm: spec.preserveNorm,
        positionStart: range?.positionBegin ?? 0,
        positionEnd: open ? null : range.positionEnd,
        promptTokens: report?.promptTokens ?? 0,
        generatedTokens: report?.generatedTokens ?? 0,
        steeredRows: report?.steeredRows ?? 0,
        meanDeltaRatio: report?.meanDeltaRatio ?? 0,
      };
    });
  }

  private vector(index: number): PinnedVector {
    const vector = this.pinned[index];
    if (!vector) throw new Error(`no vector pinned for steering ${index}`);
    return vector;
  }

  private layersOf(index: number): number[] {
    return this.layers[index] ?? [];
  }
}

function checkedLayers(spec: SteeringSpec, vector: PinnedVector, model: LoadedModel): number[] {
  if (spec.operation !== "add" && vector.hasZeroRow) {
    throw invalid(spec.field, "the vector has a row of zeros, which is no direction");
  }
  if (spec.layers.length === 0) return [...vector.layers];
  for (const layer of spec.layers) {
    if (layer >= model.config.layers) {
      throw invalid(
        `${spec.field}.layers`,
        `${layer}: the model has ${model.config.layers} blocks`,
      );
    }
    if (!vector.layers.includes(layer)) {
      throw invalid(`${spec.field}.layers`, `the vector holds no row for block ${layer}`);
    }
  }
  return [...new Set(spec.layers)].sort((a, b) => a - b);
}

/** In a scored sequence the engine sees one prompt; tokens from `promptTokens` on are continuation. */
export function splitPromptCount(
  report: NativeApplied,
  steering: NativeSteering,
  promptTokens: number,
): NativeApplied {
  const range = { begin: steering.positionBegin, end: steering.positionEnd };
  const inPrompt = Math.min(report.promptTokens, overlap(range, 0, promptTokens));
  return { ...report, promptTokens: inPrompt, generatedTokens: report.promptTokens - inPrompt };
}

/** Sums the proofs of several requests with the same steerings. */
export function addReports(
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
      firstPositions: before.firstPositions,
    };
  });
}
