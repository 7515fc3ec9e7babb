/** The whole path, checkpoint folder to logits, against what transformers computes in float32. */
import { createHash } from "node:crypto";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { NativeActivationEvent, NativeScoredToken } from "../../src/native/binding.js";
import type { Engine } from "../../src/native/engine.js";
import { parityDevices } from "./devices.js";
import {
  Goldens,
  type ModelCase,
  readCases,
  relativeError,
  rowOf,
  type SteeringCase,
  toNative,
} from "./goldens.js";
import { runRequest, startEngine } from "./native-run.js";
import { promptTokens, steeringRow, writeSyntheticCheckpoint } from "./synthetic-checkpoint.js";

/** Measured: below 1e-6 on AVX2 and AVX-512. */
const MAX_RELATIVE_ERROR = 1e-5;
/** Tensor cores take activations rounded to 8 bits of mantissa. Measured: below 5e-3. */
const MAX_RELATIVE_ERROR_TENSOR_CORES = 1e-2;
/** Keys and values rounded to 8 bits of mantissa. */
const MAX_RELATIVE_ERROR_BF16_KV = 1e-2;

const cases = readCases();
const folder = mkdtempSync(path.join(os.tmpdir(), "llama-steer-parity-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** Rows of log-probabilities, in the order of the token ids. */
function rowOfLogprobs(token: NativeScoredToken | undefined, vocabSize: number): Float32Array {
  const row = new Float32Array(vocabSize).fill(Number.NaN);
  for (const { tokenId, logprob } of token?.top ?? []) row[tokenId] = logprob;
  return row;
}

function putVectors(engine: Engine, model: ModelCase): void {
  for (const vector of [0, 1]) {
    const layers = Int32Array.from({ length: model.layers }, (_, layer) => layer);
    const rows = Float32Array.from(
      [...layers].flatMap((layer) => [...steeringRow(cases.seed, vector, layer, model.hiddenSize)]),
    );
    const digest = createHash("sha256").update(Buffer.from(rows.buffer)).digest();
    engine.putVector({ handle: vector + 1, digest, layers, rows });
  }
}

/** Where the reference decides clearly, so must we: its best token leads by more than the error. */
function expectSameBest(actual: Float32Array, reference: Float32Array, limit: number): void {
  const order = [...reference.keys()].sort((a, b) => (reference[b] ?? 0) - (reference[a] ?? 0));
  const [best = 0, second = 0] = order;
  const scale = Math.max(...reference.map(Math.abs));
  const margin = (reference[best] ?? 0) - (reference[second] ?? 0);
  if (margin > 2 * limit * scale) {
    expect(actual.indexOf(Math.max(...actual))).toBe(best);
  }
}

/** Token for token, up to a step where the reference leads by less than `undecidedBelow` logits. */
function expectSameGreedy(
  tokens: NativeScoredToken[],
  goldens: Goldens,
  suffix: string,
  undecidedBelow: number,
): void {
  const reference = goldens.get(`greedy${suffix}`).values;
  const margins = goldens.get(`greedy_margin${suffix}`).values;
  const undecided = margins.findIndex((margin) => margin < undecidedBelow);
  const sure = undecided < 0 ? reference.length : undecided;
  if (undecidedBelow <= MAX_RELATIVE_ERROR) expect(sure).toBeGreaterThan(0);
  expect(tokens.slice(0, sure).map(({ tokenId }) => tokenId)).toEqual([
    ...reference.slice(0, sure),
  ]);
}

function expectActivations(
  events: NativeActivationEvent[],
  site: NativeActivationEvent["site"],
  layer: number,
  goldens: Goldens,
  name: string,
  limit: number,
): void {
  const reference = goldens.get(name);
  const found = events.filter((event) => event.site === site && event.layer === layer);
  const rows = found.flatMap((event) => {
    const values = new Float32Array(
      event.data.buffer,
      event.data.byteOffset,
      event.data.byteLength / 4,
    );
    return [...event.positions].map((_, row) =>
      values.subarray(row * event.cols, (row + 1) * event.cols),
    );
  });
  expect(rows.length, `${name}: rows`).toBe(reference.rows);
  for (const [row, values] of rows.entries()) {
    expect(relativeError(values, rowOf(reference, row)), `${name}, row ${row}`).toBeLessThanOrEqual(
      limit,
    );
  }
}

describe.each(parityDevices())("on $name", ({ options: device, onCuda }) => {
  describe.each(cases.models)("$name", (model) => {
    const goldens = new Goldens(model.name);
    // On CUDA, weights of other types stay in float32.
    const limit =
      onCuda && model.dtype === "bf16" ? MAX_RELATIVE_ERROR_TENSOR_CORES : MAX_RELATIVE_ERROR;
    const prompt = promptTokens(cases.seed, model, model.promptTokens);
    let engine: Engine;

    beforeAll(async () => {
      const checkpoint = path.join(folder, model.name);
      writeSyntheticCheckpoint(checkpoint, model, cases.seed);
      const started = await startEngine(checkpoint, device);
      engine = started.engine;
      const { kind, isa } = started.ready.device;
      if (onCuda) expect(kind).toMatch(/^cuda/);
      else expect(isa).toBe(device.cpuIsa);
      putVectors(engine, model);
    });
    afterAll(() => engine?.close());

    async function expectLogprobs(steering: SteeringCase | null): Promise<void> {
      const suffix = steering ? `.${steering.name}` : "";
      const { promptLogprobs, tokens, activations, done } = await runRequest(engine, {
        prompt,
        maxNewTokens: cases.greedyTokens,
        steering: steering ? toNative(steering, model.layers) : [],
        topLogprobs: model.vocabSize,
        capture: {
          sites: ["resid_post"],
          layers: [model.layers - 1],
          from: model.recordFrom,
          to: model.promptTokens,
        },
      });
      expect(done.status).toEqual({ code: 0, message: "" });
      // Position p's logits are reported with the token at p + 1.
      const rows = [...promptLogprobs, tokens[0]]
        .slice(model.recordFrom)
        .map((token) => rowOfLogprobs(token, model.vocabSize));
      const reference = goldens.get(`logprobs${suffix}`);
      expect(rows.length).toBe(reference.rows);
      for (const [row, values] of rows.entries()) {
        expect(relativeError(values, rowOf(reference, row)), `row ${row}`).toBeLessThanOrEqual(
          limit,
        );
        expectSameBest(values, rowOf(reference, row), limit);
      }
      const residual = steering ? `residual_last${suffix}` : `residual.${model.layers - 1}`;
      expectActivations(activations, "resid_post", model.layers - 1, goldens, residual, limit);
      const scale = Math.max(...rowOf(reference, reference.rows - 1).map(Math.abs));
      const undecidedBelow = limit > MAX_RELATIVE_ERROR ? 2 * limit * scale : limit;
      expectSameGreedy(tokens, goldens, suffix, undecidedBelow);
    }

    it("computes the logits of transformers", () => expectLogprobs(null));

    it("gives the hidden states of every block", async () => {
      const blocks = Array.from({ length: model.layers }, (_, layer) => layer);
      const { activations } = await runRequest(engine, {
        prompt,
        maxNewTokens: 0,
        capture: {
          sites: ["resid_pre", "attn_out", "mlp_out", "resid_post", "final_norm"],
          layers: blocks,
          from: model.recordFrom,
          to: model.promptTokens,
        },
      });
      for (const block of blocks) {
        expectActivations(activations, "resid_pre", block, goldens, `residual.${block - 1}`, limit);
        expectActivations(activations, "attn_out", block, goldens, `attn_out.${block}`, limit);
        expectActivations(activations, "mlp_out", block, goldens, `mlp_out.${block}`, limit);
        expectActivations(activations, "resid_post", block, goldens, `residual.${block}`, limit);
      }
      expectActivations(activations, "final_norm", model.layers - 1, goldens, "final_norm", limit);
    });

    it("stays close with keys and values in bf16", async () => {
      const { engine: rounded } = await startEngine(path.join(folder, model.name), {
        ...device,
        kvDtype: "bf16",
      });
      const { promptLogprobs, tokens } = await runRequest(rounded, {
        prompt,
        maxNewTokens: 1,
        topLogprobs: model.vocabSize,
      });
      rounded.close();
      const reference = goldens.get("logprobs");
      for (const [row, token] of [...promptLogprobs, tokens[0]].slice(model.recordFrom).entries()) {
        const error = relativeError(rowOfLogprobs(token, model.vocabSize), rowOf(reference, row));
        expect(error, `row ${row}`).toBeLessThanOrEqual(MAX_RELATIVE_ERROR_BF16_KV);
      }
    });

    it.each(cases.steerings)("computes the logits under $name", (steering) =>
      expectLogprobs(steering),
    );
  });
});
