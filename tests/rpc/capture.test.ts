/** CaptureActivations: every site, layer, selector and dtype. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  type ActivationChunk,
  bytesToFloats,
  type CaptureActivationsRequest,
  decodeFloats,
  type Site,
} from "../../src/client/client.js";
import { collect, TestServer } from "../support/server.js";
import { TINY } from "../support/tiny-checkpoint.js";
import { inlineVector } from "../support/vectors.js";

const ids = Array.from({ length: 40 }, (_, index) => 5 + index);
const SITES: Site[] = ["SITE_RESID_PRE", "SITE_ATTN_OUT", "SITE_MLP_OUT", "SITE_RESID_POST"];

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start({ flags: ["--max-batch-tokens", "7"] });
});
afterAll(() => server.stop());

interface Rows {
  positions: number[];
  tokenIds: number[];
  values: Float32Array;
}

async function capture(request: CaptureActivationsRequest) {
  const messages = await collect(server.client.captureActivations(request));
  const chunks = messages.flatMap(({ activations }) => (activations ? [activations] : []));
  return { chunks, finished: messages.at(-1)?.finished };
}

/** The chunks of one input, site and layer, put together. */
function rowsOf(chunks: ActivationChunk[], site: Site, layer: number, inputIndex = 0): Rows {
  const own = chunks.filter(
    (chunk) => chunk.site === site && chunk.layer === layer && chunk.inputIndex === inputIndex,
  );
  return {
    positions: own.flatMap(({ positions }) => positions),
    tokenIds: own.flatMap(({ tokenIds }) => tokenIds),
    values: bytesToFloats(Buffer.concat(own.map(({ data }) => data))),
  };
}

const everything: CaptureActivationsRequest = {
  inputs: [{ tokens: { ids } }],
  capture: { sites: [...SITES, "SITE_FINAL_NORM"] },
};

describe("sites and layers", () => {
  it("come whole: each position once, in order, with its token", async () => {
    const { chunks, finished } = await capture(everything);
    for (const site of SITES) {
      for (let layer = 0; layer < TINY.layers; layer++) {
        const { positions, tokenIds, values } = rowsOf(chunks, site, layer);
        expect(positions).toEqual(ids.map((_, index) => index));
        expect(tokenIds).toEqual(ids);
        expect(values).toHaveLength(ids.length * TINY.hiddenSize);
      }
    }
    const norm = rowsOf(chunks, "SITE_FINAL_NORM", TINY.layers - 1);
    expect(norm.positions).toHaveLength(ids.length);
    expect(finished?.usage?.promptTokens).toBe(ids.length);
    for (const chunk of chunks) {
      expect(chunk.shape).toEqual([String(chunk.positions.length), String(TINY.hiddenSize)]);
    }
  });

  it("fit together: what comes out of a block goes into the next one", async () => {
    const { chunks } = await capture(everything);
    const of = (site: Site, layer: number) => rowsOf(chunks, site, layer).values;
    expect(of("SITE_RESID_PRE", 1)).toEqual(of("SITE_RESID_POST", 0));
    expect(of("SITE_RESID_PRE", 2)).toEqual(of("SITE_RESID_POST", 1));
    const attention = of("SITE_ATTN_OUT", 1);
    const mlp = of("SITE_MLP_OUT", 1);
    const after = of("SITE_RESID_POST", 1);
    of("SITE_RESID_PRE", 1).forEach((value, index) => {
      const sum = value + (attention[index] ?? 0) + (mlp[index] ?? 0);
      expect(after[index]).toBeCloseTo(sum, 4);
    });
  });

  it("sends only the layers asked for", async () => {
    const { chunks } = await capture({
      ...everything,
      capture: { sites: ["SITE_RESID_POST"], layers: [2, 0, 2] },
    });
    expect(new Set(chunks.map(({ layer }) => layer))).toEqual(new Set([0, 2]));
  });
});

