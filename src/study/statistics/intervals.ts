/** Shares with Wilson's interval. */
import normalQuantile from "@stdlib/stats-base-dists-normal-quantile";
import type { Rate } from "./types.js";

export const LEVEL = 0.95;
const Z = normalQuantile(1 - (1 - LEVEL) / 2, 0, 1);

/** E. B. Wilson, 1927; without a correction for continuity. Nothing counted: 0, with the interval 0 to 1. */
export function rateOf(count: number, total: number): Rate {
  if (total === 0) return { count, total, rate: 0, interval: { low: 0, high: 1 } };
  const rate = count / total;
  const scale = 1 + (Z * Z) / total;
  const middle = (rate + (Z * Z) / (2 * total)) / scale;
  const half = (Z * Math.sqrt((rate * (1 - rate)) / total + (Z * Z) / (4 * total * total))) / scale;
  const low = count === 0 ? 0 : Math.max(0, middle - half);
  const high = count === total ? 1 : Math.min(1, middle + half);
  return { count, total, rate, interval: { low, high } };
}
