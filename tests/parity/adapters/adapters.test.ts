/** LoRA adapters, from PEFT's folder to logits, against what PEFT computes. */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { openAdapter } from "../../../src/model/adapter.js";
import { openCheckpoint } from "../../../src/model/checkpoint.js";
import type { NativeAdapter, NativeScoredToken } from "../../../src/native/binding.js";
import type { Engine } from "../../../src/native/engine.js";
import { Goldens, type Matrix, readCases, relativeError, rowOf } from "../goldens.js";
import { availableIsas } from "../isas.js";
import { type RunResult, runRequest, startEngine } from "../native-run.js";
import { promptTokens, writeSyntheticCheckpoint } from "../synthetic-checkpoint.js";

/** As without adapters, see ../parity.test.ts. Measured: below 1e-6, merged or not. */
const MAX_RELATIVE_ERROR = 1e-5;

interface AdapterCase {
  name: string;
  model: string;
}

const models = readCases();
const cases: AdapterCase[] = JSON.parse(
  readFileSync(path.join(import.meta.dirname, "cases.json"), "utf8"),
);
const folder = mkdtempSync(path.join(os.tmpdir(), "llama-steer-adapters-"));
afterAll(() => rmSync(folder, { recursive: true }));

/** The last rows' log-probabilities, in the order of the token ids. */
function lastRows({ promptLogprobs, tokens }: RunResult, reference: Matrix): Float32Array[] {
  const rows: (NativeScoredToken | undefined)[] = [...promptLogprobs, tokens[0]];
  return rows.slice(-reference.rows).map((token) => {
    const row = new Float32Array(reference.cols).fill(Number.NaN);
    for (const { tokenId, logprob } of token?.top ?? []) row[tokenId] = logprob;
    return row;
  });
}

function expectRows(run: RunResult, reference: Matrix): void {
  expect(run.done.status).toEqual({ code: 0, message: "" });
  const rows = lastRows(run, reference);
  expect(rows.length).toBe(reference.rows);
  for (const [row, values] of rows.entries()) {
    const error = relativeError(values, rowOf(reference, row));
    expect(error, `row ${row}`).toBeLessThanOrEqual(MAX_RELATIVE_ERROR);
  }
}

describe.each(availableIsas())("on %s", (isa) => {
  describe.each(cases)("$name", ({ name, model: modelName }) => {
    const found = models.models.find((each) => each.name === modelName);
    if (!found) throw new Error(`no model ${modelName}`);
    const model = found;
    const goldens = new Goldens(name, path.join(import.meta.dirname, "goldens"));
    const prompt = promptTokens(models.seed, model, model.promptTokens);
    const checkpoint = path.join(folder, name);
    let adapter: NativeAdapter;
    let engine: Engine;

    beforeAll(async () => {
      writeSyntheticCheckpoint(checkpoint, model, models.seed);
      const { config } = openCheckpoint(checkpoint);
      const opened = await openAdapter(path.join(import.meta.dirname, name), config);
      adapter = { handle: 1, ...opened.native };
      ({ engine } = await startEngine(checkpoint, { cpuIsa: isa }));
      engine.putAdapter(adapter);
    });
    afterAll(() => engine?.close());

    const run = (target: Engine, handle: number) =>
      runRequest(target, {
        prompt,
        maxNewTokens: models.greedyTokens,
        topLogprobs: model.vocabSize,
        adapter: handle,
      });

    it("computes the logits of PEFT", async () => {
      const reference = goldens.get("logprobs");
      const result = await run(engine, 1);
      expectRows(result, reference);
      const base = lastRows(await run(engine, 0), reference);
      expect(relativeError(base[0] ?? new Float32Array(), rowOf(reference, 0))).toBeGreaterThan(
        0.01,
      );
      const wanted = goldens.get("greedy").values;
      const undecided = goldens.get("greedy_margin").values.findIndex((margin) => margin < 1e-4);
      const sure = undecided < 0 ? wanted.length : undecided;
      expect(sure).toBeGreaterThan(0);
      expect(result.tokens.slice(0, sure).map(({ tokenId }) => tokenId)).toEqual([
        ...wanted.slice(0, sure),
      ]);
    });

    it("computes the logits of merge_and_unload when it is merged at load", async () => {
      const merged = await startEngine(checkpoint, { cpuIsa: isa, mergedAdapter: adapter });
      const result = await run(merged.engine, 0);
      merged.engine.close();
      expectRows(result, goldens.get("logprobs.merged"));
    });
  });
});
