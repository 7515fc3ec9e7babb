/** Rows of steering vectors for tests. */
import { TINY } from "./tiny-checkpoint.js";

/** The same numbers for the same seed; size about `scale` in each place. */
export function randomRow(seed: number, scale = 1, size = TINY.hiddenSize): Buffer {
  const values = new Float32Array(size);
  let state = seed * 2_654_435_761;
  for (const index of values.keys()) {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) | 0;
    values[index] = (scale * state) / 2 ** 31;
  }
  return rowBytes(values);
}

export function rowBytes(values: ArrayLike<number>): Buffer {
  const bytes = Buffer.alloc(values.length * 4);
  for (let index = 0; index < values.length; index++) {
    bytes.writeFloatLE(values[index] ?? 0, index * 4);
  }
  return bytes;
}

/** An inline vector with a row for each of the layers. */
export function inlineVector(seed: number, layers: number[], scale = 1) {
  return {
    inline: { rows: layers.map((layer) => ({ layer, data: randomRow(seed + layer, scale) })) },
  };
}
