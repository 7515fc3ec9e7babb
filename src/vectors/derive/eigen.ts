/**
 * The eigenvector of the largest eigenvalue of a symmetric matrix: Lanczos with full
 * reorthogonalisation (Golub & Van Loan, Matrix Computations, ch. 10), which is exact after as many
 * steps as the matrix has rows and usually there after a few dozen.
 */
import { seededNormals } from "../random.js";
import { addScaled, at, dot, type Matrix, norm, scaleToUnit, times } from "./linear-algebra.js";

/** Residual ‖Ax − θx‖ / θ at which it stops. */
const TOLERANCE = 1e-14;
const MAX_STEPS = 512;
/** Only rounding differs between starting vectors. */
const START_SEED = 1n;
const BISECTIONS = 128;

/** Unit length, sign open; null when the matrix is 0. `a` is positive semidefinite, [n, n]. */
export function topEigenvector(a: Matrix): Float64Array | null {
  const n = a.rows;
  const start = Float64Array.from(seededNormals(START_SEED, 0, n));
  scaleToUnit(start);
  const basis: Float64Array[] = [start];
  const diagonal: number[] = [];
  const offDiagonal: number[] = [];
  for (let step = 0; ; step += 1) {
    const q = basis[step] as Float64Array;
    const w = times(a, q);
    diagonal.push(dot(w, q));
    orthogonalize(w, basis);
    const beta = norm(w);
    const { value, vector } = topOfTridiagonal(diagonal, offDiagonal);
    if (value <= 0) return null;
    const residual = beta * Math.abs(at(vector, step));
    if (residual <= TOLERANCE * value || step + 1 === Math.min(n, MAX_STEPS)) {
      return combine(basis, vector);
    }
    offDiagonal.push(beta);
    scaleToUnit(w);
    basis.push(w);
  }
}

/** Twice: once leaves rounding along the basis. */
function orthogonalize(w: Float64Array, basis: readonly Float64Array[]): void {
  for (let pass = 0; pass < 2; pass += 1) {
    for (const q of basis) addScaled(w, -dot(w, q), q);
  }
}

function combine(basis: readonly Float64Array[], weights: Float64Array): Float64Array {
  const sum = new Float64Array(basis[0]?.length ?? 0);
  for (const [index, q] of basis.entries()) addScaled(sum, at(weights, index), q);
  scaleToUnit(sum);
  return sum;
}

interface EigenPair {
  value: number;
  /** Unit length. */
  vector: Float64Array;
}

/** Largest eigenvalue by bisection on the number of eigenvalues above, its vector by inverse iteration. */
export function topOfTridiagonal(
  diagonal: readonly number[],
  offDiagonal: readonly number[],
): EigenPair {
  const n = diagonal.length;
  const beside = (i: number) =>
    Math.abs(offDiagonal[i - 1] ?? 0) + (i < n - 1 ? Math.abs(offDiagonal[i] ?? 0) : 0);
  let low = Math.max(...diagonal);
  let high = Math.max(...diagonal.map((value, i) => value + beside(i)));
  for (let i = 0; i < BISECTIONS; i += 1) {
    const middle = low + (high - low) / 2;
    if (middle <= low || middle >= high) break;
    if (anyAbove(diagonal, offDiagonal, middle)) low = middle;
    else high = middle;
  }
  // Just above the eigenvalue T − shift is negative definite: no pivoting is needed.
  const shift = high + Math.max(Math.abs(high), Number.MIN_VALUE) * 4 * Number.EPSILON;
  let vector: Float64Array = new Float64Array(n).fill(1 / Math.sqrt(n));
  for (let i = 0; i < 3; i += 1) {
    vector = solveShifted(diagonal, offDiagonal, shift, vector);
    scaleToUnit(vector);
  }
  return { value: low, vector };
}

/** Sylvester's law: a positive pivot of T − x tells of an eigenvalue above x. */
function anyAbove(diagonal: readonly number[], offDiagonal: readonly number[], x: number): boolean {
  let pivot = 1;
  for (const [i, value] of diagonal.entries()) {
    const beta = offDiagonal[i - 1] ?? 0;
    pivot = value - x - (i === 0 ? 0 : (beta * beta) / pivot);
    if (pivot > 0) return true;
    if (pivot === 0) pivot = -Number.MIN_VALUE;
  }
  return false;
}

/** (T − shift)·y = b by elimination without pivoting. */
function solveShifted(
  diagonal: readonly number[],
  offDiagonal: readonly number[],
  shift: number,
  b: Float64Array,
): Float64Array {
  const n = diagonal.length;
  const pivots = new Float64Array(n);
  const y = Float64Array.from(b);
  const tiny = Math.abs(shift) * Number.EPSILON * Number.EPSILON || Number.MIN_VALUE;
  for (let i = 0; i < n; i += 1) {
    const beta = offDiagonal[i - 1] ?? 0;
    const factor = i === 0 ? 0 : beta / at(pivots, i - 1);
    const pivot = (diagonal[i] as number) - shift - factor * beta;
    pivots[i] = Math.abs(pivot) < tiny ? -tiny : pivot;
    if (i > 0) y[i] = at(y, i) - factor * at(y, i - 1);
  }
  for (let i = n - 1; i >= 0; i -= 1) {
    const beta = offDiagonal[i] ?? 0;
    const rest = i === n - 1 ? 0 : beta * at(y, i + 1);
    y[i] = (at(y, i) - rest) / at(pivots, i);
  }
  return y;
}
