/**
 * Safetensors files: header length (uint64), a JSON header, then the data.
 * https://github.com/huggingface/safetensors#format
 */
import { decodeFloats } from "../../client/client.js";
import { UsageError } from "../exit.js";

const ALIGNMENT_BYTES = 8;

export type SafetensorsType = "F32" | "F16" | "BF16" | "U32";

export interface TensorEntry {
  name: string;
  type: SafetensorsType;
  shape: readonly number[];
  /** Length of its data; the data follow each other in the order of the entries. */
  sizeBytes: number;
}

/** The bytes before the data of these tensors. */
export function safetensorsHeader(
  tensors: readonly TensorEntry[],
  metadata: Readonly<Record<string, string>>,
): Buffer {
  const header: Record<string, unknown> = { __metadata__: metadata };
  let offset = 0;
  for (const { name, type, shape, sizeBytes } of tensors) {
    header[name] = { dtype: type, shape, data_offsets: [offset, offset + sizeBytes] };
    offset += sizeBytes;
  }
  const json = Buffer.from(JSON.stringify(header), "utf8");
  const padding = (ALIGNMENT_BYTES - (json.length % ALIGNMENT_BYTES)) % ALIGNMENT_BYTES;
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length + padding));
  return Buffer.concat([length, json, Buffer.alloc(padding, " ")]);
}

export interface FloatTensor {
  name: string;
  shape: number[];
  values: Float32Array;
}

const FLOAT_TYPES = {
  F32: "D_TYPE_FLOAT32",
  F16: "D_TYPE_FLOAT16",
  BF16: "D_TYPE_BFLOAT16",
} as const;

/** Reads float tensors as float32. Throws a UsageError that names `file`. */
export function readSafetensors(bytes: Buffer, file: string): FloatTensor[] {
  const header = readHeader(bytes, file);
  return Object.entries(header.tensors)
    .filter(([name]) => name !== "__metadata__")
    .map(([name, entry]) => readTensor(name, entry, header.data, file));
}

function readHeader(bytes: Buffer, file: string): { tensors: object; data: Buffer } {
  const length = bytes.length >= 8 ? bytes.readBigUInt64LE() : -1n;
  if (length < 0n || length > BigInt(bytes.length - 8)) {
    throw new UsageError(`${file}: not a safetensors file, or truncated`);
  }
  const end = 8 + Number(length);
  let tensors: unknown;
  try {
    tensors = JSON.parse(bytes.toString("utf8", 8, end));
  } catch {
    throw new UsageError(`${file}: the safetensors header is not JSON`);
  }
  if (typeof tensors !== "object" || tensors === null) {
    throw new UsageError(`${file}: the safetensors header is not an object`);
  }
  return { tensors, data: bytes.subarray(end) };
}

function readTensor(name: string, entry: unknown, data: Buffer, file: string): FloatTensor {
  const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Record<string, unknown>;
  const numbers = (value: unknown): value is number[] =>
    Array.isArray(value) && value.every((item) => Number.isInteger(item) && item >= 0);
  if (typeof dtype !== "string" || !numbers(shape) || !numbers(offsets) || offsets.length !== 2) {
    throw new UsageError(`${file}: the entry of tensor "${name}" is malformed`);
  }
  if (!Object.hasOwn(FLOAT_TYPES, dtype)) {
    throw new UsageError(`${file}: tensor "${name}" is ${dtype}; F32, F16 or BF16 is needed`);
  }
  const type = FLOAT_TYPES[dtype as keyof typeof FLOAT_TYPES];
  const [begin = 0, end = 0] = offsets;
  const count = shape.reduce((product, size) => product * size, 1);
  const sizeBytes = count * (type === "D_TYPE_FLOAT32" ? 4 : 2);
  if (end - begin !== sizeBytes || end > data.length) {
    throw new UsageError(`${file}: the bytes of tensor "${name}" do not fit its shape or the file`);
  }
  return { name, shape, values: decodeFloats(data.subarray(begin, end), type) };
}
