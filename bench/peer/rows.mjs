/** Rows of bf16 matrices in the types of GGUF, and in the row order that llama.cpp expects. */
import { toF16 } from "../checkpoint/random-weights.mjs";

const GROUP = 32;
const Q8_BYTES = 34;

const f32FromBf16 = new Float32Array(65536);
const bits = new Uint32Array(f32FromBf16.buffer);
for (let i = 0; i < 65536; i++) bits[i] = i << 16;
const f16FromBf16 = Uint16Array.from(f32FromBf16, (value) =>
  Number.isFinite(value) && Math.abs(value) < 65504 ? toF16(value) : 0x7e00,
);

/**
 * llama.cpp turns neighbouring pairs where Hugging Face turns (i, i + D/2): row 2i + j of a head
 * is row j * D/2 + i of the checkpoint.
 */
export function ropeRowOrder(rows, headSize) {
  const half = headSize / 2;
  return Int32Array.from({ length: rows }, (_, row) => {
    const head = Math.floor(row / headSize);
    const within = row % headSize;
    return head * headSize + (within % 2) * half + Math.floor(within / 2);
  });
}

/** `bytes`: bf16 [rows, cols]; `order`: source row of each row, or null. */
export function reorderRows(bytes, cols, order) {
  if (order === null) return bytes;
  const stride = cols * 2;
  const result = Buffer.allocUnsafe(bytes.length);
  for (let row = 0; row < order.length; row++) {
    const source = order[row] * stride;
    bytes.copy(result, row * stride, source, source + stride);
  }
  return result;
}

const asUint16 = (bytes) => new Uint16Array(bytes.buffer, bytes.byteOffset, bytes.length / 2);

/** bf16 values as `type`. */
export function convert(bytes, type) {
  if (type === "bf16") return bytes;
  const source = asUint16(bytes);
  if (type === "f32") return Buffer.from(Float32Array.from(source, (x) => f32FromBf16[x]).buffer);
  if (type === "f16") return Buffer.from(source.map((x) => f16FromBf16[x]).buffer);
  return quantise(source);
}

/** ggml's Q8_0: of each 32 values the scale max|x|/127 as f16, then 32 int8. */
function quantise(source) {
  const groups = source.length / GROUP;
  const result = Buffer.allocUnsafe(groups * Q8_BYTES);
  for (let group = 0; group < groups; group++) {
    const begin = group * GROUP;
    let largest = 0;
    for (let i = begin; i < begin + GROUP; i++) {
      const magnitude = Math.abs(f32FromBf16[source[i]]);
      if (magnitude > largest) largest = magnitude;
    }
    const inverse = largest === 0 ? 0 : 127 / largest;
    const to = group * Q8_BYTES;
    result.writeUInt16LE(toF16(largest / 127), to);
    for (let i = 0; i < GROUP; i++) {
      const scaled = f32FromBf16[source[begin + i]] * inverse;
      result.writeInt8(Math.sign(scaled) * Math.floor(Math.abs(scaled) + 0.5), to + 2 + i);
    }
  }
  return result;
}
