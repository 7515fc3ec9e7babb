/** The threshold of a probe at a false-positive rate. */
import type { Calibration } from "../vectors/vector.js";

/**
 * Scores while generating are float32 sums in the kernel's order; this much of ‖h‖‖d‖ keeps a benign
 * text that lies on the threshold here from firing there.
 */
const ROUNDING = 2 ** -18;

/**
 * The lowest threshold that at most `rate` of the scores are above: just over the largest score that
 * may not fire. `scale`: the largest ‖h‖‖d‖.
 */
export function thresholdOf(
  scores: Float64Array,
  rate: number,
  scale: number,
): Omit<Calibration, "benignDigest"> {
  const falling = Float64Array.from(scores).sort().reverse();
  const allowed = Math.floor(rate * falling.length);
  const threshold = (falling[allowed] ?? 0) + ROUNDING * scale;
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
