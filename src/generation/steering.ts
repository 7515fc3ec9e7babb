/** Steerings of a request: from what the client wrote to what the engine does. */
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
import { positionBehind, textBytes } from "./after-text.js";
import { checkGateOrder, type GateSpec, nativeGate, pinGate } from "./gate.js";
import { type PositionRange, type PositionScope, resolvePositions } from "./positions.js";
import type { AppliedSteering } from "./proof.js";

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
  /** Only tokens behind this text; null: all. */
  afterText: string | null;
  gate: GateSpec | null;
}

/** What a request computes. */
export interface SequenceShape {
  /** For errors. */
  name: string;
  promptTokens: number;
  /** The last position whose row is computed. */
  lastPosition: number;
  /** All of them, when none is generated; null when some are. */
  tokens: Uint32Array | null;
}

interface Pinned {
  spec: SteeringSpec;
  vector: PinnedVector;
  gateVector: PinnedVector | null;
  layers: number[];
}

/** Vectors pinned for one request. Release it when the request has ended. */
export class PinnedSteering {
  private readonly pinned: Pinned[] = [];

  private constructor(
    private readonly registry: VectorRegistry,
    private readonly model: LoadedModel,
  ) {}

  static pin(
    specs: readonly SteeringSpec[],
    registry: VectorRegistry,
    model: LoadedModel,
  ): PinnedSteering {
    const steering = new PinnedSteering(registry, model);
    try {
      for (const spec of specs) steering.add(spec);
      return steering;
    } catch (error) {
      steering.release();
      throw error;
    }
  }

  release(): void {
    for (const { vector, gateVector } of this.pinned) {
      vector.release();
      gateVector?.release();
    }
  }

  private add(spec: SteeringSpec): void {
    const vector =
      spec.source.kind === "id"
        ? this.registry.acquire(spec.source.vectorId, `${spec.field}.vector_id`)
        : this.registry.acquireInline(spec.source.rows, `${spec.field}.inline`);
    const pinned: Pinned = { spec, vector, gateVector: null, layers: [] };
    this.pinned.push(pinned);
    pinned.layers = checkedLayers(spec, vector, this.model);
    if (!spec.gate) return;
    checkGateOrder(spec.gate, pinned.layers, spec.field);
    pinned.gateVector = pinGate(spec.gate, this.registry);
  }

  /** Throws InvalidArgumentError for a steering that has no token to act on. */
  resolve(sequence: SequenceShape): NativeSteering[] {
    return this.pinned.map(({ spec, vector, gateVector, layers }) => {
      const range = resolvePositions(
        spec.positions,
        sequence.promptTokens,
        `${spec.field}.positions`,
      );
      this.checkReached(spec, range, sequence);
      return {
        vector: vector.handle,
        kind: spec.operation,
        coefficient: spec.coefficient,
        clampMin: spec.clampMin,
        clampMax: spec.clampMax,
        layers: Int32Array.from(layers),
        preserveNorm: spec.preserveNorm,
        positionBegin: range.begin,
        positionEnd: range.end,
        gate:
          spec.gate && gateVector ? nativeGate(spec.gate, gateVector, sequence.promptTokens) : null,
        afterText: textBytes(spec.afterText),
      };
    });
  }

  private checkReached(spec: SteeringSpec, range: PositionRange, sequence: SequenceShape): void {
    const { lastPosition, tokens, name } = sequence;
    const field = `${spec.field}.positions`;
    if (range.begin > lastPosition) {
      throw invalid(
        field,
        `start at ${range.begin}; the last token whose row is computed stands at ${lastPosition}`,
      );
    }
    if (spec.afterText === null || tokens === null) return;
    const textField = `${field}.after_text`;
    const behind = positionBehind(
      this.model.tokenBytes,
      { tokens, name },
      spec.afterText,
      textField,
    );
    if (behind <= Math.min(lastPosition, range.end - 1)) return;
    throw invalid(textField, `no token of the positions stands behind it in ${name}`);
  }

  /** The proof; without reports, what is going to act. */
  proof(steering: readonly NativeSteering[], reports: readonly NativeApplied[]): AppliedSteering[] {
    return this.pinned.map(({ spec, vector, gateVector, layers }, index) => {
      const range = steering[index];
      const report = reports[index];
      const open = range === undefined || range.positionEnd === OPEN_END;
      const firstPositions = spec.afterText === null ? [] : (report?.firstPositions ?? []);
      return {
        vectorId: vector.vectorId,
        digest: vector.digest,
        layers,
        operation: spec.operation,
        coefficient: spec.coefficient,
        preserveNorm: spec.preserveNorm,
        positionStart: range?.positionBegin ?? 0,
        positionEnd: open ? null : range.positionEnd,
        promptTokens: report?.promptTokens ?? 0,
        generatedTokens: report?.generatedTokens ?? 0,
        steeredRows: report?.steeredRows ?? 0,
        meanDeltaRatio: report?.meanDeltaRatio ?? 0,
        gateDigest: gateVector?.digest ?? "",
        gateEvaluations: report?.gateEvaluations ?? 0,
        gateFired: report?.gateFired ?? 0,
        afterTextPositions: [...firstPositions],
      };
    });
  }
}

function checkedLayers(spec: SteeringSpec, vector: PinnedVector, model: LoadedModel): number[] {
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
  const layers = spec.layers.length === 0 ? vector.layers : spec.layers;
  const zeros = layers.find((layer) => vector.zeroLayers.includes(layer));
  if (spec.operation !== "add" && zeros !== undefined) {
    throw invalid(
      spec.field,
      `the vector's row for block ${zeros} is zeros, which is no direction`,
    );
  }
  return [...new Set(layers)].sort((a, b) => a - b);
}
