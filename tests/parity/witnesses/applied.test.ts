/** Steered logits against those of steering-vectors, repeng, llama.cpp and CAST; see record.py. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Steering } from "../../../src/client/client.js";
import type { TestServer } from "../../support/server.js";
import { readWitnessCases, rowError, startOn, WitnessGolden } from "./witness.js";

/** Measured: below 2e-6, llama.cpp included. */
const MAX_RELATIVE_ERROR = 1e-5;
/** In logits: where the recorded best token leads by less, another may rightly be chosen. */
const UNDECIDED = 1e-3;

const cases = readWitnessCases();

describe.each(cases.models)("on $name", (model) => {
  const golden = new WitnessGolden(model.name);
  let server: TestServer;
  let stop: () => Promise<void> = async () => {};
  let blocks = 0;
  let promptTokens = 0;
  let logprobs = 0;

  beforeAll(async () => {
    ({ server, stop } = await startOn(model, golden));
    const { architecture } = await server.client.model.get();
    blocks = architecture?.layers ?? 0;
    logprobs = Math.min(architecture?.vocabSize ?? 0, 1024);
    const { tokenIds } = await server.client.model.tokenize({ text: cases.prompt });
    promptTokens = tokenIds.length;
  });
  afterAll(() => stop());

  const mean = (): Steering => ({
    inline: golden.inline("steering_vectors.mean"),
    coefficient: model.add,
  });
  const oneBlock = () => ({ ...mean(), layers: [blocks >> 1] });
  const control = (): Steering => ({
    inline: golden.inline("repeng.pca_center"),
    coefficient: model.unit,
  });

  const RUNS: Record<string, () => Steering[]> = {
    plain: () => [],
    "llama_cpp.plain": () => [],
    "steering_vectors.defaults": () => [mean()],
    "steering_vectors.one_block": () => [oneBlock()],
    // Its mask counts within each forward pass: with a KV cache no generated token has an index of 1.
    "steering_vectors.min_token_index": () => [
      { ...mean(), positions: { range: { start: cases.minTokenIndex, end: promptTokens } } },
    ],
    // The last token of each forward pass: that of the prompt, then each that was generated.
    "steering_vectors.min_token_index_last": () => [
      { ...mean(), positions: { range: { start: -1 } } },
    ],
    "steering_vectors.ablate": () => [
      { ...oneBlock(), operation: "OPERATION_PROJECT_OUT", coefficient: 1 },
    ],
    "steering_vectors.ablate_then_add": () => [
      { ...oneBlock(), operation: "OPERATION_PROJECT_OUT", coefficient: 1 },
      oneBlock(),
    ],
    "repeng.control": () => [control()],
    "repeng.control_normalize": () => [{ ...control(), preserveNorm: true }],
    "llama_cpp.control_vector": () => [control()],
    // Before block L is after block L - 1.
    "cast.block_input": () => [
      {
        ...control(),
        inline: {
          rows: golden
            .inline("repeng.pca_center")
            .rows.map(({ layer, data }) => ({ layer: layer - 1, data })),
        },
      },
    ],
  };

  it.each(Object.keys(RUNS))("computes the logits of %s", async (name) => {
    const run = golden.run(name);
    const response = await server.client.score({
      prompt: cases.prompt,
      continuations: [{ tokens: { ids: run.tokens } }],
      steering: RUNS[name]?.() ?? [],
      logprobs,
      promptLogprobs: true,
    });
    // The row that is told with a token is the one before it.
    const prompt = response.promptLogprobs.slice(1 - cases.promptRows);
    const rows = [...prompt, ...(response.scores[0]?.logprobs ?? [])];
    expect(rows).toHaveLength(cases.promptRows - 1 + cases.newTokens);
    for (const [index, row] of rows.entries()) {
      expect(rowError(row, run, index), `row ${index}`).toBeLessThanOrEqual(MAX_RELATIVE_ERROR);
    }
  });

  it.each(Object.keys(RUNS))("generates the tokens of %s", async (name) => {
    const run = golden.run(name);
    const { completions } = await server.client.generate({
      prompt: cases.prompt,
      steering: RUNS[name]?.() ?? [],
      sampling: { maxNewTokens: cases.newTokens, temperature: 0, ignoreEos: true },
    });
    const undecided = run.margins.findIndex((margin) => margin < UNDECIDED);
    const sure = undecided < 0 ? run.tokens.length : undecided;
    expect(sure).toBeGreaterThan(0);
    expect(completions[0]?.tokenIds.slice(0, sure)).toEqual(run.tokens.slice(0, sure));
  });

  it("is recorded where steering matters: every run differs from the plain one", () => {
    const plain = golden.run("plain");
    for (const name of Object.keys(RUNS).filter((name) => !name.endsWith("plain"))) {
      expect(golden.run(name).logprobs.values, name).not.toEqual(plain.logprobs.values);
    }
  });
});
