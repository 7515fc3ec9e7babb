/**
 * GGUF control vectors: general.architecture "controlvector", one F32 tensor `direction.<N>`
 * [hidden size] a row. As written by repeng and EasySteer (layer_count u32) and by llama.cpp's
 * cvector-generator (layer_count i32). Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
 */
import { floatBytes, floatsOf } from "../vector.js";
import { checkRows, type FileRow, MAX_ROWS, quote, VectorFileError } from "./file.js";
import { GgufReader, type GgufValue } from "./gguf-reader.js";
import { GgufWriter } from "./gguf-writer.js";

const ARCHITECTURE = "controlvector";
const VERSIONS = [2, 3];
const DEFAULT_ALIGNMENT_BYTES = 32;
const MAX_ALIGNMENT_BYTES = 1 << 20;
const MAX_KEYS = 1024;
const F32 = 0;
const TENSOR_NAME = /^direction\.(0|[1-9][0-9]{0,3})$/;

/** Throws a VectorFileError. */
export function decodeGguf(file: Uint8Array): FileRow[] {
  const reader = new GgufReader(file);
  reader.skip(4);
  const version = reader.u32("version");
  if (!VERSIONS.includes(version)) {
    throw new VectorFileError(`GGUF version ${version}; ${VERSIONS.join(" and ")} are known`);
  }
  const tensors = reader.count("tensors", MAX_ROWS);
  const keys = reader.count("keys", MAX_KEYS);
  const alignment = checkKeys(readKeys(reader, keys));
  const infos = Array.from({ length: tensors }, () => readTensorInfo(reader));
  return checkRows(readData(file, infos, alignUp(reader.offset, alignment), alignment));
}

/** Numbers 0 are refused by its readers; the caller has none. */
export function encodeGguf(
  rows: readonly FileRow[],
  modelHint: string,
  digest: string,
): Uint8Array {
  const writer = new GgufWriter();
  writer.header(3, rows.length, 4);
  writer.text("general.architecture", ARCHITECTURE);
  writer.text(`${ARCHITECTURE}.model_hint`, modelHint);
  writer.u32(`${ARCHITECTURE}.layer_count`, rows.length);
  writer.text("llamasteer.digest", digest);
  let offset = 0;
  for (const { number, values } of rows) {
    writer.tensor(`direction.${number}`, [values.length], F32, offset);
    offset = alignUp(offset + values.byteLength, DEFAULT_ALIGNMENT_BYTES);
  }
  for (const { values } of rows) {
    writer.padTo(DEFAULT_ALIGNMENT_BYTES);
    writer.bytes(floatBytes(values));
  }
  writer.padTo(DEFAULT_ALIGNMENT_BYTES);
  return writer.finish();
}

function readKeys(reader: GgufReader, count: number): Map<string, GgufValue> {
  const values = new Map<string, GgufValue>();
  for (let i = 0; i < count; i += 1) {
    const key = reader.text("key");
    if (values.has(key)) throw new VectorFileError(`names the key ${quote(key)} twice`);
    values.set(key, reader.value(key));
  }
  return values;
}

/** The alignment of the data. */
function checkKeys(values: ReadonlyMap<string, GgufValue>): number {
  const architecture = values.get("general.architecture");
  if (architecture?.value !== ARCHITECTURE) {
    const shown = typeof architecture?.value === "string" ? quote(architecture.value) : "no text";
    throw new VectorFileError(`general.architecture is ${shown}, not "${ARCHITECTURE}"`);
  }
  const layerCount = values.get(`${ARCHITECTURE}.layer_count`);
  const isCount = layerCount?.type === "u32" || layerCount?.type === "i32";
  if (layerCount && !(isCount && Number(layerCount.value) >= 0)) {
    throw new VectorFileError(`${ARCHITECTURE}.layer_count is no count (u32 or i32)`);
  }
  const alignment = values.get("general.alignment");
  if (!alignment) return DEFAULT_ALIGNMENT_BYTES;
  const bytes = Number(alignment.value);
  const isPower = bytes > 0 && bytes <= MAX_ALIGNMENT_BYTES && (bytes & (bytes - 1)) === 0;
  if (alignment.type !== "u32" || !isPower) {
    throw new VectorFileError("general.alignment is no power of two (u32)");
  }
  return bytes;
}

interface TensorInfo {
  name: string;
  number: number;
  values: number;
  /** From the start of the data. */
  offset: number;
}

function readTensorInfo(reader: GgufReader): TensorInfo {
  const name = reader.text("tensor name");
  const digits = TENSOR_NAME.exec(name)?.[1];
  if (digits === undefined) {
    throw new VectorFileError(`tensor ${quote(name)} is not named direction.<N>`);
  }
  const dimensions = reader.u32("dimensions");
  if (dimensions !== 1) {
    throw new VectorFileError(`tensor ${quote(name)} has ${dimensions} dimensions, not 1`);
  }
  const values = reader.size("tensor length");
  const type = reader.u32("tensor type");
  if (type !== F32)
    throw new VectorFileError(`tensor ${quote(name)} is not F32 (ggml type ${type})`);
  return { name, number: Number(digits), values, offset: reader.size("tensor offset") };
}

/** Every byte belongs to one tensor or to the padding between two. */
function readData(
  file: Uint8Array,
  infos: readonly TensorInfo[],
  start: number,
  alignment: number,
): FileRow[] {
  let covered = start;
  const rows = [...infos]
    .sort((a, b) => a.offset - b.offset)
    .map(({ name, number, values, offset }) => {
      const begin = start + offset;
      const end = begin + values * Float32Array.BYTES_PER_ELEMENT;
      if (begin !== alignUp(covered, alignment)) {
        throw new VectorFileError(`tensor ${quote(name)} does not follow the one before it`);
      }
      if (end > file.byteLength) {
        throw new VectorFileError(
          `truncated: tensor ${quote(name)} ends at byte ${end}, the file at ${file.byteLength}`,
        );
      }
      covered = end;
      return { number, values: floatsOf(file.subarray(begin, end)) };
    });
  if (file.byteLength > alignUp(covered, alignment)) {
    throw new VectorFileError(`${file.byteLength - covered} bytes behind the last tensor`);
  }
  return rows;
}

function alignUp(offset: number, alignment: number): number {
  return Math.ceil(offset / alignment) * alignment;
}
