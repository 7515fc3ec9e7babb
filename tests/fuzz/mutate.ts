/** Mutations of bytes, the same for the same seed. */

export type Random = () => number;

/** mulberry32: uniform in [0, 1). */
export function randomOf(seed: number): Random {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

export function pick<T>(random: Random, items: readonly T[]): T {
  return items[Math.floor(random() * items.length)] as T;
}

const SIZES = [0n, 1n, 2n, 31n, 255n, 4096n, 0x7fffffffn, 0xffffffffn, 1n << 40n, (1n << 64n) - 1n];
const WORDS = [
  ..."{}[]\",:'()",
  "null",
  "1e999",
  "-0",
  "NaN",
  "\\u0000",
  "direction.0",
  "layer.1",
  "__proto__",
  "constructor",
  "controlvector",
  "<f8",
  "|O",
  "True",
].map((word) => Buffer.from(word));

type Mutation = (bytes: Buffer, random: Random, others: readonly Uint8Array[]) => Uint8Array;

const at = (bytes: Uint8Array, random: Random) => Math.floor(random() * (bytes.length + 1));

const MUTATIONS: Mutation[] = [
  (bytes, random) => {
    const place = at(bytes, random);
    if (place < bytes.length) bytes[place] = (bytes[place] ?? 0) ^ (1 << Math.floor(random() * 8));
    return bytes;
  },
  (bytes, random) => {
    const place = at(bytes, random);
    if (place < bytes.length) bytes[place] = pick(random, [0, 1, 0x7f, 0x80, 0xff, 0x22, 0x7b]);
    return bytes;
  },
  (bytes, random) => {
    const place = at(bytes, random);
    if (place + 8 <= bytes.length) bytes.writeBigUInt64LE(pick(random, SIZES), place);
    return bytes;
  },
  (bytes, random) => {
    const place = at(bytes, random);
    if (place + 4 <= bytes.length)
      bytes.writeUInt32LE(Number(pick(random, SIZES) & 0xffffffffn), place);
    return bytes;
  },
  (bytes, random) => bytes.subarray(0, at(bytes, random)),
  (bytes, random) => {
    const begin = at(bytes, random);
    return Buffer.concat([
      bytes.subarray(0, begin),
      bytes.subarray(begin + Math.floor(random() * 16)),
    ]);
  },
  (bytes, random) => {
    const begin = at(bytes, random);
    const part = bytes.subarray(begin, begin + Math.floor(random() * 64));
    return Buffer.concat([bytes.subarray(0, begin), part, bytes.subarray(begin)]);
  },
  (bytes, random) => {
    const place = at(bytes, random);
    return Buffer.concat([bytes.subarray(0, place), pick(random, WORDS), bytes.subarray(place)]);
  },
  (bytes, random, others) => {
    const other = pick(random, others);
    const tail = other.subarray(at(other, random));
    return Buffer.concat([bytes.subarray(0, at(bytes, random)), tail]);
  },
  (bytes, random) => {
    // A digit: JSON, names and headers are full of them.
    const digits = [...bytes.keys()].filter(
      (i) => (bytes[i] ?? 0) >= 0x30 && (bytes[i] ?? 0) <= 0x39,
    );
    if (digits.length > 0) bytes[pick(random, digits)] = 0x30 + Math.floor(random() * 10);
    return bytes;
  },
];

const MAX_MUTATIONS = 6;

/** A few mutations of a copy, with a buffer of its own. */
export function mutate(
  bytes: Uint8Array,
  random: Random,
  others: readonly Uint8Array[],
): Uint8Array {
  let mutated = new Uint8Array(bytes);
  const count = 1 + Math.floor(random() * MAX_MUTATIONS);
  for (let i = 0; i < count; i += 1) {
    const view = Buffer.from(mutated.buffer, mutated.byteOffset, mutated.byteLength);
    mutated = new Uint8Array(pick(random, MUTATIONS)(view, random, others));
  }
  return mutated;
}
