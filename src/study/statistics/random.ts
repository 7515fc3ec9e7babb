/** Random numbers of resampling: the same for the same seed, on every machine. */

/** Discarded first, so that close seeds part. */
const WARM_UP = 12;

/** sfc32 (C. Doty-Humphrey, PractRand): uniform 32-bit integers. */
export class Random {
  #a: number;
  #b = 0;
  #c = 0;
  #counter = 1;

  constructor(seed: number) {
    this.#a = seed >>> 0;
    for (let index = 0; index < WARM_UP; index += 1) this.uint32();
  }

  uint32(): number {
    const next = (((this.#a + this.#b) >>> 0) + this.#counter) >>> 0;
    this.#counter = (this.#counter + 1) >>> 0;
    this.#a = (this.#b ^ (this.#b >>> 9)) >>> 0;
    this.#b = (this.#c + (this.#c << 3)) >>> 0;
    this.#c = (((this.#c << 21) | (this.#c >>> 11)) + next) >>> 0;
    return next;
  }

  /** 0 to limit − 1; the bias is limit / 2³². */
  below(limit: number): number {
    return Math.floor((this.uint32() / 2 ** 32) * limit);
  }
}
