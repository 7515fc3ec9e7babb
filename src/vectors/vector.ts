/** What a steering vector is: rows of float32, one for each block that it holds. */
import { endianness } from "node:os";
import { type FieldViolation, InvalidArgumentError, invalid } from "../errors.js";
import { hasLoneSurrogate } from "../model/unicode.js";

/** Numbers only: equal contents have equal digests, whatever they are called. */
export interface VectorContent {
  hiddenSize: number;
  /** Blocks, 0-based, ascending, distinct. */
  layers: Int32Array;
  /** [layers, hiddenSize], row-major, finite. */
  rows: Float32Array;
}

/** How a vector or a probe was derived; see Derivation of the contract. */
export interface Derivation {
  /** Name of the contract's enum value, as `tokenRule` is. */
  method: string;
  /** "sha256:…" over the pairs. */
  pairsDigest: string;
  tokenRule: string;
  /** "sha256:…" of the checkpoint. */
  modelFingerprint: string;
  tokenText: string;
  /** Empty: the base model. */
  adapterId: string;
  /** "sha256:…"; empty: the base model. */
  adapterDigest: string;
  normalized: boolean;
  pairs: number;
  /** In the order of the layers. */
  diagnostics: LayerDiagnostics[];
}

/** See LayerDiagnostics of the contract. */
export interface LayerDiagnostics {
  layer: number;
  /** Null with one pair, or where a half has no direction. */
  splitHalfCosine: number | null;
  separatedShare: number;
  separatedPairs: number;
  normRatio: number;
  randomDirections: number;
  /** Decimal. */
  randomSeed: string;
  randomSeparatedMean: number;
  randomSeparatedMax: number;
}

/** What a probe is beside its direction, which is a record's one row. */
export interface ProbeFacts {
  fit: Discrimination;
  /** Null until it is calibrated. */
  calibration: Calibration | null;
}

/** See Discrimination of the contract. */
export interface Discrimination {
  auroc: number;
  positives: number;
  negatives: number;
  /** Ascending. */
  randomAuroc: number[];
  /** Decimal. */
  randomSeed: string;
}

/** See Calibration of the contract. */
export interface Calibration {
  threshold: number;
  falsePositiveRate: number;
  measuredFalsePositiveRate: number;
  benignInputs: number;
  benignDigest: string;
  benignMean: number;
  benignStandardDeviation: number;
}

/** Vectors and probes are kept in one store, each kind with ids of its own. */
export type RecordKind = "vector" | "probe";

export interface LayerStats {
  layer: number;
  /** ‖v‖ */
  l2Norm: number;
  /** Mean ‖h‖ over the derivation set; 0 when unknown. */
  meanResidualNorm: number;
}

/** A registered vector or probe. */
export interface VectorRecord {
  kind: RecordKind;
  id: string;
  /** "sha256:" and 64 hex digits; see digest.ts. */
  digest: string;
  hiddenSize: number;
  layers: number[];
  /** In the order of `layers`. */
  stats: LayerStats[];
  labels: Record<string, string>;
  /** Null for a vector that was sent in. */
  derivation: Derivation | null;
  /** Null for a vector. */
  probe: ProbeFacts | null;
  createTime: Date;
  /** Registry revision that registered it. */
  revision: bigint;
  content: VectorContent;
}

/** The row of one block. */
export interface VectorRow {
  layer: number;
  /** [hiddenSize] */
  values: Float32Array;
}

/** A row as it comes over the wire. */
export interface WireRow {
  layer: number;
  /** Little-endian float32. */
  data: Uint8Array;
}

/** The sizes of the model that a vector must fit. */
export interface ModelShape {
  hiddenSize: number;
  layers: number;
}

/** The square of a longer row would not be a float32, and the kernels need it. */
export const MAX_ROW_NORM = 1e18;
/** A shorter row has no direction: the square of its length is no normal float32. */
export const MIN_DIRECTION_NORM = 1e-18;
const FLOAT_BYTES = 4;

const VECTOR_ID = /^[a-z0-9][a-z0-9._-]{0,62}$/;

export function isVectorId(text: string): boolean {
  return VECTOR_ID.test(text);
}

/** `field` is the id's path in the request. */
export function checkVectorId(id: string, field: string): void {
  if (!isVectorId(id)) throw invalid(field, `does not match ${VECTOR_ID.source}`);
}

export interface LabelLimits {
  maxLabels: number;
  /** UTF-8 bytes of a key or a value. */
  maxLabelBytes: number;
}

export function checkLabels(
  labels: Record<string, string>,
  limits: LabelLimits,
  field: string,
): void {
  const entries = Object.entries(labels);
  if (entries.length > limits.maxLabels) {
    throw invalid(field, `${entries.length} labels; at most ${limits.maxLabels} are allowed`);
  }
  for (const [key, value] of entries) {
    if (key === "") throw invalid(field, "a label's key is empty");
    for (const text of [key, value]) {
      if (Buffer.byteLength(text) > limits.maxLabelBytes) {
        throw invalid(
          field,
          `a label's key and value have at most ${limits.maxLabelBytes} bytes each`,
        );
      }
      if (hasLoneSurrogate(text)) throw invalid(field, "a label holds a lone surrogate");
    }
  }
}

