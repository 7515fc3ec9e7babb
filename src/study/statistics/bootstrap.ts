/** Percentile intervals from resamples of whole clusters. */
import { LEVEL } from "./intervals.js";
import { Random } from "./random.js";
import type { Interval } from "./types.js";

export const RESAMPLES = 4000;
const SEED = 20_240_117;

/** `values` rising; `share` 0 to 1; linear between neighbours, as numpy.percentile. */
export function percentile(values: ArrayLike<number>, share: number): number {
  const place = share * (values.length - 1);
  const below = Math.floor(place);
  const low = values[below] ?? Number.NaN;
  const high = values[Math.min(below + 1, values.length - 1)] ?? Number.NaN;
  return low + (high - low) * (place - below);
}

/** The middle `LEVEL` of resampled statistics, in any order; those that are not a number are left out. */
function intervalOf(statistics: Float64Array): Interval {
  const sorted = statistics.filter((value) => !Number.isNaN(value)).sort();
  const tail = (1 - LEVEL) / 2;
  return { low: percentile(sorted, tail), high: percentile(sorted, 1 - tail) };
}

export interface BootstrapOptions {
  resamples?: number;
  seed?: number;
}

/** `statistic(counts)`: of a resample in which cluster i occurs counts[i] times. */
export function bootstrap(
  clusters: number,
  statistic: (counts: Int32Array) => number,
  { resamples = RESAMPLES, seed = SEED }: BootstrapOptions = {},
): Interval {
  const draws = clusterDraws(clusters, resamples, seed);
  const statistics = new Float64Array(resamples);
  for (let round = 0; round < resamples; round += 1) {
    statistics[round] = statistic(draws.subarray(round * clusters, (round + 1) * clusters));
  }
  return intervalOf(statistics);
}

const MAX_KEPT_DRAWS = 4;
const keptDraws = new Map<string, Int32Array>();

/** Counts of every resample, one after the other; kept, because comparisons of as many clusters share them. */
function clusterDraws(clusters: number, resamples: number, seed: number): Int32Array {
  const key = `${clusters}/${resamples}/${seed}`;
  const kept = keptDraws.get(key);
  if (kept !== undefined) return kept;
  const random = new Random(seed);
  const draws = new Int32Array(clusters * resamples);
  for (let round = 0; round < resamples; round += 1) {
    drawCounts(draws.subarray(round * clusters, (round + 1) * clusters), random);
  }
  const [oldest] = keptDraws.keys();
  if (keptDraws.size >= MAX_KEPT_DRAWS && oldest !== undefined) keptDraws.delete(oldest);
  keptDraws.set(key, draws);
  return draws;
}

/** As many draws with replacement as there are places; `counts` is overwritten. */
function drawCounts(counts: Int32Array, random: Random): void {
  counts.fill(0);
  for (let draw = 0; draw < counts.length; draw += 1) {
    const place = random.below(counts.length);
    counts[place] = (counts[place] ?? 0) + 1;
  }
}

/** Sum and number of a task's values. */
export interface Cluster {
  sum: number;
  size: number;
}

/** Interval of the mean over all values, tasks drawn. */
export function meanInterval(
  clusters: readonly Cluster[],
  options: BootstrapOptions = {},
): Interval {
  // Flat arrays: this runs millions of times.
  const sums = Float64Array.from(clusters, ({ sum }) => sum);
  const sizes = Float64Array.from(clusters, ({ size }) => size);
  const statistic = (counts: Int32Array) => weighted(counts, sums) / weighted(counts, sizes);
  return bootstrap(clusters.length, statistic, options);
}

function weighted(counts: Int32Array, values: Float64Array): number {
  let sum = 0;
  for (let place = 0; place < values.length; place += 1) {
    sum += (counts[place] ?? 0) * (values[place] ?? 0);
  }
  return sum;
}

/** A task's values in the cell, and in each of its baselines. */
export interface CrossedCluster {
  sum: number;
  baselineSums: readonly number[];
  size: number;
}

/** Interval of mean − mean of the baselines; draws tasks, and independently baselines. */
export function crossedInterval(
  clusters: readonly CrossedCluster[],
  options: BootstrapOptions = {},
): Interval {
  const directions = clusters[0]?.baselineSums.length ?? 0;
  const sums = Float64Array.from(clusters, ({ sum }) => sum);
  const sizes = Float64Array.from(clusters, ({ size }) => size);
  const columns = Array.from({ length: directions }, (_, direction) =>
    Float64Array.from(clusters, ({ baselineSums }) => baselineSums[direction] ?? 0),
  );
  const directionCounts = new Int32Array(directions);
  // A stream of its own, so that the draws of tasks are those of every other comparison.
  const random = new Random((options.seed ?? SEED) + 1);
  const statistic = (counts: Int32Array) => {
    drawCounts(directionCounts, random);
    let pooled = 0;
    for (const [direction, column] of columns.entries()) {
      const times = directionCounts[direction] ?? 0;
      if (times > 0) pooled += times * weighted(counts, column);
    }
    return (weighted(counts, sums) - pooled / directions) / weighted(counts, sizes);
  };
  return bootstrap(clusters.length, statistic, options);
}
