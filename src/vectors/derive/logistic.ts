/**
 * L2-regularised logistic regression without intercept on the rows x of X labelled 1 and the rows −x
 * labelled −1, as scikit-learn defines it with C = 1:
 *
 *   f(w) = ½‖w‖² + 2 Σ log(1 + exp(−x·w))
 *
 * Newton's method, its systems solved by conjugate gradients (Nocedal & Wright, ch. 5 and 7).
 */
import {
  addScaled,
  at,
  cholesky,
  dot,
  gram,
  type Matrix,
  norm,
  times,
  transposeTimes,
} from "./linear-algebra.js";

/** Relative to the gradient at 0. */
const GRADIENT_TOLERANCE = 1e-10;
const MAX_NEWTON_STEPS = 100;
const SOLVE_TOLERANCE = 1e-8;
const ARMIJO = 1e-4;
const MAX_HALVINGS = 40;

/**
 * The minimiser w, [columns]. With more columns than rows it works on the Gram matrix instead: X and
 * L of X·Xᵀ = L·Lᵀ give the same margins, and w = 2 Σ σ(−x·w) x at the minimum.
 */
export function logisticWeights(x: Matrix): Float64Array {
  const features = x.rows <= x.columns ? cholesky(gram(x)) : x;
  const z = minimise(features);
  const pull = times(features, z);
  for (let i = 0; i < pull.length; i += 1) pull[i] = 2 * sigmoid(-at(pull, i));
  return transposeTimes(x, pull);
}

function minimise(features: Matrix): Float64Array {
  let z: Float64Array = new Float64Array(features.columns);
  let margins = times(features, z);
  let value = objective(z, margins);
  let goal = 0;
  for (let step = 0; step < MAX_NEWTON_STEPS; step += 1) {
    const gradient = gradientOf(features, z, margins);
    const size = norm(gradient);
    if (step === 0) goal = size * GRADIENT_TOLERANCE;
    if (size <= goal) break;
    const curvature = margins.map((margin) => 2 * sigmoid(margin) * sigmoid(-margin));
    const direction = solve(features, curvature, gradient);
    const slope = dot(gradient, direction);
    const next = search(features, z, direction, value, slope);
    // Rounding leaves nothing to gain.
    if (next === null) break;
    ({ z, margins, value } = next);
  }
  return z;
}

interface Point {
  z: Float64Array;
  margins: Float64Array;
  value: number;
}

/** Halves the step until it gains enough. */
function search(
  features: Matrix,
  z: Float64Array,
  direction: Float64Array,
  value: number,
  slope: number,
): Point | null {
  for (let length = 1, i = 0; i < MAX_HALVINGS; i += 1, length /= 2) {
    const moved = Float64Array.from(z);
    addScaled(moved, -length, direction);
    const margins = times(features, moved);
    const reached = objective(moved, margins);
    if (reached < value - ARMIJO * length * slope) return { z: moved, margins, value: reached };
  }
  return null;
}

function objective(z: Float64Array, margins: Float64Array): number {
  let loss = 0;
  for (const margin of margins) {
    loss += Math.max(0, -margin) + Math.log1p(Math.exp(-Math.abs(margin)));
  }
  return dot(z, z) / 2 + 2 * loss;
}

function gradientOf(features: Matrix, z: Float64Array, margins: Float64Array): Float64Array {
  const pull = margins.map((margin) => -2 * sigmoid(-margin));
  const gradient = transposeTimes(features, pull);
  addScaled(gradient, 1, z);
  return gradient;
}

/** (I + Fᵀ·diag(curvature)·F)·p = gradient by conjugate gradients. */
function solve(features: Matrix, curvature: Float64Array, gradient: Float64Array): Float64Array {
  const solution = new Float64Array(gradient.length);
  const residual = Float64Array.from(gradient);
  let direction = Float64Array.from(gradient);
  let square = dot(residual, residual);
  const goal = square * SOLVE_TOLERANCE ** 2;
  for (let i = 0; i < 2 * gradient.length && square > goal; i += 1) {
    const along = times(features, direction);
    for (let j = 0; j < along.length; j += 1) along[j] = at(along, j) * at(curvature, j);
    const product = transposeTimes(features, along);
    addScaled(product, 1, direction);
    const step = square / dot(direction, product);
    addScaled(solution, step, direction);
    addScaled(residual, -step, product);
    const before = square;
    square = dot(residual, residual);
    const next = Float64Array.from(residual);
    addScaled(next, square / before, direction);
    direction = next;
  }
  return solution;
}

function sigmoid(x: number): number {
  return x >= 0 ? 1 / (1 + Math.exp(-x)) : Math.exp(x) / (1 + Math.exp(x));
}
