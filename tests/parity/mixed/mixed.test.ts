/**
 * A request gives the same bits alone and in any company. Requests that mix every option at random
 * run together, with random chunks, caches, credits and cancels, and again on the warm cache; each
 * is compared with itself alone on an engine without a prefix cache.
 *
 * LLAMA_STEER_MIXED_ROUNDS: how many rounds (of 24 requests each); LLAMA_STEER_MIXED_SEED: the first.
 */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { NativeEngineOptions } from "../../../src/native/binding.js";
import type { Engine, SubmitOptions } from "../../../src/native/engine.js";
import { startEngine } from "../native-run.js";
import {
  type SyntheticModel,
  steeringRow,
  writeSyntheticCheckpoint,
} from "../synthetic-checkpoint.js";
import { ADAPTERS, Dice, randomRequest, tokenText, VECTORS } from "./random-requests.js";
import { syntheticAdapter } from "./synthetic-adapter.js";
import { follow, type Transcript } from "./transcript.js";

const { LLAMA_STEER_MIXED_ROUNDS, LLAMA_STEER_MIXED_SEED } = process.env;
const ROUNDS = Number(LLAMA_STEER_MIXED_ROUNDS ?? 8);
const FIRST_SEED = Number(LLAMA_STEER_MIXED_SEED ?? 1);
const REQUESTS = 24;
const KV_BLOCK_TOKENS = 16;
/** More than the rows of one token at all sites. */
const FEW_BYTES = 8192;

const MODEL: SyntheticModel = {
  name: "mixed",
  hiddenSize: 64,
  intermediateSize: 96,
  layers: 3,
  queryHeads: 4,
  kvHeads: 2,
  headSize: 16,
  vocabSize: 149,
  tied: false,
  attentionBias: false,
  mlpBias: true,
  dtype: "bf16",
  configLayout: 4,
  shards: 1,
  ropeTheta: 10_000,
  rope: null,
};
const SEED = 7;

const folder = mkdtempSync(path.join(os.tmpdir(), "llama-steer-mixed-"));
const checkpoint = path.join(folder, "model");
beforeAll(() => writeSyntheticCheckpoint(checkpoint, MODEL, SEED));
afterAll(() => rmSync(folder, { recursive: true }));

const texts = Array.from({ length: MODEL.vocabSize }, (_, id) => Buffer.from(tokenText(id)));
const vocabulary = {
  tokenBytes: Uint8Array.from(Buffer.concat(texts)),
  tokenOffsets: Uint32Array.from([
    0,
    ...texts.map((_, id) => Buffer.concat(texts.slice(0, id + 1)).length),
  ]),
};

function kvBytes(blocks: number, kvDtype: "bf16" | "f32"): number {
  const valueBytes = kvDtype === "bf16" ? 2 : 4;
  return blocks * KV_BLOCK_TOKENS * 2 * MODEL.layers * MODEL.kvHeads * MODEL.headSize * valueBytes;
}

async function open(options: Partial<NativeEngineOptions>): Promise<Engine> {
  const { engine } = await startEngine(checkpoint, { ...vocabulary, ...options });
  const layers = Int32Array.from({ length: MODEL.layers }, (_, layer) => layer);
  for (let handle = 1; handle <= VECTORS; handle++) {
    const rows = Float32Array.from(
      [...layers].flatMap((layer) => [...steeringRow(SEED, handle, layer, MODEL.hiddenSize)]),
    );
    const digest = createHash("sha256").update(Buffer.from(rows.buffer)).digest();
    engine.putVector({ handle, digest, layers, rows });
  }
  for (let handle = 1; handle <= ADAPTERS; handle++) {
    const file = path.join(folder, `adapter-${handle}`);
    engine.putAdapter(syntheticAdapter(file, MODEL, SEED, handle));
  }
  return engine;
}

interface Case {
  request: SubmitOptions;
  alone: Transcript;
}

/** How often each of these acted, over all requests: what never acts would prove nothing. */
const seen = new Map(
  [
    "cached tokens",
    "preemptions",
    "cancelled",
    "steered rows",
    "rows of kept length",
    "answers of adapters",
    "captures of prompts",
    "captures of generated tokens",
    "captures with a lens",
    "several completions",
    ...["each_token", "prompt_last_token", "prompt_mean"].flatMap((scope) => [
      `gate ${scope} fired`,
      `gate ${scope} held`,
    ]),
    "texts found",
    "texts not found",
    ...["each_token", "prompt_last", "after_text"].map((read) => `probe ${read}`),
    "KL above 0",
  ].map((what) => [what, 0]),
);

