/** Two-sided tests of paired answers, and their correction. */
import binomialCdf from "@stdlib/stats-base-dists-binomial-cdf";
import padjust from "@stdlib/stats-padjust";
import { Random } from "./random.js";

/** Up to this many tasks every pattern of signs is tried: 2¹² of them. */
const MAX_EXACT_TASKS = 12;
const SIGN_FLIPS = 9999;
const SEED = 20_240_118;
/** Sums that differ by rounding only are equal. */
const RELATIVE_TOLERANCE = 1e-12;

/** McNemar's test on the counts of discordant pairs: the binomial's exact p, and the less cautious mid-p. */
export function mcnemar(here: number, there: number): { exact: number; midP: number } {
  const total = here + there;
  if (total === 0) return { exact: 1, midP: 1 };
  const least = Math.min(here, there);
  const upTo = binomialCdf(least, total, 0.5);
  const before = least === 0 ? 0 : binomialCdf(least - 1, total, 0.5);
  return { exact: Math.min(1, 2 * upTo), midP: Math.min(1, upTo + before) };
}

/**
 * Are the tasks' summed differences centred on 0? Exact over all patterns of signs for few tasks; else
 * over `SIGN_FLIPS` seeded patterns and the one observed.
 */
export function signFlip(differences: readonly number[]): number {
  const moved = differences.filter((difference) => difference !== 0);
  if (moved.length === 0) return 1;
  const size = moved.reduce((sum, difference) => sum + Math.abs(difference), 0);
  const observed = Math.abs(moved.reduce((sum, difference) => sum + difference, 0));
  const isAsFar = (sum: number) => Math.abs(sum) >= observed - RELATIVE_TOLERANCE * size;
  if (moved.length <= MAX_EXACT_TASKS) {
    const patterns = 2 ** moved.length;
    let asFar = 0;
    for (let pattern = 0; pattern < patterns; pattern += 1) {
      const signed = moved.map((value, bit) => ((pattern >> bit) & 1 ? -value : value));
      if (isAsFar(signed.reduce((sum, value) => sum + value, 0))) asFar += 1;
    }
    return asFar / patterns;
  }
  const random = new Random(SEED);
  let asFar = 1;
  for (let round = 0; round < SIGN_FLIPS; round += 1) {
    let sum = 0;
    for (const value of moved) sum += random.uint32() & 0x40000000 ? -value : value;
    if (isAsFar(sum)) asFar += 1;
  }
  return asFar / (SIGN_FLIPS + 1);
}

/** Holm's step-down correction over one family, in the order given. */
export function holm(p: readonly number[]): number[] {
  return p.length === 0 ? [] : padjust([...p], "holm");
}
