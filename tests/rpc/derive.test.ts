/** DeriveVector against what CaptureActivations shows of the same texts. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type DeriveVectorRequest, decodeFloats } from "../../src/client/client.js";
import { digestOf } from "../../src/vectors/digest.js";
import { collect, TestServer } from "../support/server.js";
import { TINY } from "../support/tiny-checkpoint.js";

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start();
});
afterAll(() => server.stop());

const POSITIVE = ["I love this", "what a lovely day", "good", "yes, of course I will"];
const NEGATIVE = ["I hate this", "what an awful day", "bad", "no, I never would"];
const PAIRS = POSITIVE.map((prompt, i) => ({
  positive: { prompt },
  negative: { prompt: NEGATIVE[i] ?? "" },
}));

async function derive(request: DeriveVectorRequest) {
  const messages = await collect(server.client.vectors.derive(request));
  const vector = messages.at(-1)?.vector;
  if (!vector) throw new Error("no vector");
  return { vector, progress: messages.slice(0, -1).map(({ progress }) => progress) };
}

/** The row of one site after one block, float64. */
async function read(
  tokens: { ids: number[] },
  layer: number,
  range: { start: number; end: number },
) {
  const mean = range.end - range.start > 1;
  const messages = await collect(
    server.client.captureActivations({
      inputs: [{ tokens }],
      capture: { sites: ["SITE_RESID_POST"], layers: [layer], tokens: { range, mean } },
    }),
  );
  const chunk = messages.find(({ activations }) => activations)?.activations;
  if (!chunk) throw new Error("nothing captured");
  return Float64Array.from(decodeFloats(chunk.data, "D_TYPE_FLOAT32"));
}

async function idsOf(text: string, addSpecialTokens = true): Promise<number[]> {
  return (await server.client.model.tokenize({ text, addSpecialTokens })).tokenIds;
}

type Span = (ids: number[]) => { start: number; end: number };

/** The digest of the mean difference, worked out here. */
async function expectedDigest(
  texts: [positive: number[], negative: number[]][],
  layers: number[],
  span: Span,
): Promise<string> {
  const rows = new Float32Array(layers.length * TINY.hiddenSize);
  for (const [slot, layer] of layers.entries()) {
    const halves = [0, 1].map(() => new Float64Array(TINY.hiddenSize));
    for (const [pair, [positive, negative]] of texts.entries()) {
      const a = await read({ ids: positive }, layer, span(positive));
      const b = await read({ ids: negative }, layer, span(negative));
      const half = halves[pair % 2];
      for (let i = 0; half && i < half.length; i += 1)
        half[i] = (half[i] ?? 0) + ((a[i] ?? 0) - (b[i] ?? 0));
    }
    for (let i = 0; i < TINY.hiddenSize; i += 1) {
      const share = 1 / texts.length;
      rows[slot * TINY.hiddenSize + i] =
        share * (halves[0]?.[i] ?? 0) + share * (halves[1]?.[i] ?? 0);
    }
  }
  return digestOf({ hiddenSize: TINY.hiddenSize, layers: Int32Array.from(layers), rows });
}

const lastToken: Span = (ids) => ({ start: ids.length - 1, end: ids.length });