function count(what: string, share: number): void {
  seen.set(what, (seen.get(what) ?? 0) + share);
}

function countOptions({ request, alone }: Case): void {
  if (alone.done?.status.code !== 0) return;
  for (const [index, { gate, afterText, preserveNorm }] of request.steering.entries()) {
    const proof = alone.done.applied[index];
    if (!proof) continue;
    const { gateEvaluations, gateFired, firstPositions, steeredRows } = proof;
    count("steered rows", steeredRows);
    count("rows of kept length", preserveNorm ? steeredRows : 0);
    if (gate) {
      count(`gate ${gate.scope} fired`, gateFired);
      count(`gate ${gate.scope} held`, gateEvaluations - gateFired);
    }
    if (afterText.length > 0) {
      count("texts found", firstPositions.filter((position) => position >= 0).length);
      count("texts not found", firstPositions.filter((position) => position < 0).length);
    }
  }
  for (const { read } of request.probes) count(`probe ${read}`, 1);
  count("answers of adapters", request.adapter > 0 ? 1 : 0);
  count("KL above 0", alone.largestKl > 0 ? 1 : 0);
  const lists = [...alone.lists.keys()];
  const captured = (pattern: RegExp) => lists.filter((name) => pattern.test(name)).length;
  count("captures of prompts", captured(/block .*completion -1/));

  count("captures of generated tokens", captured(/block .*completion 0/));
  count("captures with a lens", request.capture?.lensTopK ? captured(/block/) : 0);
  count("several completions", request.completions > 1 ? 1 : 0);
}

async function runAlone(requests: SubmitOptions[], options: Partial<NativeEngineOptions>) {
  const engine = await open({ ...options, maxBatchTokens: 512, prefixCache: false });
  const cases: Case[] = [];
  for (const request of requests) {
    const alone = { request, alone: await follow(engine.submit(request)) };
    countOptions(alone);
    cases.push(alone);
  }
  engine.close();
  return cases;
}

/** All at once, arriving at random; some are cancelled on the way. */
async function runTogether(engine: Engine, cases: Case[], dice: Dice): Promise<void> {
  const arrivals = cases.map(async ({ request, alone }, index) => {
    const wait = dice.below(40);
    const credits = dice.chance(0.5) ? dice.between(1, 4) : request.credits;
    const captureCreditBytes = dice.chance(0.5) ? FEW_BYTES : request.captureCreditBytes;
    const cancelAfter = dice.chance(0.15) ? dice.between(1, 10) : null;
    for (let i = 0; i < wait; i++) await new Promise((resolve) => setImmediate(resolve));
    const together = await follow(
      engine.submit({ ...request, credits, captureCreditBytes }),
      cancelAfter,
    );
    const label = `request ${index}`;
    if (together.done?.status.code === 1) {
      count("cancelled", 1);
      expect(together.beginning(), label).toEqual(alone.beginningLike(together));
    } else {
      expect(together.whole(), label).toEqual(alone.whole());
      count("cached tokens", together.done?.cachedPromptTokens ?? 0);
    }
  });
  // All end before the engine closes, also when one of them differs.
  for (const { reason } of (await Promise.allSettled(arrivals)).flatMap((outcome) =>
    outcome.status === "rejected" ? [outcome] : [],
  )) {
    throw reason;
  }
}

const seeds = Array.from({ length: ROUNDS }, (_, round) => FIRST_SEED + round);

it.each(seeds)(
  "changes not one bit with company, chunks, caches and credits (seed %i)",
  async (seed) => {
    const dice = new Dice(seed);
    const kvDtype = dice.pick(["bf16", "f32"] as const);
    const requests = Array.from({ length: REQUESTS }, () => randomRequest(dice, MODEL));
    const cases = await runAlone(requests, { kvDtype });
    const engine = await open({
      kvDtype,
      threads: dice.between(1, 2),
      maxBatchTokens: dice.pick([3, 11, 40, 512]),
      maxRunningSequences: dice.pick([4, 16]),
      kvCacheBytes: kvBytes(dice.pick([14, 24, 200]), kvDtype),
      captureStagingBytes: dice.pick([64 << 10, 16 << 20]),
      prefixCache: dice.chance(0.8),
    });
    try {
      await runTogether(engine, cases, dice);
      await runTogether(engine, cases, dice);
      count("preemptions", engine.stats().preemptions);
    } finally {
      engine.close();
    }
  },
  60_000,
);

it("has seen every option act", () => {
  for (const [what, times] of seen) expect(times, what).toBeGreaterThan(0);
});
