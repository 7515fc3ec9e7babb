/**
 * Random weights, fast and the same for the same seed. One block of normal numbers is drawn; every
 * tensor reads it cyclically from an offset of its own. The block's length is a prime, so that no
 * two rows of a matrix with fewer rows than that are equal.
 */

/** Largest prime below 2^22: 8 MB in bf16. */
const BLOCK_VALUES = 4194301;
export const WEIGHT_STDDEV = 0.02;
const NORM_STDDEV = 0.05;

export const DTYPES = {
  bf16: { bytes: 2, safetensors: "BF16", torch: "bfloat16", array: Uint16Array, encode: toBf16 },
  f16: { bytes: 2, safetensors: "F16", torch: "float16", array: Uint16Array, encode: toF16 },
  f32: { bytes: 4, safetensors: "F32", torch: "float32", array: Float32Array, encode: (x) => x },
};

/** splitmix32: uniform in [0, 1). */
function uniformSource(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x9e3779b9) >>> 0;
    let z = state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  };
}

/** Box-Muller. */
function normals(count, seed) {
  const uniform = uniformSource(seed);
  const values = new Float32Array(count);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(1 - uniform()));
    const angle = 2 * Math.PI * uniform();
    values[i] = radius * Math.cos(angle);
    if (i + 1 < count) values[i + 1] = radius * Math.sin(angle);
  }
  return values;
}

const scratch = new DataView(new ArrayBuffer(4));
function bitsOf(value) {
  scratch.setFloat32(0, value);
  return scratch.getUint32(0);
}

/** Round to nearest, ties to even; finite values only. */
function toBf16(value) {
  const bits = bitsOf(value);
  return (bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16;
}

/** Round to nearest, ties to even; finite values below 65504 only. */
export function toF16(value) {
  const bits = bitsOf(value);
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = Math.abs(value);
  const exponent = ((bits >>> 23) & 0xff) - 112;
  if (exponent <= 0) {
    // Subnormal: steps of 2^-24.
    return sign | roundTiesToEven(magnitude * 2 ** 24);
  }
  const mantissa = bits & 0x7fffff;
  const half = (exponent << 10) | (mantissa >>> 13);
  const rest = mantissa & 0x1fff;
  const up = rest > 0x1000 || (rest === 0x1000 && (half & 1) === 1);
  return sign | (half + (up ? 1 : 0));
}

function roundTiesToEven(x) {
  const floor = Math.floor(x);
  const rest = x - floor;
  if (rest !== 0.5) return Math.round(x);
  return floor % 2 === 0 ? floor : floor + 1;
}

function hashOf(text, seed) {
  let hash = (0x811c9dc5 ^ seed) >>> 0;
  for (const byte of Buffer.from(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash;
}

export class RandomWeights {
  /** `dtype`: a key of DTYPES. `stddev`: of matrices and embeddings. */
  constructor(dtype, seed, stddev = WEIGHT_STDDEV) {
    this.dtype = DTYPES[dtype];
    this.seed = seed;
    const values = normals(BLOCK_VALUES, seed);
    const encoded = new this.dtype.array(BLOCK_VALUES);
    for (let i = 0; i < BLOCK_VALUES; i++) {
      encoded[i] = this.dtype.encode(values[i] * stddev);
    }
    this.block = Buffer.from(encoded.buffer);
  }

  /** The bytes of a tensor of tensorsOf(), as chunks that are only valid until the next one. */
  *chunks({ name, shape, kind }) {
    const count = shape.reduce((product, size) => product * size, 1);
    if (kind === "norm") {
      yield this.norm(name, count);
      return;
    }
    let begin = (hashOf(name, this.seed) % BLOCK_VALUES) * this.dtype.bytes;
    let left = count * this.dtype.bytes;
    while (left > 0) {
      const size = Math.min(left, this.block.length - begin);
      yield this.block.subarray(begin, begin + size);
      left -= size;
      begin = 0;
    }
  }

  norm(name, count) {
    const values = normals(count, hashOf(name, this.seed));
    const encoded = this.dtype.array.from(values, (x) => this.dtype.encode(1 + x * NORM_STDDEV));
    return Buffer.from(encoded.buffer);
  }
}
