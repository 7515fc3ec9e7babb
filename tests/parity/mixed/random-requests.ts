/** Requests that mix every option of the engine at random; the same ones for the same seed. */
import {
  type NativeCapture,
  type NativeCaptureSite,
  type NativeGate,
  type NativeProbe,
  type NativeSampling,
  type NativeSteering,
  OPEN_END,
} from "../../../src/native/binding.js";
import type { SubmitOptions } from "../../../src/native/engine.js";
import { GREEDY } from "../native-run.js";
import type { SyntheticModel } from "../synthetic-checkpoint.js";

export const VECTORS = 4;
export const ADAPTERS = 2;
export const MAX_PROMPT_TOKENS = 60;
export const MAX_NEW_TOKENS = 16;
export const MAX_COMPLETIONS = 3;
const LETTERS = "abcde";
const PLENTY = 1 << 20;
const PLENTY_BYTES = 1 << 30;
const SITES: NativeCaptureSite[] = ["resid_pre", "attn_out", "mlp_out", "resid_post", "final_norm"];

/** Text of a token: one or two letters of a small alphabet, so that every short text soon appears. */
export function tokenText(id: number): string {
  const letter = (i: number) => LETTERS[i % LETTERS.length] ?? "";
  return id % 3 === 0 ? letter(id) + letter(id * 7 + 1) : letter(id * 3);
}

export class Dice {
  private state: number;

  constructor(seed: number) {
    this.state = seed >>> 0;
  }

  /** Uniform in [0, 1): splitmix32. */
  next(): number {
    this.state = (this.state + 0x9e3779b9) >>> 0;
    let z = this.state;
    z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
    z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
    return ((z ^ (z >>> 15)) >>> 0) / 2 ** 32;
  }

  below(end: number): number {
    return Math.floor(this.next() * end);
  }

  between(first: number, last: number): number {
    return first + this.below(last - first + 1);
  }

  chance(share: number): boolean {
    return this.next() < share;
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)] as T;
  }

  /** Some of them, at least one, in order. */
  some<T>(items: readonly T[]): T[] {
    const chosen = items.filter(() => this.chance(0.5));
    return chosen.length > 0 ? chosen : [this.pick(items)];
  }
}

/** What a request computes: positions of the prompt and those below `end`. */
interface Extent {
  prompt: number;
  end: number;
}

const allLayers = (model: SyntheticModel) =>
  Array.from({ length: model.layers }, (_, layer) => layer);

function text(dice: Dice, share: number): Uint8Array {
  if (!dice.chance(share)) return new Uint8Array();
  const length = dice.between(1, 3);
  const letters = Array.from({ length }, () => dice.pick([...LETTERS])).join("");
  return new TextEncoder().encode(letters);
}

function positions(dice: Dice, { prompt, end }: Extent): [begin: number, end: number] {
  switch (dice.below(5)) {
    case 0:
      return [0, prompt];
    case 1:
      return end > prompt ? [prompt, OPEN_END] : [0, OPEN_END];
    case 2: {
      const begin = dice.below(end);
      return [begin, begin + dice.between(1, 30)];
    }
    case 3:
      return [dice.below(prompt), OPEN_END];
    default:
      return [0, OPEN_END];
  }
}

function gate(dice: Dice, first: number, model: SyntheticModel, prompt: number): NativeGate {
  const scope = dice.pick(["each_token", "prompt_last_token", "prompt_mean"] as const);
  const metric = dice.pick(["dot", "cosine"] as const);
  return {
    vector: dice.between(1, VECTORS),
    // One that looks at each token must stand before what it decides on.
    layer: scope === "each_token" ? dice.between(0, first) : dice.below(model.layers),
    metric,
    comparator: dice.pick(["above", "below"] as const),
    threshold: dice.chance(0.6) ? 0 : (dice.next() - 0.5) * (metric === "dot" ? 10 : 0.2),
    scope,
    promptTokens: dice.chance(0.2) ? dice.between(1, prompt) : 0,
  };
}

function steering(dice: Dice, model: SyntheticModel, extent: Extent): NativeSteering {
  const layers = dice.some(allLayers(model));
  const [positionBegin, positionEnd] = positions(dice, extent);
  return {
    vector: dice.between(1, VECTORS),
    kind: dice.pick(["add", "project_out", "clamp", "scale_component"] as const),
    coefficient: dice.pick([-2, -0.5, 0, 0.75, 1, 1.5, 3]),
    clampMin: -0.25,
    clampMax: dice.pick([-0.25, 0.5]),
    layers: Int32Array.from(layers),
    preserveNorm: dice.chance(0.3),
    positionBegin,
    positionEnd,
    gate: dice.chance(0.4) ? gate(dice, layers[0] ?? 0, model, extent.prompt) : null,
    afterText: text(dice, 0.25),
  };
}

