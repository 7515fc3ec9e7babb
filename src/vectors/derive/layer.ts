/** One block's direction and what tells whether it means anything. Pure; runs in a worker. */
import { randomDirections } from "../random.js";
import type { LayerDiagnostics } from "../vector.js";
import type { LayerDifferences } from "./differences.js";
import { cosine, type DeriveMethod, directionOf, everyNth } from "./directions.js";
import { addScaled, dot, type Matrix, norm, rowOf, scaleToUnit, times } from "./linear-algebra.js";

export interface LayerTask {
  kind: "derive";
  method: DeriveMethod;
  normalize: boolean;
  differences: LayerDifferences;
  randomDirections: number;
  randomSeed: bigint;
}

export interface LayerResult {
  /** Null where the pairs have no direction. */
  row: Float32Array | null;
  meanResidualNorm: number;
  diagnostics: Omit<LayerDiagnostics, "layer">;
}

export function deriveLayer(task: LayerTask): LayerResult {
  const { method, differences } = task;
  const { kept, meanResidualNorm } = differences;
  const derived =
    method === "mean_difference" ? meanDirections(differences) : fittedDirections(method, kept);
  const { direction, even, odd } = derived;
  const hasDirection = direction !== null && norm(direction) > 0;
  if (hasDirection && task.normalize) scaleToUnit(direction);
  const row = hasDirection ? Float32Array.from(direction) : null;
  const random = randomShares(kept, task);
  return {
    row,
    meanResidualNorm,
    diagnostics: {
      splitHalfCosine: even === null || odd === null ? null : cosine(even, odd),
      separatedShare: row === null ? 0 : positiveShare(kept, row),
      separatedPairs: kept.rows,
      normRatio: row === null || meanResidualNorm === 0 ? 0 : norm(row) / meanResidualNorm,
      randomDirections: random.length,
      randomSeed: task.randomSeed.toString(),
      randomSeparatedMean: random.reduce((sum, share) => sum + share, 0) / (random.length || 1),
      randomSeparatedMax: Math.max(0, ...random),
    },
  };
}

interface Directions {
  direction: Float64Array | null;
  /** From the pairs of even and of odd index alone. */
  even: Float64Array | null;
  odd: Float64Array | null;
}

function meanDirections({ pairs, evenSum, oddSum }: LayerDifferences): Directions {
  const direction = new Float64Array(evenSum.length);
  addScaled(direction, 1 / pairs, evenSum);
  addScaled(direction, 1 / pairs, oddSum);
  return { direction, even: evenSum, odd: pairs > 1 ? oddSum : null };
}

function fittedDirections(
  method: Exclude<DeriveMethod, "mean_difference">,
  kept: Matrix,
): Directions {
  const half = (first: number) =>
    kept.rows > 1 ? directionOf(method, everyNth(kept, first, 2)) : null;
  return { direction: directionOf(method, kept), even: half(0), odd: half(1) };
}

/** Share of the rows that project positive. */
function positiveShare(rows: Matrix, direction: Float32Array | Float64Array): number {
  if (rows.rows === 0) return 0;
  return times(rows, direction).filter((projection) => projection > 0).length / rows.rows;
}

/** For each random direction the share under the better of its two signs. */
function randomShares(rows: Matrix, task: LayerTask): number[] {
  const { columns } = rows;
  if (rows.rows === 0) return [];
  const values = randomDirections(task.randomSeed, task.randomDirections, columns);
  const directions: Matrix = { rows: task.randomDirections, columns, values };
  return Array.from({ length: directions.rows }, (_, index) => {
    const direction = rowOf(directions, index);
    let above = 0;
    let below = 0;
    for (let row = 0; row < rows.rows; row += 1) {
      const projection = dot(rowOf(rows, row), direction);
      if (projection > 0) above += 1;
      if (projection < 0) below += 1;
    }
    return Math.max(above, below) / rows.rows;
  });
}
