/**
 * From pairs to the rows of a vector. Reads come in the order of the pairs and go into running sums;
 * differences are kept where the method needs them all, within a limit that is checked before
 * anything is read.
 */
import { invalid } from "../../errors.js";
import { Background } from "../background/background.js";
import type { LayerDiagnostics, VectorRow } from "../vector.js";
import { DifferenceSums, differenceBytes } from "./differences.js";
import { type DeriveMethod, needsDifferences } from "./directions.js";
import {
  digestOfPairs,
  type PairPlan,
  type PairTargets,
  planPairs,
  type ReadResiduals,
} from "./pairs.js";

export interface DeriveSpec {
  pairs: readonly PairTargets[];
  method: DeriveMethod;
  /** Ascending, distinct. */
  layers: readonly number[];
  normalize: boolean;
  /** Random directions of the control. */
  randomDirections: number;
  randomSeed: bigint;
}

export interface DeriveResources {
  hiddenSize: number;
  /** Bytes of activations that may be in memory. */
  maxBytes: number;
  /** Told the bytes before they are taken; throws when others hold too much. */
  reserve: (bytes: number) => void;
  read: ReadResiduals;
  signal: AbortSignal;
  /** Told the reads of every pair, [layers, hidden size] each; to be copied, not kept. */
  onPair?: (pair: number, positive: Float32Array, negative: Float32Array) => void;
}

export interface DeriveProgress {
  type: "progress";
  inputsDone: number;
  inputs: number;
  layersDone: number;
  layers: number;
}

export interface Derived {
  type: "derived";
  /** Ascending by layer. */
  rows: VectorRow[];
  /** One a row. */
  meanResidualNorms: number[];
  diagnostics: LayerDiagnostics[];
  pairsDigest: string;
}

/** Messages that tell how far the reading is. */
const PROGRESS_STEPS = 100;

/** Any number of `progress`, then one `derived`. Throws InvalidArgumentError with the field "pairs". */
export async function* deriveRows(
  spec: DeriveSpec,
  resources: DeriveResources,
): AsyncGenerator<DeriveProgress | Derived, void, undefined> {
  const plan = planPairs(spec.pairs);
  const sums = allocate(spec, plan, resources);
  const inputs = plan.targets.length;
  const layers = spec.layers.length;
  for await (const inputsDone of readPairs(spec, plan, sums, resources)) {
    const step = Math.ceil(inputs / PROGRESS_STEPS);
    if (inputsDone % step === 0 || inputsDone === inputs) {
      yield { type: "progress", inputsDone, inputs, layersDone: 0, layers };
    }
  }
  const derived: Derived = {
    type: "derived",
    rows: [],
    meanResidualNorms: [],
    diagnostics: [],
    pairsDigest: digestOfPairs(spec.pairs),
  };
  await using background = new Background();
  for (const [index, layer] of spec.layers.entries()) {
    const { row, meanResidualNorm, diagnostics } = await background.run(
      {
        kind: "derive",
        method: spec.method,
        normalize: spec.normalize,
        differences: sums.take(index),
        randomDirections: spec.randomDirections,
        randomSeed: spec.randomSeed,
      },
      resources.signal,
    );
    if (row === null) throw withoutDirection(spec.method, layer);
    derived.rows.push({ layer, values: row });
    derived.meanResidualNorms.push(meanResidualNorm);
    derived.diagnostics.push({ layer, ...diagnostics });
    yield { type: "progress", inputsDone: inputs, inputs, layersDone: index + 1, layers };
  }
  yield derived;
}

/** Refuses what would not fit, with both numbers. */
function allocate(
  spec: DeriveSpec,
  plan: PairPlan,
  { hiddenSize, maxBytes, reserve }: DeriveResources,
): DifferenceSums {
  const layers = spec.layers.length;
  const pairs = spec.pairs.length;
  const { sums, eachPair } = differenceBytes(layers, hiddenSize);
  // A read takes as much as a difference.
  const base = sums + plan.maxHeld * eachPair;
  const fit = Math.max(0, Math.floor((maxBytes - base) / eachPair));
  const needed = needsDifferences(spec.method) ? pairs : 0;
  if (base > maxBytes || fit < needed) {
    throw invalid(
      "pairs",
      `need ${base + needed * eachPair} bytes of activations; the limit is ${maxBytes}: ask for fewer layers or pairs`,
    );
  }
  const kept = Math.min(pairs, fit);
  reserve(base + kept * eachPair);
  return new DifferenceSums(layers, hiddenSize, kept);
}

/** Yields how many inputs have been read, after each. */
async function* readPairs(
  spec: DeriveSpec,
  plan: PairPlan,
  sums: DifferenceSums,
  resources: DeriveResources,
): AsyncGenerator<number, void, undefined> {
  const held = new Map<number, Float32Array>();
  let pair = 0;
  let inputsDone = 0;
  for await (const read of resources.read(plan.targets, spec.layers)) {
    held.set(inputsDone, read);
    inputsDone += 1;
    for (; pair < plan.pairs.length; pair += 1) {
      const { positive = -1, negative = -1 } = plan.pairs[pair] ?? {};
      const [a, b] = [held.get(positive), held.get(negative)];
      if (!a || !b) break;
      sums.add(a, b);
      resources.onPair?.(pair, a, b);
      for (const index of [positive, negative]) {
        if (plan.lastUse[index] === pair) held.delete(index);
      }
    }
    yield inputsDone;
  }
}

function withoutDirection(method: DeriveMethod, layer: number) {
  const hint =
    method === "pca_centered"
      ? "every pair differs by the same: nothing is left once the mean is gone"
      : "the two sides read the same; does the token that is read come before they differ?";
  return invalid("pairs", `have no direction at layer ${layer}: ${hint}`);
}