function capture(dice: Dice, model: SyntheticModel, extent: Extent, few: boolean): NativeCapture {
  const end = few ? extent.prompt : extent.end;
  const positionBegin = dice.below(end);
  return {
    sites: dice.some(SITES),
    layers: Int32Array.from(dice.some(allLayers(model))),
    positionBegin,
    positionEnd: few ? extent.prompt : dice.pick([OPEN_END, positionBegin + dice.between(1, 20)]),
    mean: dice.chance(0.25),
    beforeSteering: dice.chance(0.3),
    dtype: dice.pick(["f32", "f16", "bf16"] as const),
    lensTopK: dice.chance(0.4) ? dice.between(1, 5) : 0,
    afterText: text(dice, 0.2),
  };
}

function probe(dice: Dice, model: SyntheticModel): NativeProbe {
  const read = dice.pick(["each_token", "prompt_last", "after_text"] as const);
  return {
    vector: dice.between(1, VECTORS),
    layer: dice.below(model.layers),
    read,
    afterText: text(dice, read === "after_text" ? 1 : 0),
  };
}

function sampling(dice: Dice): NativeSampling {
  const logprobs = dice.chance(0.5);
  return {
    ...GREEDY,
    temperature: dice.chance(0.25) ? 0 : dice.pick([0.7, 1, 1.3]),
    topP: dice.chance(0.5) ? 0.9 : 1,
    topK: dice.chance(0.5) ? 20 : 0,
    minP: dice.chance(0.2) ? 0.02 : 0,
    repetitionPenalty: dice.chance(0.25) ? 1.2 : 1,
    presencePenalty: dice.chance(0.25) ? 0.4 : 0,
    frequencyPenalty: dice.chance(0.25) ? 0.3 : 0,
    seed: BigInt(dice.below(3)),
    stopTokenIds: dice.chance(0.2) ? Uint32Array.of(dice.below(100), 7) : new Uint32Array(),
    logitBiasTokenIds: dice.chance(0.2) ? Uint32Array.of(3, 11) : new Uint32Array(),
    logitBiasValues: new Float32Array(),
    logprobs,
    topLogprobs: logprobs ? dice.below(4) : 0,
  };
}

/** Prompts of a family begin alike, for a random length: the prefix cache has something to find. */
function promptTokens(dice: Dice, model: SyntheticModel): Uint32Array {
  const length = dice.between(1, MAX_PROMPT_TOKENS);
  const shared = dice.below(MAX_PROMPT_TOKENS + 20);
  const family = new Dice(dice.below(2));
  const own = new Dice(dice.below(2 ** 31));
  return Uint32Array.from({ length }, (_, i) => {
    const [common, single] = [family.below(model.vocabSize), own.below(model.vocabSize)];
    return i < shared ? common : single;
  });
}

export function randomRequest(dice: Dice, model: SyntheticModel): SubmitOptions {
  const promptTokenIds = promptTokens(dice, model);
  const prompt = promptTokenIds.length;
  const maxNewTokens = dice.chance(0.15) ? 0 : dice.between(1, MAX_NEW_TOKENS);
  const completions = dice.chance(0.3) ? dice.between(1, MAX_COMPLETIONS) : 1;
  const extent = { prompt, end: prompt + Math.max(maxNewTokens - 1, 0) };
  const few = completions > 1 || dice.chance(0.3);
  const drawn = sampling(dice);
  drawn.logitBiasValues = Float32Array.from(drawn.logitBiasTokenIds, () => 1.5);
  return {
    promptTokenIds,
    completions,
    maxNewTokens,
    sampling: drawn,
    steering: Array.from({ length: dice.pick([0, 0, 1, 1, 2, 3]) }, () =>
      steering(dice, model, extent),
    ),
    capture: dice.chance(0.3) ? capture(dice, model, extent, few) : null,
    promptLogprobsFrom: prompt > 1 && dice.chance(0.25) ? dice.between(1, prompt - 1) : null,
    credits: PLENTY,
    captureCreditBytes: PLENTY_BYTES,
    proofPromptTokens: 0,
    cacheSalt: dice.chance(0.2) ? "tenant" : "",
    deadlineNs: 0n,
    adapter: dice.chance(0.5) ? dice.between(1, ADAPTERS) : 0,
    probes: Array.from({ length: dice.pick([0, 0, 1, 2]) }, () => probe(dice, model)),
    compareUnsteered: dice.chance(0.35),
  };
}