describe("the mean difference", () => {
  it("is that of the captured rows, on every layer, bit for bit", async () => {
    const { vector, progress } = await derive({
      vectorId: "mean",
      pairs: PAIRS,
      labels: { from: "pairs" },
    });
    const texts = await Promise.all(
      PAIRS.map(
        async ({ positive, negative }): Promise<[number[], number[]]> => [
          await idsOf(positive.prompt),
          await idsOf(negative.prompt),
        ],
      ),
    );
    expect(vector.digest).toBe(await expectedDigest(texts, [0, 1, 2], lastToken));
    expect(vector).toMatchObject({
      layers: [0, 1, 2],
      labels: { from: "pairs" },
      derivation: {
        method: "METHOD_MEAN_DIFFERENCE",
        tokenRule: "TOKEN_RULE_LAST",
        tokenText: "",
        adapterId: "",
        normalized: false,
        pairs: 4,
      },
    });
    const model = await server.client.model.get();
    expect(vector.derivation?.modelFingerprint).toBe(model.fingerprint);
    expect(vector.derivation?.pairsDigest).toMatch(/^sha256:[0-9a-f]{64}$/);
    for (const [layer, each] of vector.derivation?.diagnostics.entries() ?? []) {
      const stats = vector.stats[layer];
      expect(each).toMatchObject({ layer, separatedPairs: 4, randomDirections: 100 });
      expect(each.normRatio).toBeCloseTo((stats?.l2Norm ?? 0) / (stats?.meanResidualNorm ?? 1), 12);
      expect(each.separatedShare).toBeGreaterThanOrEqual(0.5);
      expect(each.randomSeparatedMean).toBeGreaterThanOrEqual(0.5);
      expect(each.randomSeparatedMax).toBeGreaterThanOrEqual(each.randomSeparatedMean);
      expect(Math.abs(each.splitHalfCosine ?? 2)).toBeLessThanOrEqual(1);
    }
    expect(progress.at(-1)).toEqual({ inputsDone: 8, inputs: 8, layersDone: 3, layers: 3 });
    expect(await server.client.vectors.get("mean")).toEqual(vector);
  });

  it("comes out the same again, beside other requests, and in an other order of layers", async () => {
    const request = { pairs: PAIRS, layers: [2, 0] };
    const { vector: first } = await derive({ vectorId: "again-1", ...request });
    const noise = server.client.generate({
      prompt: "something else",
      sampling: { maxNewTokens: 60, n: 8 },
    });
    const [second, third] = await Promise.all([
      derive({ vectorId: "again-2", ...request, layers: [0, 2] }),
      derive({ vectorId: "again-3", ...request }),
    ]);
    await noise;
    expect(second.vector.digest).toBe(first.digest);
    expect(third.vector.digest).toBe(first.digest);
    expect(second.vector.derivation).toEqual(first.derivation);
  });

  it("computes a text that occurs often once", async () => {
    const negative = { prompt: "the same" };
    const { progress } = await derive({
      vectorId: "shared",
      pairs: POSITIVE.map((prompt) => ({ positive: { prompt }, negative })),
      layers: [1],
    });
    expect(progress.at(-1)).toMatchObject({ inputsDone: 5, inputs: 5 });
  });

  it("is normalised if asked for", async () => {
    const { vector } = await derive({ vectorId: "unit", pairs: PAIRS, normalize: true });
    for (const { l2Norm } of vector.stats) expect(l2Norm).toBeCloseTo(1, 6);
    expect(vector.derivation?.normalized).toBe(true);
  });
});

