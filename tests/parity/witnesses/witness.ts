/** What record.py recorded of other steering libraries, and the models it was recorded on. */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import type { TokenLogprobs } from "../../../src/client/client.js";
import { readSafetensorsHeader } from "../../../src/model/safetensors.js";
import { TestServer } from "../../support/server.js";
import { REPOSITORY, TemporaryFolder } from "../../support/tiny-checkpoint.js";
import { rowBytes } from "../../support/vectors.js";
import { type Matrix, rowOf } from "../goldens.js";

export interface WitnessModel {
  name: string;
  /** Whether its vector is recorded as a `.svec` file too. */
  svec?: boolean;
  /** Arguments of bench/make-checkpoint.mjs … */
  make?: string;
  /** … or a folder of this repository. */
  folder?: string;
  /** Coefficients: of vectors of natural length, and of unit vectors. */
  add: number;
  unit: number;
}

export interface WitnessCases {
  models: WitnessModel[];
  pairs: [positive: string, negative: string][];
  prompt: string;
  minTokenIndex: number;
  newTokens: number;
  promptRows: number;
  top: number;
}

const here = import.meta.dirname;

export function readWitnessCases(): WitnessCases {
  return JSON.parse(readFileSync(path.join(here, "cases.json"), "utf8"));
}

export const goldenPath = (name: string) => path.join(here, "goldens", name);

/** Runs recorded by record.py; see Golden.add there. */
export interface RecordedRun {
  tokens: number[];
  margins: Float32Array;
  ids: Matrix;
  logprobs: Matrix;
}

export class WitnessGolden {
  private readonly tensors = new Map<string, Matrix>();
  /** sha256 of the weights it was recorded on. */
  readonly weights: string;

  constructor(model: string) {
    const file = goldenPath(`${model}.safetensors`);
    const bytes = readFileSync(file);
    for (const { name, shape, offsetBytes, sizeBytes } of readSafetensorsHeader(file).tensors) {
      const begin = bytes.byteOffset + offsetBytes;
      const values = new Float32Array(bytes.buffer.slice(begin, begin + sizeBytes));
      const rows = shape.length === 1 ? 1 : (shape[0] ?? 0);
      this.tensors.set(name, { rows, cols: shape.at(-1) ?? 0, values });
    }
    const length = Number(bytes.readBigUInt64LE());
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + length));
    this.weights = JSON.parse(header.__metadata__.recorded).weights;
  }

  get(name: string): Matrix {
    const matrix = this.tensors.get(name);
    if (!matrix) throw new Error(`no recorded ${name}`);
    return matrix;
  }

  run(name: string): RecordedRun {
    return {
      tokens: [...this.get(`${name}.tokens`).values],
      margins: this.get(`${name}.margins`).values,
      ids: this.get(`${name}.ids`),
      logprobs: this.get(`${name}.logprobs`),
    };
  }

  /** A vector with the rows of a derived direction; all-zero rows stand for blocks it leaves out. */
  inline(name: string): { rows: { layer: number; data: Buffer }[] } {
    const matrix = this.get(`derived.${name}`);
    const rows = Array.from({ length: matrix.rows }, (_, layer) => ({
      layer,
      values: rowOf(matrix, layer),
    }));
    return {
      rows: rows
        .filter(({ values }) => values.some((value) => value !== 0))
        .map(({ layer, values }) => ({ layer, data: rowBytes(values) })),
    };
  }
}

/** A server on the very checkpoint of the recording, with keys and values in float32. */
export async function startOn(model: WitnessModel, golden: WitnessGolden) {
  const scratch = new TemporaryFolder();
  const folder = model.folder ? path.join(REPOSITORY, model.folder) : scratch.join(model.name);
  if (model.make !== undefined) {
    const script = path.join(REPOSITORY, "bench/make-checkpoint.mjs");
    const args = [script, ...model.make.split(" "), "--out", folder];
    execFileSync(process.execPath, args, { stdio: "pipe" });
  }
  const weights = readFileSync(path.join(folder, "model.safetensors"));
  if (createHash("sha256").update(weights).digest("hex") !== golden.weights) {
    throw new Error(`${folder} has changed: run record.py ${model.name} again`);
  }
  const flags = ["--kv-dtype", "f32", "--max-logprobs", "1024"];
  const server = await TestServer.start({ model: folder, flags });
  return {
    server,
    stop: async () => {
      await server.stop();
      scratch.remove();
    },
  };
}

/** Largest difference of a row from the recorded one, relative to the largest recorded magnitude. */
export function rowError(row: TokenLogprobs, run: RecordedRun, index: number): number {
  const ours = new Map(row.top.map(({ tokenId, logprob }) => [tokenId, logprob]));
  const ids = rowOf(run.ids, index);
  const logprobs = rowOf(run.logprobs, index);
  let error = 0;
  let scale = 0;
  for (const [i, expected] of logprobs.entries()) {
    const actual = ours.get(ids[i] ?? -1);
    if (actual === undefined) return Number.POSITIVE_INFINITY;
    error = Math.max(error, Math.abs(actual - expected));
    scale = Math.max(scale, Math.abs(expected));
  }
  return error / scale;
}

export function cosine(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array) =>
    x.reduce((sum, value, i) => sum + value * (y[i] ?? Number.NaN), 0);
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b));
}
