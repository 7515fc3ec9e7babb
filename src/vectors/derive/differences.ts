/** The differences δ = a − b of the pairs' reads, streamed in: sums of all, and the rows of the first. */
import { EngineFault } from "../../errors.js";
import type { Matrix } from "./linear-algebra.js";

/** What the computation of one block's direction works on. */
export interface LayerDifferences {
  pairs: number;
  /** Sums of δ over the pairs of even and of odd index, [hidden size]. */
  evenSum: Float64Array;
  oddSum: Float64Array;
  /** δ of the first pairs, [rows, hidden size]; all of them where the method needs them. */
  kept: Matrix;
  /** Mean of ‖a‖ and ‖b‖ over all pairs. */
  meanResidualNorm: number;
}

export class DifferenceSums {
  private pairs = 0;
  /** [layers, hidden size] */
  private readonly evenSums: Float64Array;
  private readonly oddSums: Float64Array;
  /** Per layer [keptPairs, hidden size]. */
  private readonly kept: Float32Array[];
  private readonly norms: Float64Array;

  constructor(
    private readonly layers: number,
    private readonly hiddenSize: number,
    private readonly keptPairs: number,
  ) {
    this.evenSums = new Float64Array(layers * hiddenSize);
    this.oddSums = new Float64Array(layers * hiddenSize);
    this.kept = Array.from({ length: layers }, () => new Float32Array(keptPairs * hiddenSize));
    this.norms = new Float64Array(layers);
  }

  /** The next pair's reads, [layers, hidden size] each. The order of the pairs is that of the sums. */
  add(positive: Float32Array, negative: Float32Array): void {
    const sums = this.pairs % 2 === 0 ? this.evenSums : this.oddSums;
    for (let layer = 0; layer < this.layers; layer += 1) {
      const start = layer * this.hiddenSize;
      const kept = this.pairs < this.keptPairs ? this.kept[layer] : undefined;
      const keptStart = this.pairs * this.hiddenSize;
      let positiveSquares = 0;
      let negativeSquares = 0;
      for (let i = 0; i < this.hiddenSize; i += 1) {
        const a = positive[start + i] as number;
        const b = negative[start + i] as number;
        sums[start + i] = (sums[start + i] as number) + (a - b);
        positiveSquares += a * a;
        negativeSquares += b * b;
        if (kept) kept[keptStart + i] = a - b;
      }
      const norms = Math.sqrt(positiveSquares) + Math.sqrt(negativeSquares);
      if (!Number.isFinite(norms)) throw new EngineFault("a residual stream is not finite");
      this.norms[layer] = (this.norms[layer] as number) + norms;
    }
    this.pairs += 1;
  }

  /** Of the layer at this place; its rows are handed over and gone from here. */
  take(layer: number): LayerDifferences {
    const start = layer * this.hiddenSize;
    const values = this.kept[layer] ?? new Float32Array();
    this.kept[layer] = new Float32Array();
    return {
      pairs: this.pairs,
      evenSum: this.evenSums.slice(start, start + this.hiddenSize),
      oddSum: this.oddSums.slice(start, start + this.hiddenSize),
      kept: { rows: values.length / this.hiddenSize, columns: this.hiddenSize, values },
      meanResidualNorm: (this.norms[layer] ?? 0) / (2 * this.pairs),
    };
  }
}

/** Bytes of the sums, and of each kept pair. */
export function differenceBytes(layers: number, hiddenSize: number) {
  return {
    sums: 2 * layers * hiddenSize * Float64Array.BYTES_PER_ELEMENT,
    eachPair: layers * hiddenSize * Float32Array.BYTES_PER_ELEMENT,
  };
}