describe("the token that is read", () => {
  const inputs = [
    {
      positive: { prompt: "Is it good?", completion: " yes it is" },
      negative: { prompt: "Is it good?", completion: " no" },
    },
    {
      positive: { prompt: "And you? I say", completion: " yes" },
      negative: { prompt: "And you?", completion: " no, never" },
    },
  ];
  const textsOf = () =>
    Promise.all(
      inputs.map(async (pair): Promise<[number[], number[]]> => {
        const [a, b] = await Promise.all(
          [pair.positive, pair.negative].map(async ({ prompt, completion }) => [
            ...(await idsOf(prompt)),
            ...(await idsOf(completion, false)),
          ]),
        );
        return [a ?? [], b ?? []];
      }),
    );

  it("LAST is the completion's last token", async () => {
    const { vector } = await derive({ vectorId: "rule-last", pairs: inputs, layers: [2] });
    expect(vector.digest).toBe(await expectedDigest(await textsOf(), [2], lastToken));
  });

  it("ALL_MEAN is the mean over every token", async () => {
    const { vector } = await derive({
      vectorId: "rule-all",
      pairs: inputs,
      layers: [1],
      tokenRule: "TOKEN_RULE_ALL_MEAN",
    });
    const all: Span = (ids) => ({ start: 0, end: ids.length });
    expect(vector.digest).toBe(await expectedDigest(await textsOf(), [1], all));
  });

  it("COMPLETION_MEAN is the mean over the completion", async () => {
    const { vector } = await derive({
      vectorId: "rule-completion",
      pairs: inputs,
      layers: [1],
      tokenRule: "TOKEN_RULE_COMPLETION_MEAN",
    });
    const texts = await textsOf();
    const prompts = new Map<string, number>();
    for (const [index, pair] of inputs.entries()) {
      for (const [side, { prompt }] of [pair.positive, pair.negative].entries()) {
        prompts.set(String(texts[index]?.[side]), (await idsOf(prompt)).length);
      }
    }
    const span: Span = (ids) => ({ start: prompts.get(String(ids)) ?? 0, end: ids.length });
    expect(vector.digest).toBe(await expectedDigest(texts, [1], span));
  });

  it("AT_TEXT is the token that completes its first occurrence", async () => {
    const { vector } = await derive({
      vectorId: "rule-text",
      pairs: [
        { positive: { prompt: "aye END of it END" }, negative: { prompt: "nay, nay END" } },
        { positive: { prompt: "a long good END text" }, negative: { prompt: "bad END" } },
      ],
      layers: [0],
      tokenRule: "TOKEN_RULE_AT_TEXT",
      tokenText: "END",
    });
    const prefix = async (text: string) => {
      const ids = await idsOf(text);
      for (let end = 1; end <= ids.length; end += 1) {
        const seen = await server.client.model.detokenize(ids.slice(0, end), {
          skipSpecialTokens: true,
        });
        if (seen.includes("END")) return ids.slice(0, end);
      }
      throw new Error("END does not occur");
    };
    const texts: [number[], number[]][] = [
      [await prefix("aye END of it END"), await prefix("nay, nay END")],
      [await prefix("a long good END text"), await prefix("bad END")],
    ];
    expect(vector.digest).toBe(await expectedDigest(texts, [0], lastToken));
    expect(vector.derivation).toMatchObject({ tokenRule: "TOKEN_RULE_AT_TEXT", tokenText: "END" });
  });
});

describe("the other methods", () => {
  it.each(["METHOD_PCA_PAIRWISE", "METHOD_PCA_CENTERED", "METHOD_LOGISTIC"] as const)(
    "%s gives unit rows, the same again",
    async (method) => {
      const id = method.toLowerCase();
      const { vector } = await derive({ vectorId: id, pairs: PAIRS, method });
      for (const { l2Norm } of vector.stats) expect(l2Norm).toBeCloseTo(1, 6);
      expect(vector.derivation).toMatchObject({ method, normalized: true });
      const again = await derive({ vectorId: `${id}-2`, pairs: PAIRS, method });
      expect(again.vector.digest).toBe(vector.digest);
    },
  );
});

