/** Little-endian floats of other widths to float32. */
import { endianness } from "node:os";

/** Exact. Upper half of the float32 with the same value. */
export function fromBfloat16(bytes: Uint8Array): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const bits = new Uint32Array(bytes.byteLength / 2);
  for (const index of bits.keys()) bits[index] = view.getUint16(2 * index, true) << 16;
  return new Float32Array(bits.buffer);
}

/** Exact. IEEE 754 binary16. */
export function fromFloat16(bytes: Uint8Array): Float32Array {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const values = new Float32Array(bytes.byteLength / 2);
  for (const index of values.keys()) values[index] = halfValue(view.getUint16(2 * index, true));
  return values;
}

/** Rounded to nearest; what float32 cannot hold becomes infinite. */
export function fromFloat64(bytes: Uint8Array): Float32Array {
  const own = new Uint8Array(bytes);
  if (endianness() === "BE") Buffer.from(own.buffer).swap64();
  return Float32Array.from(new Float64Array(own.buffer));
}

function halfValue(bits: number): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  return sign * (1024 + fraction) * 2 ** (exponent - 25);
}
