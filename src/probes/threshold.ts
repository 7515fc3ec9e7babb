/** The threshold of a probe at a false-positive rate. */
import type { Calibration } from "../vectors/vector.js";

/** The lowest threshold that at most `rate` of the scores are above: the largest that may not fire. */
export function thresholdOf(scores: Float64Array, rate: number): Omit<Calibration, "benignDigest"> {
  const falling = Float64Array.from(scores).sort().reverse();
  const allowed = Math.floor(rate * falling.length);
  const threshold = falling[allowed] ?? 0;
  const fired = scores.filter((score) => score > threshold).length;
  const mean = scores.reduce((sum, score) => sum + score, 0) / scores.length;
  const squares = scores.reduce((sum, score) => sum + (score - mean) ** 2, 0);
  return {
    threshold,
    falsePositiveRate: rate,
    measuredFalsePositiveRate: fired / scores.length,
    benignInputs: scores.length,
    benignMean: mean,
    benignStandardDeviation: Math.sqrt(squares / scores.length),
  };
}
