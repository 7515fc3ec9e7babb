export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

/** `share` in [0, 1]: 0.99 is the 99th percentile, nearest rank. */
export function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.max(0, Math.ceil(share * sorted.length) - 1))];
}

/** Slope of the least-squares line through (x, y), in units of y a unit of x. */
export function slope(points) {
  const meanOf = (pick) => points.reduce((sum, point) => sum + pick(point), 0) / points.length;
  const meanX = meanOf(([x]) => x);
  const meanY = meanOf(([, y]) => y);
  const covariance = meanOf(([x, y]) => (x - meanX) * (y - meanY));
  const variance = meanOf(([x]) => (x - meanX) ** 2);
  return variance === 0 ? 0 : covariance / variance;
}

/** "12.3 (11.9 – 12.8)": median and range. */
export function summary(values, digits = 1) {
  const range = `${Math.min(...values).toFixed(digits)} – ${Math.max(...values).toFixed(digits)}`;
  return `${median(values).toFixed(digits)} (${range})`;
}

/** Median of the values' distances from their median. */
export function medianDeviation(values) {
  const middle = median(values);
  return median(values.map((value) => Math.abs(value - middle)));
}
