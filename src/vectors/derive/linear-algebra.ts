/** Dense linear algebra in float64: every sum runs in one fixed order, so results are reproducible. */

export type Row = Float32Array | Float64Array;

/** Four sums side by side: the order is fixed, and the processor is kept busy. */
export function dot(a: Row, b: Row): number {
  const n = a.length;
  const whole = n - (n % 4);
  let s0 = 0;
  let s1 = 0;
  let s2 = 0;
  let s3 = 0;
  for (let i = 0; i < whole; i += 4) {
    s0 += at(a, i) * at(b, i);
    s1 += at(a, i + 1) * at(b, i + 1);
    s2 += at(a, i + 2) * at(b, i + 2);
    s3 += at(a, i + 3) * at(b, i + 3);
  }
  for (let i = whole; i < n; i += 1) s0 += at(a, i) * at(b, i);
  return s0 + s1 + (s2 + s3);
}

/** y += scale · x */
export function addScaled(y: Float64Array, scale: number, x: Row): void {
  for (let i = 0; i < y.length; i += 1) y[i] = at(y, i) + scale * at(x, i);
}

export function norm(a: Row): number {
  return Math.sqrt(dot(a, a));
}

/** In place. The caller knows that `a` is not 0. */
export function scaleToUnit(a: Float64Array): void {
  const length = norm(a);
  for (let i = 0; i < a.length; i += 1) a[i] = at(a, i) / length;
}

/** Row-major; `rows` × `columns`. */
export interface Matrix {
  rows: number;
  columns: number;
  values: Float32Array | Float64Array;
}

export function rowOf(matrix: Matrix, row: number): Row {
  return matrix.values.subarray(row * matrix.columns, (row + 1) * matrix.columns);
}

/** X·z, [rows] */
export function times(x: Matrix, z: Row): Float64Array {
  const product = new Float64Array(x.rows);
  for (let i = 0; i < x.rows; i += 1) product[i] = dot(rowOf(x, i), z);
  return product;
}

/** Xᵀ·y, [columns] */
export function transposeTimes(x: Matrix, y: Row): Float64Array {
  const product = new Float64Array(x.columns);
  for (let i = 0; i < x.rows; i += 1) {
    const scale = at(y, i);
    if (scale !== 0) addScaled(product, scale, rowOf(x, i));
  }
  return product;
}

/** X·Xᵀ, [rows, rows] */
export function gram(x: Matrix): Matrix {
  const values = new Float64Array(x.rows * x.rows);
  for (let i = 0; i < x.rows; i += 1) {
    const row = rowOf(x, i);
    for (let j = 0; j <= i; j += 1) {
      const product = dot(row, rowOf(x, j));
      values[i * x.rows + j] = product;
      values[j * x.rows + i] = product;
    }
  }
  return { rows: x.rows, columns: x.rows, values };
}

/** Xᵀ·X, [columns, columns] */
export function secondMoment(x: Matrix): Matrix {
  const d = x.columns;
  const values = new Float64Array(d * d);
  for (let i = 0; i < x.rows; i += 1) {
    const row = rowOf(x, i);
    for (let j = 0; j < d; j += 1) {
      addScaled(values.subarray(j * d, j * d + d), at(row, j), row);
    }
  }
  return { rows: d, columns: d, values };
}

/**
 * L with L·Lᵀ = A for a symmetric positive semidefinite A. A pivot that is 0 but for rounding gives a
 * column of zeros.
 */
export function cholesky(a: Matrix): Matrix {
  const n = a.rows;
  const values = new Float64Array(n * n);
  let largest = 0;
  for (let i = 0; i < n; i += 1) largest = Math.max(largest, at(a.values, i * n + i));
  const smallest = largest * n * Number.EPSILON;
  for (let j = 0; j < n; j += 1) {
    const left = values.subarray(j * n, j * n + j);
    const pivot = at(a.values, j * n + j) - dot(left, left);
    if (pivot <= smallest) continue;
    const root = Math.sqrt(pivot);
    values[j * n + j] = root;
    for (let i = j + 1; i < n; i += 1) {
      const product = dot(values.subarray(i * n, i * n + j), left);
      values[i * n + j] = (at(a.values, i * n + j) - product) / root;
    }
  }
  return { rows: n, columns: n, values };
}

/** Inside the bounds by construction; the compiler cannot know. */
export function at(values: Row, index: number): number {
  return values[index] as number;
}
