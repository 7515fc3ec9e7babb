/** The recorded outputs of Hugging Face transformers; see record_goldens.py. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { readSafetensorsHeader } from "../../src/model/safetensors.js";
import { type NativeSteering, type NativeSteerKind, OPEN_END } from "../../src/native/binding.js";
import type { SyntheticModel } from "./synthetic-checkpoint.js";

export interface ModelCase extends SyntheticModel {
  promptTokens: number;
  /** First recorded position of the prompt. */
  recordFrom: number;
}

interface SteeringStep {
  vector: number;
  kind: NativeSteerKind;
  coefficient: number;
  layers: "first" | "last" | "all";
  min?: number;
  max?: number;
  begin?: number;
  end?: number;
  preserveNorm?: boolean;
}

export interface SteeringCase {
  name: string;
  steps: SteeringStep[];
}

export interface Cases {
  seed: number;
  greedyTokens: number;
  models: ModelCase[];
  steerings: SteeringCase[];
}

/** `values` row-major. */
export interface Matrix {
  rows: number;
  cols: number;
  values: Float32Array;
}

const here = import.meta.dirname;

export function readCases(): Cases {
  return JSON.parse(readFileSync(path.join(here, "cases.json"), "utf8"));
}

export class Goldens {
  private readonly tensors = new Map<string, Matrix>();

  constructor(model: string, folder = path.join(here, "goldens")) {
    const file = path.join(folder, `${model}.safetensors`);
    const bytes = readFileSync(file);
    for (const { name, shape, offsetBytes, sizeBytes } of readSafetensorsHeader(file).tensors) {
      const data = bytes.buffer.slice(
        bytes.byteOffset + offsetBytes,
        bytes.byteOffset + offsetBytes + sizeBytes,
      );
      const cols = shape.at(-1) ?? 0;
      const rows = shape.length === 1 ? 1 : (shape[0] ?? 0);
      this.tensors.set(name, { rows, cols, values: new Float32Array(data) });
    }
  }

  get(name: string): Matrix {
    const matrix = this.tensors.get(name);
    if (!matrix) throw new Error(`no recorded ${name}`);
    return matrix;
  }
}

export function rowOf(matrix: Matrix, row: number): Float32Array {
  return matrix.values.subarray(row * matrix.cols, (row + 1) * matrix.cols);
}

/** The layers a vector holds rows for: all of them. */
export function layersOf(which: SteeringStep["layers"], count: number): Int32Array {
  if (which === "first") return Int32Array.of(0);
  if (which === "last") return Int32Array.of(count - 1);
  return Int32Array.from({ length: count }, (_, layer) => layer);
}

/** Vector v has handle v + 1. */
export function toNative(steering: SteeringCase, layers: number): NativeSteering[] {
  return steering.steps.map((step) => ({
    vector: step.vector + 1,
    kind: step.kind,
    coefficient: step.coefficient,
    clampMin: step.min ?? 0,
    clampMax: step.max ?? 0,
    layers: layersOf(step.layers, layers),
    preserveNorm: step.preserveNorm ?? false,
    positionBegin: step.begin ?? 0,
    positionEnd: step.end ?? OPEN_END,
    gate: null,
    afterText: new Uint8Array(),
  }));
}

/** Largest error of a row, relative to the largest magnitude of the reference row. */
export function relativeError(actual: Float32Array, reference: Float32Array): number {
  if (actual.length !== reference.length) return Number.POSITIVE_INFINITY;
  let error = 0;
  let scale = 0;
  for (const [i, expected] of reference.entries()) {
    const difference = Math.abs((actual[i] ?? Number.NaN) - expected);
    // Written so that NaN counts as infinitely wrong.
    if (!(difference <= error))
      error = Number.isNaN(difference) ? Number.POSITIVE_INFINITY : difference;
    scale = Math.max(scale, Math.abs(expected));
  }
  return error / Math.max(scale, Number.MIN_VALUE);
}
