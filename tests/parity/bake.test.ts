/** A baked checkpoint against the steered service and against transformers (record_baked.py). */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { foldBiases } from "../../src/cli/bake/fold.js";
import { openSource } from "../../src/cli/bake/source.js";
import { writeBaked } from "../../src/cli/bake/write.js";
import { readVectorFile } from "../../src/cli/files/vector-file.js";
import { type NativeScoredToken, OPEN_END } from "../../src/native/binding.js";
import { layersOf, type ModelCase, readCases, toNative } from "./goldens.js";
import { type RunOptions, runRequest, startEngine } from "./native-run.js";
import { promptTokens, steeringRow, writeSyntheticCheckpoint } from "./synthetic-checkpoint.js";

interface Recorded {
  steps: { vector: number; coefficient: number; layers: "first" | "all" }[];
  models: Record<string, { tokens: number[]; margins: number[] }>;
}

/** A lead of the best token below this is within the error of either program. */
const DECIDED = 1e-4;
const cases = readCases();
const recorded: Recorded = JSON.parse(
  readFileSync(path.join(import.meta.dirname, "goldens/baked.json"), "utf8"),
);
const folder = mkdtempSync(path.join(os.tmpdir(), "llama-steer-bake-"));
afterAll(() => rmSync(folder, { recursive: true }));

async function bake(model: ModelCase, from: string, to: string): Promise<void> {
  const vectors = recorded.steps.map(({ vector, coefficient, layers }) => {
    const rows = [...layersOf(layers, model.layers)].map((layer) => [
      layer,
      [...steeringRow(cases.seed, vector, layer, model.hiddenSize)],
    ]);
    const file = path.join(folder, `${model.name}.${vector}.json`);
    writeFileSync(file, JSON.stringify(Object.fromEntries(rows)));
    return { name: file, steering: { coefficient }, rows: readVectorFile(file, undefined) };
  });
  const source = openSource(from);
  const biases = foldBiases(vectors, source.hiddenSize, source.blocks);
  await writeBaked(source, biases, to, {}, () => {}, new AbortController().signal);
}

const ids = (tokens: NativeScoredToken[]) => tokens.map(({ tokenId }) => tokenId);

describe.each(cases.models)("$name", (model) => {
  it("baked gives the tokens of the steered service and of transformers", async () => {
    const source = path.join(folder, model.name);
    const target = `${source}-baked`;
    writeSyntheticCheckpoint(source, model, cases.seed);
    await bake(model, source, target);

    const reference = recorded.models[model.name];
    if (!reference) throw new Error(`${model.name} is not recorded`);
    const undecided = reference.margins.findIndex((margin) => margin < DECIDED);
    const sure = undecided < 0 ? reference.tokens.length : undecided;
    expect(sure).toBeGreaterThan(20);
    const request: RunOptions = {
      prompt: promptTokens(cases.seed, model, model.promptTokens),
      maxNewTokens: reference.tokens.length,
    };

    const { engine: baked } = await startEngine(target);
    const alone = await runRequest(baked, request);
    await baked.close();
    expect(ids(alone.tokens).slice(0, sure)).toEqual(reference.tokens.slice(0, sure));

    const { engine: service } = await startEngine(source);
    for (const { vector } of recorded.steps) {
      const layers = layersOf("all", model.layers);
      const rows = [...layers].flatMap((layer) => [
        ...steeringRow(cases.seed, vector, layer, model.hiddenSize),
      ]);
      const digest = new Uint8Array(32).fill(vector);
      service.putVector({ handle: vector + 1, digest, layers, rows: Float32Array.from(rows) });
    }
    const steps = recorded.steps.map((step) => ({ ...step, kind: "add" as const, end: OPEN_END }));
    const steering = toNative({ name: "baked", steps }, model.layers);
    const steered = await runRequest(service, { ...request, steering });
    await service.close();
    expect(ids(steered.tokens).slice(0, sure)).toEqual(ids(alone.tokens).slice(0, sure));
  });
});