describe("it refuses", () => {
  const pairs = PAIRS;
  const cases: [string, DeriveVectorRequest, string][] = [
    ["a bad id", { vectorId: "A", pairs }, "vector_id"],
    ["no pairs", { vectorId: "a" }, "pairs"],
    [
      "a pair with one side",
      { vectorId: "a", pairs: [{ positive: { prompt: "a" } }] },
      "pairs[0].negative.input",
    ],
    [
      "an empty prompt",
      { vectorId: "a", pairs: [{ positive: { prompt: "" }, negative: { prompt: "b" } }] },
      "pairs[0].positive.prompt",
    ],
    [
      "an empty completion",
      {
        vectorId: "a",
        pairs: [{ positive: { prompt: "a", completion: "" }, negative: { prompt: "b" } }],
      },
      "pairs[0].positive.completion",
    ],
    ["a layer outside", { vectorId: "a", pairs, layers: [1, 3] }, "layers[1]"],
    ["a layer twice", { vectorId: "a", pairs, layers: [1, 0, 1] }, "layers[2]"],
    ["an unknown method", { vectorId: "a", pairs, method: 9 as never }, "method"],
    ["an unknown rule", { vectorId: "a", pairs, tokenRule: 9 as never }, "token_rule"],
    ["a missing text", { vectorId: "a", pairs, tokenRule: "TOKEN_RULE_AT_TEXT" }, "token_text"],
    ["a text without use", { vectorId: "a", pairs, tokenText: "x" }, "token_text"],
    [
      "a text that is not there",
      { vectorId: "a", pairs, tokenRule: "TOKEN_RULE_AT_TEXT", tokenText: "%%%" },
      "pairs[0].positive",
    ],
    [
      "a missing completion",
      { vectorId: "a", pairs, tokenRule: "TOKEN_RULE_COMPLETION_MEAN" },
      "pairs[0].positive.completion",
    ],
    [
      "a token id that is none",
      {
        vectorId: "a",
        pairs: [{ positive: { tokens: { ids: [1024] } }, negative: { prompt: "b" } }],
      },
      "pairs[0].positive.tokens.ids[0]",
    ],
    [
      "sides that read the same",
      { vectorId: "a", pairs: [{ positive: { prompt: "a" }, negative: { prompt: "a" } }] },
      "pairs",
    ],
    [
      "one pair for the centred PCA",
      { vectorId: "a", pairs: pairs.slice(0, 1), method: "METHOD_PCA_CENTERED" },
      "pairs",
    ],
    ["a label without a key", { vectorId: "a", pairs, labels: { "": "x" } }, "labels"],
    [
      "a text over the context",
      {
        vectorId: "a",
        pairs: [
          { positive: { tokens: { ids: new Array(600).fill(5) } }, negative: { prompt: "b" } },
        ],
      },
      "pairs[0].positive",
    ],
  ];
  it.each(cases)("%s, with the field", async (_, request, field) => {
    await expect(derive(request)).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      violations: [expect.objectContaining({ field })],
    });
  });

  it("an unknown adapter", async () => {
    await expect(derive({ vectorId: "a", pairs, adapterId: "none" })).rejects.toMatchObject({
      code: "NOT_FOUND",
      resource: { type: "adapter", name: "none" },
    });
  });

  it("an id that holds something else", async () => {
    await derive({ vectorId: "taken", pairs, layers: [0] });
    await derive({ vectorId: "taken", pairs, layers: [0] });
    await expect(derive({ vectorId: "taken", pairs, layers: [1] })).rejects.toMatchObject({
      code: "ALREADY_EXISTS",
    });
  });
});

describe("limits", () => {
  it("more pairs and more memory than configured are refused with both numbers", async () => {
    const small = await TestServer.start({
      flags: ["--max-pairs", "4", "--max-derive-bytes", "7600"],
    });
    try {
      const run = (request: DeriveVectorRequest) => collect(small.client.vectors.derive(request));
      await expect(run({ vectorId: "a", pairs: [...PAIRS, ...PAIRS] })).rejects.toThrow(
        /pairs: 8 pairs; the limit is 4/,
      );
      const pca = { pairs: PAIRS, method: "METHOD_PCA_PAIRWISE" } as const;
      await expect(run({ vectorId: "a", ...pca })).rejects.toThrow(
        /pairs: need 12288 bytes of activations; the limit is 7600/,
      );
      await run({ vectorId: "a", ...pca, layers: [2] });
      // The mean needs sums only; its diagnostics make do with the pairs that fit.
      const [vector] = (await run({ vectorId: "b", pairs: PAIRS, layers: [0, 1] }))
        .map(({ vector }) => vector)
        .filter((each) => each != null);
      expect(vector?.derivation).toMatchObject({
        pairs: 4,
        diagnostics: [{ separatedPairs: 2 }, { separatedPairs: 2 }],
      });
      const limits = (await small.client.model.get()).limits;
      expect(limits).toMatchObject({ maxPairs: 4, maxDeriveBytes: "7600" });
    } finally {
      await small.stop();
    }
  });
});

describe("cancelling", () => {
  it("stops it and registers nothing", async () => {
    const pairs = Array.from({ length: 200 }, (_, i) => ({
      positive: { prompt: `good number ${i}` },
      negative: { prompt: `bad number ${i}` },
    }));
    for await (const { progress } of server.client.vectors.derive({ vectorId: "stopped", pairs })) {
      if ((progress?.inputsDone ?? 0) > 8) break;
    }
    await expect(server.client.vectors.get("stopped")).rejects.toMatchObject({ code: "NOT_FOUND" });
    const short = server.client.vectors.derive({ vectorId: "late", pairs }, { timeoutMs: 20 });
    await expect(collect(short)).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    await expect(server.client.vectors.get("late")).rejects.toMatchObject({ code: "NOT_FOUND" });
  });
});