/** `field` is the path of the rows in the request. Throws InvalidArgumentError. */
export function rowsFromWire(rows: readonly WireRow[], field: string): VectorRow[] {
  return rows.map(({ layer, data }, index) => {
    if (data.byteLength % FLOAT_BYTES !== 0) {
      throw invalid(
        `${field}[${index}].data`,
        `has ${data.byteLength} bytes, no whole number of float32 values`,
      );
    }
    return { layer, values: floatsOf(data) };
  });
}

/**
 * Checks rows against the model and packs them, ascending by layer. `field` is the path of the rows
 * in the request; one InvalidArgumentError names every bad row.
 */
export function packRows(
  rows: readonly VectorRow[],
  model: ModelShape,
  field: string,
): VectorContent {
  if (rows.length === 0) throw invalid(field, "is empty");
  if (rows.length > model.layers) {
    throw invalid(field, `${rows.length} rows; the model has ${model.layers} layers`);
  }
  const violations: FieldViolation[] = [];
  const seen = new Set<number>();
  for (const [index, { layer, values }] of rows.entries()) {
    const layerText = layerProblem(layer, model, seen);
    if (layerText !== null) {
      violations.push({ field: `${field}[${index}].layer`, description: layerText });
    }
    seen.add(layer);
    const valuesText = valuesProblem(values, model.hiddenSize);
    if (valuesText !== null) {
      violations.push({ field: `${field}[${index}].data`, description: valuesText });
    }
  }
  if (violations.length > 0) throw new InvalidArgumentError(violations);

  const ordered = [...rows].sort((a, b) => a.layer - b.layer);
  const content: VectorContent = {
    hiddenSize: model.hiddenSize,
    layers: Int32Array.from(ordered, ({ layer }) => layer),
    rows: new Float32Array(ordered.length * model.hiddenSize),
  };
  for (const [slot, { values }] of ordered.entries()) {
    content.rows.set(values, slot * model.hiddenSize);
  }
  return content;
}

function layerProblem(layer: number, model: ModelShape, seen: Set<number>): string | null {
  if (!Number.isInteger(layer) || layer < 0 || layer >= model.layers) {
    return `${layer} is not a layer of the model; 0 to ${model.layers - 1} are`;
  }
  return seen.has(layer) ? `${layer} appears twice` : null;
}

/** Null when the values may go to the kernels. */
export function valuesProblem(row: Float32Array, hiddenSize: number): string | null {
  if (row.length !== hiddenSize) {
    return `has ${row.length} values; the hidden size is ${hiddenSize}`;
  }
  const index = row.findIndex((value) => !Number.isFinite(value));
  if (index >= 0) return `value ${index} is ${row[index]}; values must be finite`;
  const norm = l2Norm(row);
  return norm > MAX_ROW_NORM ? `its norm ${norm} is above ${MAX_ROW_NORM}` : null;
}

/** Little-endian bytes to floats, on any machine; `bytes` need not be aligned. */
export function floatsOf(bytes: Uint8Array): Float32Array {
  const own = new Uint8Array(bytes);
  swapOnBigEndian(own);
  return new Float32Array(own.buffer);
}

/** Floats to little-endian bytes, on any machine. */
export function floatBytes(row: Float32Array): Uint8Array {
  const own = new Uint8Array(row.byteLength);
  own.set(new Uint8Array(row.buffer, row.byteOffset, row.byteLength));
  swapOnBigEndian(own);
  return own;
}

function swapOnBigEndian(bytes: Uint8Array): void {
  if (endianness() === "BE") Buffer.from(bytes.buffer).swap32();
}

/** A view of one row, [hiddenSize]. */
export function rowOf(content: VectorContent, slot: number): Float32Array {
  return content.rows.subarray(slot * content.hiddenSize, (slot + 1) * content.hiddenSize);
}

/** Float64 arithmetic. */
export function l2Norm(row: Float32Array): number {
  let sum = 0;
  for (const value of row) sum += value * value;
  return Math.sqrt(sum);
}

/** `meanResidualNorms`: one a layer; empty: unknown. */
export function statsOf(
  content: VectorContent,
  meanResidualNorms: readonly number[] = [],
): LayerStats[] {
  return Array.from(content.layers, (layer, slot) => ({
    layer,
    l2Norm: l2Norm(rowOf(content, slot)),
    meanResidualNorm: meanResidualNorms[slot] ?? 0,
  }));
}

/** A registry may be shared by servers of several models. `field` is the id's path in the request. */
export function checkFits(record: VectorRecord, model: ModelShape, field: string): void {
  if (record.hiddenSize !== model.hiddenSize) {
    throw invalid(
      field,
      `"${record.id}" has rows of ${record.hiddenSize} values; the model's hidden size is ${model.hiddenSize}`,
    );
  }
  const outside = record.layers.find((layer) => layer >= model.layers);
  if (outside !== undefined) {
    throw invalid(
      field,
      `"${record.id}" holds layer ${outside}; the model's last layer is ${model.layers - 1}`,
    );
  }
}

export function contentBytes(content: VectorContent): number {
  return content.rows.byteLength;
}
