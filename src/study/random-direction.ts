/** Random directions: the control that the effect of every vector should be compared with. */

/** Uniform in [0, 1): mulberry32, a 32-bit generator whose whole state is a counter. */
function uniform(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let bits = Math.imul(state ^ (state >>> 15), 1 | state);
    bits = (bits + Math.imul(bits ^ (bits >>> 7), 61 | bits)) ^ bits;
    return ((bits ^ (bits >>> 14)) >>> 0) / 2 ** 32;
  };
}

/** A row of length `norm`, uniform over directions; the same for the same seed and layer. */
export function randomDirection(
  hiddenSize: number,
  norm: number,
  seed: number,
  layer: number,
): Float32Array {
  const next = uniform(Math.imul(seed, 0x9e3779b1) ^ Math.imul(layer + 1, 0x85ebca6b));
  // Box-Muller: independent normal values point in every direction alike.
  const normal = () => Math.sqrt(-2 * Math.log(1 - next())) * Math.cos(2 * Math.PI * next());
  const row = Array.from({ length: hiddenSize }, normal);
  const scale = norm / Math.hypot(...row);
  return Float32Array.from(row, (value) => value * scale);
}
