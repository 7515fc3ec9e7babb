/** From the bytes of a file to rows by block. Pure; runs in a worker. */
import { digestOf } from "../digest.js";
import { packRows, type VectorRow, valuesProblem } from "../vector.js";
import { detectFormat, refusePickle } from "./detect.js";
import { type FileFormat, type FileRow, type LayerConvention, VectorFileError } from "./file.js";
import { decodeGguf } from "./gguf.js";
import { decodeJsonRows, decodeSvec } from "./json-rows.js";
import { decodeNpy, decodeNpz } from "./npy.js";
import { decodeSafetensorsRows } from "./safetensors-rows.js";

export interface ImportTask {
  kind: "import";
  file: Uint8Array;
  /** Null: told by the first bytes. */
  format: FileFormat | null;
  /** Null: what the file says, else block_output. */
  convention: LayerConvention | null;
  /** Numbers of the rows of a `.npy`; empty: 0, 1, 2, … */
  layers: number[];
  hiddenSize: number;
  /** Blocks of the model. */
  modelLayers: number;
  /** Of an `.npz`, inflated. */
  maxBytes: number;
}

export type ImportResult =
  | { rows: VectorRow[] }
  /** What is wrong, in words for the client. */
  | { problem: string };

export function importFile(task: ImportTask): ImportResult {
  try {
    return { rows: readRows(task) };
  } catch (error) {
    if (error instanceof VectorFileError) return { problem: error.message };
    throw error;
  }
}

/** Throws a VectorFileError. */
function readRows(task: ImportTask): VectorRow[] {
  refusePickle(task.file);
  const format = task.format ?? detectFormat(task.file);
  if (task.layers.length > 0 && format !== "npy") {
    throw new VectorFileError(`layers are for .npy only; a ${format} file names its rows itself`);
  }
  if (format !== "safetensors") {
    return toBlocks(decode(task, format), task.convention ?? "block_output", task);
  }
  const { rows, metadata } = decodeSafetensorsRows(task.file);
  const blocks = toBlocks(rows, conventionOf(metadata, task.convention), task);
  const { digest } = metadata;
  const model = { hiddenSize: task.hiddenSize, layers: task.modelLayers };
  if (digest !== undefined && digest !== digestOf(packRows(blocks, model, "rows"))) {
    throw new VectorFileError(`damaged: its rows do not have the digest that it names`);
  }
  return blocks;
}

function decode(task: ImportTask, format: Exclude<FileFormat, "safetensors">): FileRow[] {
  const { file } = task;
  switch (format) {
    case "gguf":
      return decodeGguf(file);
    case "svec":
      return decodeSvec(file);
    case "json":
      return decodeJsonRows(file);
    case "npz":
      return decodeNpz(file, task.maxBytes);
    case "npy":
      return rowsOfNpy(task);
  }
}

function rowsOfNpy({ file, layers, modelLayers }: ImportTask): FileRow[] {
  const { shape, values } = decodeNpy(file);
  const [rows = 0, columns = 0] = shape.length === 1 ? [1, ...shape] : shape;
  const numbers = layers.length > 0 ? layers : Array.from({ length: modelLayers }, (_, i) => i);
  if (numbers.length !== rows) {
    throw new VectorFileError(
      layers.length > 0
        ? `holds ${rows} rows, but ${layers.length} layers are named`
        : `holds ${rows} rows, the model has ${modelLayers} blocks: name the layers of the rows`,
    );
  }
  return numbers.map((number, row) => ({
    number,
    values: values.slice(row * columns, (row + 1) * columns),
  }));
}

function conventionOf(
  metadata: Record<string, string>,
  asked: LayerConvention | null,
): LayerConvention {
  const { convention } = metadata;
  if (convention === undefined) return asked ?? "block_output";
  if (convention !== "block_output" && convention !== "block_input") {
    throw new VectorFileError("its metadata names an unknown convention");
  }
  if (asked !== null && asked !== convention) {
    throw new VectorFileError(`its metadata says that its convention is ${convention}`);
  }
  return convention;
}

/** Every row fits the model, or this throws a VectorFileError that names its number in the file. */
function toBlocks(
  rows: readonly FileRow[],
  convention: LayerConvention,
  { hiddenSize, modelLayers }: ImportTask,
): VectorRow[] {
  const shift = convention === "block_input" ? 1 : 0;
  return rows.map(({ number, values }) => {
    const layer = number - shift;
    if (layer < 0) {
      throw new VectorFileError(`row ${number} is before the first block: no block puts it out`);
    }
    if (layer >= modelLayers) {
      throw new VectorFileError(
        `row ${number} belongs to block ${layer}; the model's last block is ${modelLayers - 1}`,
      );
    }
    const problem = valuesProblem(values, hiddenSize);
    if (problem !== null) throw new VectorFileError(`row ${number} ${problem}`);
    return { layer, values };
  });
}
