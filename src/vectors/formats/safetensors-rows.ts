/**
 * safetensors of rows that others wrote too: tensors `layer.<N>`, `layer_<N>` or `<N>`, F32, F16 or
 * BF16, [hidden size] or [1, hidden size]. What this project writes has metadata beside the rows.
 */
import {
  headerLength,
  LENGTH_BYTES,
  parseHeader,
  SafetensorsError,
} from "../../model/safetensors-header.js";
import type { DTypeName } from "../../native/binding.js";
import { floatsOf } from "../vector.js";
import { checkRows, type FileRow, quote, rowNumber, VectorFileError } from "./file.js";
import { fromBfloat16, fromFloat16 } from "./floats.js";

const DECODERS: Record<DTypeName, (bytes: Uint8Array) => Float32Array> = {
  f32: floatsOf,
  f16: fromFloat16,
  bf16: fromBfloat16,
};

export interface SafetensorsRows {
  rows: FileRow[];
  metadata: Record<string, string>;
}

/** Throws a VectorFileError. */
export function decodeSafetensorsRows(file: Uint8Array): SafetensorsRows {
  const { tensors, metadata } = header(file);
  const rows = tensors.map(({ name, dtype, shape, offsetBytes, sizeBytes }) => {
    if (shape.length !== 1 && shape[0] !== 1) {
      throw new VectorFileError(`tensor ${quote(name)} has shape [${shape}], not [hidden size]`);
    }
    const bytes = file.subarray(offsetBytes, offsetBytes + sizeBytes);
    return { number: rowNumber(name), values: DECODERS[dtype](bytes) };
  });
  return { rows: checkRows(rows), metadata };
}

function header(file: Uint8Array) {
  try {
    const length = headerLength(file.subarray(0, LENGTH_BYTES), file.byteLength);
    const end = LENGTH_BYTES + length;
    return parseHeader(file.subarray(LENGTH_BYTES, end), file.byteLength);
  } catch (error) {
    if (error instanceof SafetensorsError) throw new VectorFileError(error.message);
    throw error;
  }
}
