/**
 * The safetensors format: 8 bytes little-endian header length, a JSON object that maps names to
 * {dtype, shape, data_offsets} and "__metadata__" to texts, then the data. Nothing is trusted.
 */
import type { DTypeName, NativeTensorLocation } from "../native/binding.js";
import { firstDuplicateKey, isObject, type JsonObject, reasonOf } from "./json.js";

/** What is wrong with the bytes; the caller says where they come from. */
export class SafetensorsError extends Error {
  override readonly name = "SafetensorsError";
}

export interface SafetensorsContent {
  /** In the order of their bytes; `file` is 0. */
  tensors: NativeTensorLocation[];
  metadata: Record<string, string>;
}

/** Bytes of the length in front of the header. */
export const LENGTH_BYTES = 8;
/** The format's own limit. */
const MAX_HEADER_BYTES = 100_000_000;
const MAX_DIMENSIONS = 2;
const METADATA = "__metadata__";

const DTYPES = new Map<unknown, { name: DTypeName; bytes: number }>([
  ["BF16", { name: "bf16", bytes: 2 }],
  ["F16", { name: "f16", bytes: 2 }],
  ["F32", { name: "f32", bytes: 4 }],
]);

/** The header's length, from the first 8 bytes of a file of `fileBytes`. */
export function headerLength(start: Uint8Array, fileBytes: number): number {
  if (fileBytes < LENGTH_BYTES || start.byteLength < LENGTH_BYTES) {
    throw new SafetensorsError(`truncated: ${fileBytes} bytes, no safetensors header`);
  }
  const length = new DataView(start.buffer, start.byteOffset).getBigUint64(0, true);
  if (length > BigInt(MAX_HEADER_BYTES) || length > BigInt(fileBytes - LENGTH_BYTES)) {
    throw new SafetensorsError(
      `the header claims ${length} bytes; the file has ${fileBytes} in all`,
    );
  }
  return Number(length);
}

/** `header`: the bytes behind the length. Offsets in the result count from the start of the file. */
export function parseHeader(header: Uint8Array, fileBytes: number): SafetensorsContent {
  const text = decodeUtf8(header);
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new SafetensorsError(`the header is not JSON: ${reasonOf(error)}`);
  }
  if (!isObject(json)) throw new SafetensorsError("the header is not a JSON object");
  const twice = firstDuplicateKey(text);
  if (twice !== null) throw new SafetensorsError(`the header names ${JSON.stringify(twice)} twice`);

  const dataStart = LENGTH_BYTES + header.byteLength;
  const tensors = Object.entries(json)
    .filter(([name]) => name !== METADATA)
    .map(([name, entry]) => parseTensor(name, entry, dataStart));
  tensors.sort((a, b) => a.offsetBytes - b.offsetBytes);
  checkLayout(tensors, dataStart, fileBytes);
  return { tensors, metadata: parseMetadata(json) };
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new SafetensorsError("the header is not UTF-8");
  }
}

function parseMetadata(json: JsonObject): Record<string, string> {
  const value = json[METADATA] ?? {};
  if (!isObject(value)) throw new SafetensorsError(`${METADATA} is not an object`);
  const metadata: [string, string][] = [];
  for (const [key, text] of Object.entries(value)) {
    if (typeof text !== "string") throw new SafetensorsError(`${METADATA}.${key} is not a text`);
    metadata.push([key, text]);
  }
  return Object.fromEntries(metadata);
}

function parseTensor(name: string, entry: unknown, dataStart: number): NativeTensorLocation {
  const fail = (text: string): never => {
    throw new SafetensorsError(`tensor ${JSON.stringify(name)}: ${text}`);
  };
  if (!isObject(entry)) return fail("is not an object");
  const { dtype, shape, data_offsets: offsets } = entry;
  const type = DTYPES.get(dtype);
  if (!type) return fail(`dtype ${JSON.stringify(dtype)} is not supported; BF16, F16, F32 are`);
  if (!isSizes(shape) || shape.length < 1 || shape.length > MAX_DIMENSIONS || shape.includes(0)) {
    return fail(`shape ${JSON.stringify(shape)} is not one or two positive sizes`);
  }
  if (!isSizes(offsets) || offsets.length !== 2) {
    return fail(`data_offsets ${JSON.stringify(offsets)} are not two byte offsets`);
  }
  const [begin = 0, end = 0] = offsets;
  const wanted = shape.reduce((product, size) => product * size, type.bytes);
  if (end - begin !== wanted) {
    return fail(`has ${end - begin} bytes; ${dtype} ${JSON.stringify(shape)} takes ${wanted}`);
  }
  return {
    name,
    dtype: type.name,
    shape,
    file: 0,
    offsetBytes: dataStart + begin,
    sizeBytes: wanted,
  };
}

function isSizes(value: unknown): value is number[] {
  return Array.isArray(value) && value.every((size) => Number.isSafeInteger(size) && size >= 0);
}

/** The data must be covered exactly: no overlap, no hole, nothing behind. */
function checkLayout(tensors: NativeTensorLocation[], dataStart: number, fileBytes: number): void {
  let covered = dataStart;
  for (const tensor of tensors) {
    if (tensor.offsetBytes < covered) {
      throw new SafetensorsError(
        `tensor ${JSON.stringify(tensor.name)} overlaps the one before it`,
      );
    }
    if (tensor.offsetBytes > covered) {
      throw new SafetensorsError(
        `bytes before tensor ${JSON.stringify(tensor.name)} belong to none`,
      );
    }
    covered += tensor.sizeBytes;
  }
  if (covered > fileBytes) {
    throw new SafetensorsError(
      `truncated: the tensors end at byte ${covered}, the file at ${fileBytes}`,
    );
  }
  if (covered < fileBytes) {
    throw new SafetensorsError(`${fileBytes - covered} bytes behind the last tensor`);
  }
}
