/**
 * Which steerings are a bias, and which bias. ADD on every token is `h + c·v` after a block, and a
 * block ends with `h = h + (W·x + b)`, so that `b + c·v` in down_proj is the same model. Everything
 * that depends on the row or on the token is no constant, and is refused with the reason.
 */
import { bytesToFloats, type Steering } from "../../client/client.js";
import { UsageError } from "../exit.js";
import type { VectorRows } from "../files/vector-file.js";

/** One steering with the rows that it adds. */
export interface FoldedVector {
  /** For messages: the argument of --steer. */
  name: string;
  steering: Steering;
  rows: VectorRows;
}

const OPERATION_REASONS: Readonly<Record<string, string>> = {
  OPERATION_PROJECT_OUT: "PROJECT_OUT depends on each token's own activation",
  OPERATION_CLAMP: "CLAMP depends on each token's own activation",
  OPERATION_SCALE_COMPONENT: "SCALE_COMPONENT depends on each token's own activation",
};

/** Why a steering is no bias; null when it is one. */
export function reasonNotFoldable(steering: Steering): string | null {
  const { operation, positions, gate, preserveNorm } = steering;
  const reason = OPERATION_REASONS[String(operation ?? "")];
  if (reason !== undefined) return reason;
  if (gate) return "a gate decides anew for each token or request";
  if (preserveNorm) return "preserve-norm depends on the length of each token's activation";
  if (positions?.afterText) return "after_text acts on some tokens only";
  if (positions && !positions.all) return "it acts on some tokens only, a bias acts on all";
  return null;
}

/**
 * The sum of c·v for each block, in float64 and rounded to float32 once: the service rounds each
 * steering's addition to float32. Throws a UsageError that names the steering.
 */
export function foldBiases(
  vectors: readonly FoldedVector[],
  hiddenSize: number,
  blocks: number,
): Map<number, Float32Array> {
  const sums = new Map<number, Float64Array>();
  for (const vector of vectors) addVector(sums, vector, hiddenSize, blocks);
  return new Map([...sums].map(([layer, sum]) => [layer, Float32Array.from(sum)]));
}

function addVector(
  sums: Map<number, Float64Array>,
  { name, steering, rows }: FoldedVector,
  hiddenSize: number,
  blocks: number,
): void {
  const reason = reasonNotFoldable(steering);
  if (reason !== null) throw new UsageError(`${name}: cannot be baked: ${reason}`);
  const coefficient = Number(steering.coefficient ?? 1);
  for (const { layer, data } of rows) {
    const values = bytesToFloats(data);
    if (layer >= blocks) {
      throw new UsageError(`${name}: holds layer ${layer}; the checkpoint has ${blocks} blocks`);
    }
    if (values.length !== hiddenSize) {
      throw new UsageError(
        `${name}: layer ${layer} has ${values.length} values; the checkpoint's width is ${hiddenSize}`,
      );
    }
    if (!values.every((value) => Number.isFinite(Math.fround(coefficient * value)))) {
      throw new UsageError(`${name}: layer ${layer} times ${coefficient} is not finite`);
    }
    const sum = sums.get(layer) ?? new Float64Array(hiddenSize);
    sums.set(layer, sum);
    // The contract carries the coefficient as float32.
    const factor = Math.fround(coefficient);
    for (const [i, value] of values.entries()) sum[i] = (sum[i] ?? 0) + factor * value;
  }
}
