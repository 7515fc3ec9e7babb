import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import {
  cosine,
  type DeriveMethod,
  directionOf,
  everyNth,
} from "../../../../src/vectors/derive/directions.js";
import { topEigenvector } from "../../../../src/vectors/derive/eigen.js";
import {
  cholesky,
  dot,
  gram,
  type Matrix,
  norm,
  rowOf,
  times,
} from "../../../../src/vectors/derive/linear-algebra.js";
import { randomDirections } from "../../../../src/vectors/random.js";

interface Golden {
  name: string;
  width: number;
  differences: number[][];
  pca_pairwise: number[];
  pca_centered: number[];
  logistic: number[];
  logistic_defaults: number[];
}

const { cases } = JSON.parse(readFileSync(new URL("goldens.json", import.meta.url), "utf8")) as {
  cases: Golden[];
};

function matrixOf(rows: number[][], columns: number): Matrix {
  return { rows: rows.length, columns, values: Float32Array.from(rows.flat()) };
}

function derived(method: Exclude<DeriveMethod, "mean_difference">, matrix: Matrix): Float64Array {
  const direction = directionOf(method, matrix);
  if (direction === null) throw new Error("no direction");
  return direction;
}

describe.each(cases)("$name", (golden) => {
  const matrix = matrixOf(golden.differences, golden.width);

  it.each([
    ["pca_pairwise", golden.pca_pairwise, 1e-10],
    ["pca_centered", golden.pca_centered, 1e-9],
    ["logistic", golden.logistic, 1e-8],
  ] as const)("%s is that of numpy and scikit-learn", (method, expected, tolerance) => {
    const direction = derived(method, matrix);
    expect(norm(direction)).toBeCloseTo(1, 12);
    for (const [index, value] of direction.entries()) {
      expect(Math.abs(value - (expected[index] ?? Number.NaN))).toBeLessThan(tolerance);
    }
  });

  it("logistic agrees with scikit-learn's own stopping rule", () => {
    const expected = Float64Array.from(golden.logistic_defaults);
    expect(cosine(derived("logistic", matrix), expected)).toBeGreaterThan(0.9999);
  });

  it("comes out bit for bit again", () => {
    for (const method of ["pca_pairwise", "pca_centered", "logistic"] as const) {
      expect(derived(method, matrix)).toEqual(derived(method, matrix));
    }
  });
});

describe("signs and directions that do not exist", () => {
  it("the majority of pairs projects positive, whatever the mean says", () => {
    const matrix = matrixOf(
      [
        [1, 0.1],
        [1, -0.1],
        [-9, 0],
      ],
      2,
    );
    expect(derived("pca_pairwise", matrix)[0]).toBeGreaterThan(0.99);
  });

  it("a tie goes to the mean", () => {
    const matrix = matrixOf(
      [
        [3, 0],
        [-1, 0],
      ],
      2,
    );
    expect(derived("pca_pairwise", matrix)[0]).toBeCloseTo(1, 12);
    const turned = matrixOf(
      [
        [-3, 0],
        [1, 0],
      ],
      2,
    );
    expect(derived("pca_pairwise", turned)[0]).toBeCloseTo(-1, 12);
  });

  it("differences of 0 have none; equal ones have none once centred", () => {
    const zeros = matrixOf(
      [
        [0, 0],
        [0, 0],
      ],
      2,
    );
    const equal = matrixOf(
      [
        [0.3, 7],
        [0.3, 7],
        [0.3, 7],
      ],
      2,
    );
    for (const method of ["pca_pairwise", "pca_centered", "logistic"] as const) {
      expect(directionOf(method, zeros)).toBeNull();
    }
    expect(directionOf("pca_centered", equal)).toBeNull();
    expect(directionOf("pca_pairwise", equal)).not.toBeNull();
  });
});

describe("linear algebra", () => {
  const random = (rows: number, columns: number, seed: bigint): Matrix => ({
    rows,
    columns,
    values: randomDirections(seed, rows, columns),
  });

  it("the Cholesky factor gives the matrix back, singular or not", () => {
    for (const [rows, columns] of [
      [6, 9],
      [9, 4],
    ] as const) {
      const a = gram(random(rows, columns, 3n));
      const l = cholesky(a);
      for (let i = 0; i < rows; i += 1) {
        for (let j = 0; j < rows; j += 1) {
          expect(dot(rowOf(l, i), rowOf(l, j))).toBeCloseTo(
            a.values[i * rows + j] ?? Number.NaN,
            9,
          );
        }
      }
    }
  });

  it("the top eigenvector maximises the Rayleigh quotient, close neighbours included", () => {
    const a = gram(random(50, 60, 5n));
    const top = topEigenvector(a);
    if (top === null) throw new Error("no eigenvector");
    const value = dot(times(a, top), top);
    const product = times(a, top);
    for (const [index, entry] of top.entries()) {
      expect(product[index]).toBeCloseTo(value * entry, 8);
    }
    const others = random(200, 50, 6n);
    for (let i = 0; i < others.rows; i += 1) {
      const other = rowOf(others, i);
      expect(dot(times(a, other), other) / dot(other, other)).toBeLessThan(value);
    }
  });

  it("equal eigenvalues end the iteration early with a unit eigenvector", () => {
    const identity: Matrix = { rows: 4, columns: 4, values: new Float64Array(16) };
    for (let i = 0; i < 4; i += 1) identity.values[i * 5] = 2;
    const top = topEigenvector(identity);
    expect(norm(top ?? new Float64Array(1))).toBeCloseTo(1, 14);
  });

  it("every second row starts where it is told", () => {
    const matrix = matrixOf([[1], [2], [3], [4], [5]], 1);
    expect([...everyNth(matrix, 0, 2).values]).toEqual([1, 3, 5]);
    expect([...everyNth(matrix, 1, 2).values]).toEqual([2, 4]);
  });
});

describe("random directions", () => {
  it("a seed reproduces them; seeds and streams differ", () => {
    const first = randomDirections(7n, 2, 5);
    expect(randomDirections(7n, 2, 5)).toEqual(first);
    expect(randomDirections(8n, 2, 5)).not.toEqual(first);
    expect(first.subarray(0, 5)).not.toEqual(first.subarray(5, 10));
    // More of them leave the first ones alone.
    expect(randomDirections(7n, 3, 5).subarray(0, 10)).toEqual(first);
  });

  it("are standard normals", () => {
    const values = randomDirections(0n, 1, 100_001);
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    const square = values.reduce((sum, value) => sum + value * value, 0) / values.length;
    const fourth = values.reduce((sum, value) => sum + value ** 4, 0) / values.length;
    expect(Math.abs(mean)).toBeLessThan(0.015);
    expect(square).toBeCloseTo(1, 1);
    expect(fourth).toBeCloseTo(3, 0);
  });
});
