/** From the differences of pairs to a direction; the methods and signs of docs/steering.md. */
import { topEigenvector } from "./eigen.js";
import {
  addScaled,
  at,
  dot,
  gram,
  type Matrix,
  norm,
  rowOf,
  scaleToUnit,
  secondMoment,
  times,
  transposeTimes,
} from "./linear-algebra.js";
import { logisticWeights } from "./logistic.js";

/** What is left of equal differences once their mean is gone. */
const ROUNDING = 1e-12;

export type DeriveMethod = "mean_difference" | "pca_pairwise" | "pca_centered" | "logistic";

/** Methods that need the difference of every pair at once, not only their sum. */
export function needsDifferences(method: DeriveMethod): boolean {
  return method !== "mean_difference";
}

/** Null where the differences have no direction. */
export function directionOf(
  method: Exclude<DeriveMethod, "mean_difference">,
  differences: Matrix,
): Float64Array | null {
  switch (method) {
    case "pca_pairwise":
      return principalDirection(differences, null);
    case "pca_centered":
      return principalDirection(differences, meanRow(differences));
    case "logistic":
      return logisticDirection(differences);
  }
}

/** Rows from `first` on, every `stride`-th. */
export function everyNth(matrix: Matrix, first: number, stride: number): Matrix {
  const { rows, columns, values } = matrix;
  const taken = Math.max(0, Math.ceil((rows - first) / stride));
  const picked = new Float32Array(taken * columns);
  for (let i = 0; i < taken; i += 1) {
    const start = (first + i * stride) * columns;
    picked.set(values.subarray(start, start + columns), i * columns);
  }
  return { rows: taken, columns, values: picked };
}

/**
 * First eigenvector of (Δ − m)ᵀ(Δ − m), through (Δ − m)(Δ − m)ᵀ where there are fewer pairs than
 * columns.
 */
function principalDirection(differences: Matrix, mean: Float64Array | null): Float64Array | null {
  const centred = mean === null ? differences : minusRow(differences, mean);
  if (norm(centred.values) <= ROUNDING * norm(differences.values)) return null;
  let direction: Float64Array | null;
  if (centred.rows <= centred.columns) {
    const weights = topEigenvector(gram(centred));
    direction = weights === null ? null : transposeTimes(centred, weights);
  } else {
    direction = topEigenvector(secondMoment(centred));
  }
  if (direction === null || norm(direction) === 0) return null;
  scaleToUnit(direction);
  return withMajority(direction, differences);
}

/** The sign under which most pairs project positive; the sign of the mean projection on a tie. */
function withMajority(direction: Float64Array, differences: Matrix): Float64Array {
  const projections = times(differences, direction);
  let majority = 0;
  let sum = 0;
  for (const projection of projections) {
    majority += Math.sign(projection);
    sum += projection;
  }
  return (majority || sum) < 0 ? direction.map((value) => -value) : direction;
}

function logisticDirection(differences: Matrix): Float64Array | null {
  const halves: Matrix = { ...differences, values: differences.values.map((value) => value / 2) };
  const weights = logisticWeights(halves);
  if (norm(weights) === 0) return null;
  scaleToUnit(weights);
  return weights;
}

function meanRow(matrix: Matrix): Float64Array {
  const mean = new Float64Array(matrix.columns);
  for (let i = 0; i < matrix.rows; i += 1) addScaled(mean, 1 / matrix.rows, rowOf(matrix, i));
  return mean;
}

/** In float64: centring in float32 would lose what PCA looks for when the mean is large. */
function minusRow(matrix: Matrix, row: Float64Array): Matrix {
  const { rows, columns, values } = matrix;
  const centred = new Float64Array(rows * columns);
  for (let i = 0; i < rows; i += 1) {
    const start = i * columns;
    for (let j = 0; j < columns; j += 1) centred[start + j] = at(values, start + j) - at(row, j);
  }
  return { rows, columns, values: centred };
}

/** Null when either has no length. */
export function cosine(a: Float64Array, b: Float64Array): number | null {
  const lengths = norm(a) * norm(b);
  return lengths === 0 ? null : Math.max(-1, Math.min(1, dot(a, b) / lengths));
}
