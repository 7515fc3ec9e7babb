/** Rows of floats as the contract carries them: little-endian bytes, row-major. */
import { endianness } from "node:os";

/** As in `ActivationChunk.dtype`. */
export type ActivationDType = "D_TYPE_FLOAT32" | "D_TYPE_BFLOAT16" | "D_TYPE_FLOAT16";

/** Bytes of one value. */
export function dtypeBytes(dtype: ActivationDType): number {
  return dtype === "D_TYPE_FLOAT32" ? 4 : 2;
}

/** float32 values, little-endian: `LayerRow.data`. */
export function floatsToBytes(values: ArrayLike<number>): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (let i = 0; i < values.length; i++) bytes.writeFloatLE(values[i] as number, i * 4);
  return bytes;
}

/** The reverse of `floatsToBytes`. Throws a RangeError when the length is no multiple of 4. */
export function bytesToFloats(bytes: Uint8Array): Float32Array {
  return decodeFloats(bytes, "D_TYPE_FLOAT32");
}

/** Captured bytes as float32 values; exact for every dtype. Throws a RangeError on a cut value. */
export function decodeFloats(bytes: Uint8Array, dtype: ActivationDType): Float32Array {
  const width = dtypeBytes(dtype);
  if (bytes.byteLength % width !== 0) {
    throw new RangeError(`${bytes.byteLength} bytes are no multiple of ${width}`);
  }
  const values = new Float32Array(bytes.byteLength / width);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  switch (dtype) {
    case "D_TYPE_FLOAT32":
      if (endianness() === "LE") new Uint8Array(values.buffer).set(bytes);
      else for (let i = 0; i < values.length; i++) values[i] = view.getFloat32(i * 4, true);
      break;
    case "D_TYPE_BFLOAT16": {
      // A bfloat16 is the upper half of the float32 with the same value.
      const bits = new Uint32Array(values.buffer);
      for (let i = 0; i < bits.length; i++) bits[i] = view.getUint16(i * 2, true) << 16;
      break;
    }
    case "D_TYPE_FLOAT16":
      for (let i = 0; i < values.length; i++) values[i] = float16(view.getUint16(i * 2, true));
      break;
  }
  return values;
}

/** IEEE 754 binary16: 1 sign, 5 exponent, 10 mantissa bits. */
function float16(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const mantissa = bits & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 0x1f) return mantissa === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1 + mantissa / 1024) * 2 ** (exponent - 15);
}