describe("tokens", () => {
  const at = async (tokens: NonNullable<CaptureActivationsRequest["capture"]>["tokens"]) => {
    const { chunks } = await capture({
      inputs: [{ tokens: { ids } }],
      capture: { sites: ["SITE_RESID_POST"], layers: [1], ...(tokens ? { tokens } : {}) },
    });
    return rowsOf(chunks, "SITE_RESID_POST", 1);
  };

  it("selects the last one, and ranges from either end", async () => {
    expect((await at({ last: {} })).positions).toEqual([39]);
    expect((await at({ range: { start: -3 } })).positions).toEqual([37, 38, 39]);
    expect((await at({ range: { start: 2, end: 5 } })).positions).toEqual([2, 3, 4]);
    expect((await at({ range: { end: -38 } })).positions).toEqual([0, 1]);
  });

  it("gives the same rows whatever is selected", async () => {
    const all = await at({ all: {} });
    const some = await at({ range: { start: 10, end: 12 } });
    const width = TINY.hiddenSize;
    expect(some.values).toEqual(all.values.slice(10 * width, 12 * width));
  });

  it("averages over the selection", async () => {
    const all = await at({ range: { start: 4, end: 20 } });
    const mean = await at({ range: { start: 4, end: 20 }, mean: true });
    expect(mean.values).toHaveLength(TINY.hiddenSize);
    expect(mean.positions).toEqual([4, 19]);
    mean.values.forEach((value, column) => {
      let sum = 0;
      for (let row = 0; row < 16; row++) sum += all.values[row * TINY.hiddenSize + column] ?? 0;
      expect(value).toBeCloseTo(sum / 16, 4);
    });
  });
});

describe("values", () => {
  it.each(["D_TYPE_BFLOAT16", "D_TYPE_FLOAT16"] as const)("are rounded to %s", async (dtype) => {
    const spec = { sites: ["SITE_RESID_POST" as const], layers: [2] };
    const exact = await capture({ ...everything, capture: spec });
    const rounded = await capture({ ...everything, capture: { ...spec, dtype } });
    const values = rounded.chunks.flatMap((chunk) => [...decodeFloats(chunk.data, dtype)]);
    const reference = rowsOf(exact.chunks, "SITE_RESID_POST", 2).values;
    expect(values).toHaveLength(reference.length);
    const precision = dtype === "D_TYPE_BFLOAT16" ? 2 ** -8 : 2 ** -11;
    reference.forEach((value, index) => {
      const difference = Math.abs((values[index] ?? Number.NaN) - value);
      expect(difference).toBeLessThanOrEqual(Math.abs(value) * precision + 1e-7);
    });
  });

  it("show the steered stream, or the row before steering when asked to", async () => {
    const spec = { sites: ["SITE_RESID_POST" as const], layers: [1] };
    const request = { ...everything, steering: [inlineVector(4, [1])] };
    const plain = await capture({ ...everything, capture: spec });
    const steered = await capture({ ...request, capture: spec });
    const before = await capture({ ...request, capture: { ...spec, beforeSteering: true } });
    const of = ({ chunks }: typeof plain) => rowsOf(chunks, "SITE_RESID_POST", 1).values;
    expect(of(steered)).not.toEqual(of(plain));
    expect(of(before)).toEqual(of(plain));
    expect(steered.finished?.applied[0]?.promptTokens).toBe(ids.length);
  });

  it("do not depend on what is cached", async () => {
    const first = await capture(everything);
    await server.client.generate({ tokens: { ids }, sampling: { maxNewTokens: 2 } });
    const second = await capture(everything);
    for (const layer of [0, 1, 2]) {
      expect(rowsOf(second.chunks, "SITE_RESID_POST", layer)).toEqual(
        rowsOf(first.chunks, "SITE_RESID_POST", layer),
      );
    }
  });
});

describe("batches", () => {
  it("answer every input as if it were alone", async () => {
    const prompts = Array.from({ length: 20 }, (_, index) => ids.slice(0, 3 + index));
    const spec = { sites: ["SITE_RESID_POST" as const], layers: [2] };
    const { chunks, finished } = await capture({
      inputs: prompts.map((prompt) => ({ tokens: { ids: prompt } })),
      capture: spec,
    });
    for (const [index, prompt] of prompts.entries()) {
      const alone = await capture({ inputs: [{ tokens: { ids: prompt } }], capture: spec });
      expect(rowsOf(chunks, "SITE_RESID_POST", 2, index)).toEqual(
        rowsOf(alone.chunks, "SITE_RESID_POST", 2),
      );
    }
    expect(finished?.usage?.promptTokens).toBe(prompts.flat().length);
  });
});
