/** Which reads a set of pairs needs, each distinct one once, and how many are held at a time. */
import { createHash } from "node:crypto";

/** A text as far as it is read, and the positions [begin, end) whose mean is the read. */
export interface ReadTarget {
  tokens: Uint32Array;
  begin: number;
  end: number;
}

export interface PairTargets {
  positive: ReadTarget;
  negative: ReadTarget;
}

/** Reads r_L of each target, in order: [layers, hidden size] each. */
export type ReadResiduals = (
  targets: readonly ReadTarget[],
  layers: readonly number[],
) => AsyncGenerator<Float32Array, void, undefined>;

/** Texts whose prefill runs at the same time. */
export const READS_IN_FLIGHT = 8;

export interface PairPlan {
  /** Distinct, in the order in which the pairs need them. */
  targets: ReadTarget[];
  /** Indices into `targets`. */
  pairs: { positive: number; negative: number }[];
  /** The last pair that needs each target. */
  lastUse: number[];
  /** Reads that are in memory at a time, those in flight included. */
  maxHeld: number;
}

export function planPairs(pairs: readonly PairTargets[]): PairPlan {
  const targets: ReadTarget[] = [];
  const indices = new Map<string, number>();
  const lastUse: number[] = [];
  const indexOf = (target: ReadTarget, pair: number) => {
    const key = digestOfTargets("read", [target]);
    const index = indices.get(key) ?? targets.push(target) - 1;
    indices.set(key, index);
    lastUse[index] = pair;
    return index;
  };
  const planned = pairs.map(({ positive, negative }, pair) => ({
    positive: indexOf(positive, pair),
    negative: indexOf(negative, pair),
  }));
  return { targets, pairs: planned, lastUse, maxHeld: maxHeld(planned, lastUse) };
}

function maxHeld(pairs: PairPlan["pairs"], lastUse: readonly number[]): number {
  const held = new Set<number>();
  let most = 0;
  for (const [pair, { positive, negative }] of pairs.entries()) {
    held.add(positive).add(negative);
    most = Math.max(most, held.size);
    for (const index of [positive, negative]) if (lastUse[index] === pair) held.delete(index);
  }
  return Math.min(lastUse.length, most + READS_IN_FLIGHT);
}

/** "sha256:…" over token ids and positions: what was read, whatever text it came from. */
export function digestOfTargets(domain: string, targets: Iterable<ReadTarget>): string {
  const hash = createHash("sha256").update(`llama-steer ${domain} 1\0`);
  for (const { tokens, begin, end } of targets) {
    const words = new DataView(new ArrayBuffer(4 * (3 + tokens.length)));
    for (const [index, word] of [tokens.length, begin, end, ...tokens].entries()) {
      words.setUint32(4 * index, word, true);
    }
    hash.update(words);
  }
  return `sha256:${hash.digest("hex")}`;
}

export function digestOfPairs(pairs: readonly PairTargets[]): string {
  return digestOfTargets(
    "pairs",
    pairs.flatMap(({ positive, negative }) => [positive, negative]),
  );
}
