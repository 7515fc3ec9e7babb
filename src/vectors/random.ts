/**
 * Random directions that a seed reproduces on every machine: the small fast counter generator of
 * PractRand (sfc32), seeded by SplitMix64 (Steele, Lea & Flood 2014), and Box and Muller's normals.
 */
const GAMMA = 0x9e3779b97f4a7c15n;
const MASK = (1n << 64n) - 1n;
/** Words that are thrown away until the seed has spread over the state. */
const WARM_UP = 12;

/** `count` standard normals. Streams of one seed are independent of each other. */
export function* seededNormals(
  seed: bigint,
  stream: number,
  count: number,
): Generator<number, void, undefined> {
  const next = uniforms(seed, stream);
  for (let i = 0; i < count; i += 2) {
    const radius = Math.sqrt(-2 * Math.log(next()));
    const angle = 2 * Math.PI * next();
    yield radius * Math.cos(angle);
    if (i + 1 < count) yield radius * Math.sin(angle);
  }
}

/** [count, size], row-major; not normalised: only the order of h·d counts. */
export function randomDirections(seed: bigint, count: number, size: number): Float64Array {
  const directions = new Float64Array(count * size);
  for (let i = 0; i < count; i += 1) {
    let at = i * size;
    for (const value of seededNormals(seed, i, size)) directions[at++] = value;
  }
  return directions;
}

/** Uniform in (0, 1], 53 bits. */
function uniforms(seed: bigint, stream: number): () => number {
  const first = mix64(mix64(seed) ^ BigInt(stream));
  const second = mix64(first);
  let a = Number(first & 0xffffffffn);
  let b = Number(first >> 32n);
  let c = Number(second & 0xffffffffn);
  let counter = 1;
  const word = () => {
    const sum = (a + b + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  };
  for (let i = 0; i < WARM_UP; i += 1) word();
  return () => ((word() >>> 5) * 2 ** 26 + (word() >>> 6) + 1) / 2 ** 53;
}

function mix64(value: bigint): bigint {
  let z = (value + GAMMA) & MASK;
  z = ((z ^ (z >> 30n)) * 0xbf58476d1ce4e5b9n) & MASK;
  z = ((z ^ (z >> 27n)) * 0x94d049bb133111ebn) & MASK;
  return z ^ (z >> 31n);
}
