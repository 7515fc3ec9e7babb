/**
 * The rows of a steering vector from a file:
 *   .safetensors  tensors `layer.<L>`, each [hidden] or [1, hidden]
 *   .json         {"<L>": [numbers], …}, or {"layer.<L>": …}
 *   .npy          [hidden] with one layer given, or [layers, hidden] with as many layers given
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { floatsToBytes } from "../../client/client.js";
import { UsageError } from "../exit.js";
import { readNpy } from "./npy.js";
import { readSafetensors } from "./safetensors.js";

/** Far above any model: 4096 layers of 16384 float32 values. */
const MAX_FILE_BYTES = 256 * 1024 * 1024;
const LAYER_NAME = /^(?:layer\.)?(\d{1,4})$/;

/** Rows of a vector, by rising layer. `data`: float32, little-endian. */
export type VectorRows = readonly { layer: number; data: Buffer }[];

/**
 * `layers`: for .npy the layers of its rows; else, when given, a selection.
 * Throws a UsageError that names the file.
 */
export function readVectorFile(file: string, layers: readonly number[] | undefined): VectorRows {
  const bytes = readFile(file);
  switch (path.extname(file)) {
    case ".npy":
      return rowsOfNpy(bytes, file, layers);
    case ".safetensors":
      return selectRows(rowsOfSafetensors(bytes, file), layers, file);
    case ".json":
      return selectRows(rowsOfJson(bytes, file), layers, file);
    case ".pt":
    case ".pth":
    case ".pkl":
    case ".pickle":
      throw new UsageError(
        `${file}: pickle files can run code and are never read; convert it in Python with safetensors.torch.save_file`,
      );
    default:
      throw new UsageError(`${file}: the name must end in .npy, .json or .safetensors`);
  }
}

function readFile(file: string): Buffer {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    throw new UsageError(`${file}: cannot be read: ${(error as Error).message}`);
  }
  if (bytes.length > MAX_FILE_BYTES) {
    throw new UsageError(`${file}: has ${bytes.length} bytes; ${MAX_FILE_BYTES} are the limit`);
  }
  return bytes;
}

function rowsOfNpy(bytes: Buffer, file: string, layers: readonly number[] | undefined): VectorRows {
  const { shape, values } = readNpy(bytes, file);
  const [rows, hidden] = shape.length === 1 ? [1, shape[0]] : shape;
  if (shape.length > 2 || !rows || !hidden) {
    throw new UsageError(`${file}: has shape [${shape}]; [hidden] or [layers, hidden] is needed`);
  }
  if (layers?.length !== rows) {
    throw new UsageError(
      `${file}: has ${rows} row(s); name as many layers with --layers (such as ${rows > 1 ? `4-${3 + rows}` : 4})`,
    );
  }
  return layers.map((layer, row) => ({
    layer,
    data: floatsToBytes(values.subarray(row * hidden, (row + 1) * hidden)),
  }));
}

/** Rows of the bytes of a safetensors file; `file`: for messages. */
export function rowsOfSafetensors(bytes: Buffer, file: string): VectorRows {
  return readSafetensors(bytes, file).map(({ name, shape, values }) => {
    const isRow = shape.length === 1 || (shape.length === 2 && shape[0] === 1);
    if (!isRow)
      throw new UsageError(`${file}: tensor "${name}" has shape [${shape}], not [hidden]`);
    return { layer: layerOf(name, file), data: floatsToBytes(values) };
  });
}

function rowsOfJson(bytes: Buffer, file: string): VectorRows {
  let content: unknown;
  try {
    content = JSON.parse(bytes.toString("utf8"));
  } catch (error) {
    throw new UsageError(`${file}: is not JSON: ${(error as Error).message}`);
  }
  if (typeof content !== "object" || content === null || Array.isArray(content)) {
    throw new UsageError(`${file}: must be an object of layers: {"4": [0.1, …]}`);
  }
  return Object.entries(content).map(([name, values]) => {
    if (!Array.isArray(values) || !values.every((value) => typeof value === "number")) {
      throw new UsageError(`${file}: "${name}" is not a list of numbers`);
    }
    return { layer: layerOf(name, file), data: floatsToBytes(values) };
  });
}

function layerOf(name: string, file: string): number {
  const layer = LAYER_NAME.exec(name)?.[1];
  if (layer === undefined) {
    throw new UsageError(`${file}: "${name}" names no layer; rows are called "layer.4" or "4"`);
  }
  return Number(layer);
}

/** Rows by rising layer: all, or those of `layers`. Throws a UsageError that names `file`. */
export function selectRows(
  rows: VectorRows,
  layers: readonly number[] | undefined,
  file: string,
): VectorRows {
  const sorted = [...rows].sort((a, b) => a.layer - b.layer);
  if (!layers) return sorted;
  const missing = layers.find((layer) => !rows.some((row) => row.layer === layer));
  if (missing !== undefined) throw new UsageError(`${file}: holds no row for layer ${missing}`);
  return sorted.filter((row) => layers.includes(row.layer));
}
