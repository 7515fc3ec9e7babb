/**
 * Safetensors files: header length (uint64), a JSON header, then the data.
 * https://github.com/huggingface/safetensors#format
 */
import { decodeFloats } from "../../client/client.js";
import { UsageError } from "../exit.js";

const ALIGNMENT_BYTES = 8;
/** The format's own limit. */
const MAX_HEADER_BYTES = 100_000_000;

export type SafetensorsType = "F32" | "F16" | "BF16" | "U32";

export interface TensorEntry {
  name: string;
  /** One of `SafetensorsType` in files of ours; whatever stands there in files of others. */
  type: string;
  shape: readonly number[];
  /** Length of its data; the data follow each other in the order of the entries. */
  sizeBytes: number;
}

/** A tensor in a file that is read. */
export interface TensorSpan extends TensorEntry {
  /** Where its data begins, from the start of the file. */
  offset: number;
}

export interface SafetensorsIndex {
  /** In the order of their data. */
  tensors: TensorSpan[];
  metadata: Record<string, string>;
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
  const { tensors } = parseSafetensors(
    (offset, size) => bytes.subarray(offset, offset + size),
    bytes.length,
    file,
  );
  return tensors.map((span) => {
    const values = floatsOf(span, bytes.subarray(span.offset, span.offset + span.sizeBytes), file);
    return { name: span.name, shape: [...span.shape], values };
  });
}

/** The data of one tensor as float32. Throws a UsageError when it is of another type. */
export function floatsOf(tensor: TensorEntry, data: Buffer, file: string): Float32Array {
  const { name, type, shape, sizeBytes } = tensor;
  if (!Object.hasOwn(FLOAT_TYPES, type)) {
    throw new UsageError(`${file}: tensor "${name}" is ${type}; F32, F16 or BF16 is needed`);
  }
  const count = shape.reduce((product, size) => product * size, 1);
  if (sizeBytes !== count * (type === "F32" ? 4 : 2)) {
    throw new UsageError(`${file}: the bytes of tensor "${name}" do not fit its shape or the file`);
  }
  return decodeFloats(data, FLOAT_TYPES[type as keyof typeof FLOAT_TYPES]);
}

/**
 * The header of a file of `fileBytes`, read through `readAt(offset, size)`. The data is not looked
 * at. Throws a UsageError that names `file`.
 */
export function parseSafetensors(
  readAt: (offset: number, size: number) => Buffer,
  fileBytes: number,
  file: string,
): SafetensorsIndex {
  const length = fileBytes >= 8 ? readAt(0, 8).readBigUInt64LE() : -1n;
  if (length < 0n || length > BigInt(fileBytes - 8) || length > BigInt(MAX_HEADER_BYTES)) {
    throw new UsageError(`${file}: not a safetensors file, or truncated`);
  }
  const dataStart = 8 + Number(length);
  let header: unknown;
  try {
    header = JSON.parse(readAt(8, Number(length)).toString("utf8"));
  } catch {
    throw new UsageError(`${file}: the safetensors header is not JSON`);
  }
  if (typeof header !== "object" || header === null) {
    throw new UsageError(`${file}: the safetensors header is not an object`);
  }
  const { __metadata__: metadata, ...entries } = header as Record<string, unknown>;
  const tensors = Object.entries(entries).map(([name, entry]) => {
    const span = spanOf(name, entry, dataStart, file);
    if (span.offset + span.sizeBytes > fileBytes) {
      throw new UsageError(
        `${file}: the bytes of tensor "${name}" do not fit its shape or the file`,
      );
    }
    return span;
  });
  tensors.sort((a, b) => a.offset - b.offset);
  return { tensors, metadata: (metadata ?? {}) as Record<string, string> };
}

function spanOf(name: string, entry: unknown, dataStart: number, file: string): TensorSpan {
  const { dtype, shape, data_offsets: offsets } = (entry ?? {}) as Record<string, unknown>;
  const numbers = (value: unknown): value is number[] =>
    Array.isArray(value) && value.every((item) => Number.isSafeInteger(item) && item >= 0);
  const wellFormed = typeof dtype === "string" && numbers(shape) && numbers(offsets);
  const [begin = 0, end = -1] = wellFormed ? offsets : [];
  if (!wellFormed || offsets.length !== 2 || end < begin) {
    throw new UsageError(`${file}: the entry of tensor "${name}" is malformed`);
  }
  return { name, type: dtype, shape, offset: dataStart + begin, sizeBytes: end - begin };
}
