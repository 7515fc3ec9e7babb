/**
 * Headers of safetensors files. Format: 8 bytes little-endian header length, a JSON object that maps
 * names to {dtype, shape, data_offsets}, then the data. Nothing is trusted.
 */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { StartupError } from "../errors.js";
import type { DTypeName, NativeTensorLocation } from "../native/binding.js";
import { isObject, reasonOf } from "./json.js";

/** The format's own limit. */
const MAX_HEADER_BYTES = 100_000_000;
const MAX_DIMENSIONS = 2;

const DTYPES: Record<string, { name: DTypeName; bytes: number }> = {
  BF16: { name: "bf16", bytes: 2 },
  F16: { name: "f16", bytes: 2 },
  F32: { name: "f32", bytes: 4 },
};

export interface SafetensorsHeader {
  /** In the order of their bytes; `file` is 0. */
  tensors: NativeTensorLocation[];
  /** The header as it stands in the file. */
  text: string;
  fileBytes: number;
}

/** Reads and checks a header; throws a StartupError that names the file and the tensor. */
export function readSafetensorsHeader(path: string): SafetensorsHeader {
  let descriptor: number;
  try {
    descriptor = openSync(path, "r");
  } catch (error) {
    throw new StartupError(`${path}: cannot be opened: ${reasonOf(error)}`);
  }
  try {
    const fileBytes = fstatSync(descriptor).size;
    const text = readHeaderText(path, descriptor, fileBytes);
    const dataStart = 8 + Buffer.byteLength(text);
    return { tensors: parseHeader(path, text, dataStart, fileBytes), text, fileBytes };
  } finally {
    closeSync(descriptor);
  }
}

function readHeaderText(path: string, descriptor: number, fileBytes: number): string {
  const length = Buffer.alloc(8);
  if (fileBytes < 8 || readSync(descriptor, length, 0, 8, 0) !== 8) {
    throw new StartupError(`${path}: truncated: ${fileBytes} bytes, no safetensors header`);
  }
  const headerBytes = length.readBigUInt64LE();
  if (headerBytes > BigInt(MAX_HEADER_BYTES) || headerBytes > BigInt(fileBytes - 8)) {
    throw new StartupError(
      `${path}: the header claims ${headerBytes} bytes; the file has ${fileBytes} in all`,
    );
  }
  const header = Buffer.alloc(Number(headerBytes));
  if (readSync(descriptor, header, 0, header.length, 8) !== header.length) {
    throw new StartupError(`${path}: truncated inside the header`);
  }
  const text = header.toString("utf8");
  if (!Buffer.from(text, "utf8").equals(header)) {
    throw new StartupError(`${path}: the header is not UTF-8`);
  }
  return text;
}

function parseHeader(
  path: string,
  text: string,
  dataStart: number,
  fileBytes: number,
): NativeTensorLocation[] {
  let header: unknown;
  try {
    header = JSON.parse(text);
  } catch (error) {
    throw new StartupError(`${path}: the header is not JSON: ${reasonOf(error)}`);
  }
  if (!isObject(header)) throw new StartupError(`${path}: the header is not a JSON object`);
  refuseDuplicateKeys(path, text, Object.keys(header).length);

  const tensors = Object.entries(header)
    .filter(([name]) => name !== "__metadata__")
    .map(([name, entry]) => parseTensor(path, name, entry, dataStart));
  tensors.sort((a, b) => a.offsetBytes - b.offsetBytes || a.sizeBytes - b.sizeBytes);
  checkLayout(path, tensors, dataStart, fileBytes);
  return tensors;
}

/** JSON.parse keeps the last of two equal keys, which would hide a tensor: count the real ones. */
function refuseDuplicateKeys(path: string, text: string, distinct: number): void {
  let depth = 0;
  let keys = 0;
  for (const match of text.matchAll(/"(?:[^"\\]|\\.)*"(\s*:)?|[{}]/g)) {
    if (match[0] === "{") depth += 1;
    else if (match[0] === "}") depth -= 1;
    else if (depth === 1 && match[1] !== undefined) keys += 1;
  }
  if (keys !== distinct) throw new StartupError(`${path}: the header names a tensor twice`);
}

function parseTensor(
  path: string,
  name: string,
  entry: unknown,
  dataStart: number,
): NativeTensorLocation {
  const fail = (text: string): never => {
    throw new StartupError(`${path}: tensor ${name}: ${text}`);
  };
  if (!isObject(entry)) return fail("is not an object");
  const { dtype, shape, data_offsets: offsets } = entry;
  const type = typeof dtype === "string" ? DTYPES[dtype] : undefined;
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
function checkLayout(
  path: string,
  tensors: NativeTensorLocation[],
  dataStart: number,
  fileBytes: number,
): void {
  let covered = dataStart;
  for (const tensor of tensors) {
    if (tensor.offsetBytes < covered) {
      throw new StartupError(`${path}: tensor ${tensor.name} overlaps the one before it`);
    }
    if (tensor.offsetBytes > covered) {
      throw new StartupError(`${path}: bytes before tensor ${tensor.name} belong to none`);
    }
    covered += tensor.sizeBytes;
  }
  if (covered !== fileBytes) {
    throw new StartupError(
      covered > fileBytes
        ? `${path}: truncated: the tensors end at byte ${covered}, the file at ${fileBytes}`
        : `${path}: ${fileBytes - covered} bytes behind the last tensor`,
    );
  }
}
