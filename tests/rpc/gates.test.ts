/** Gates: where a steering acts depends on the residual stream, exactly and provably. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  bytesToFloats,
  type CaptureActivationsRequest,
  type GenerateRequest,
  type Steering,
} from "../../src/client/client.js";
import { collect, TestServer, until } from "../support/server.js";
import { TINY } from "../support/tiny-checkpoint.js";
import { inlineVector, randomRow } from "../support/vectors.js";

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start();
  const rows = [0, 1, 2].map((layer) => ({ layer, data: randomRow(40 + layer) }));
  await server.client.vectors.create({ vectorId: "condition", rows });
});
afterAll(() => server.stop());

const PROMPT = "there are many words in the world and many in the sea";
const SAMPLING = { maxNewTokens: 16, seed: "3", ignoreEos: true, logprobs: 2 };
/** Acts after block 1 only, so that rows before it do not depend on it. */
const STEERING: Steering = { ...inlineVector(7, [1], 0.7) };

type Gate = NonNullable<Steering["gate"]>;
const FAR = 1e9;
const gated = (gate: Gate): Steering => ({
  ...STEERING,
  gate: { vectorId: "condition", layer: 1, ...gate },
});

async function generate(steering: Steering[], overrides: GenerateRequest = {}) {
  return server.client.generate({ prompt: PROMPT, sampling: SAMPLING, steering, ...overrides });
}

/** Rows of a prompt after block 1, before or after its steering. */
async function rows(steering: Steering[], beforeSteering = false): Promise<Float32Array[]> {
  const request: CaptureActivationsRequest = {
    inputs: [{ prompt: PROMPT }],
    capture: { sites: ["SITE_RESID_POST"], layers: [1], beforeSteering },
    steering,
  };
  const messages = await collect(server.client.captureActivations(request));
  const data = messages.map(({ activations }) => activations?.data ?? Buffer.alloc(0));
  const values = bytesToFloats(Buffer.concat(data));
  const count = values.length / TINY.hiddenSize;
  return Array.from({ length: count }, (_, row) =>
    values.slice(row * TINY.hiddenSize, (row + 1) * TINY.hiddenSize),
  );
}

const dot = (a: Float32Array, b: Float32Array) =>
  a.reduce((sum, value, index) => sum + value * (b[index] ?? 0), 0);
const direction = bytesToFloats(randomRow(41));

describe("a gate that is always open", () => {
  it.each(["SCOPE_EACH_TOKEN", "SCOPE_PROMPT_LAST_TOKEN", "SCOPE_PROMPT_MEAN"] as const)(
    "leaves every bit as without it (%s)",
    async (scope) => {
      const open = await generate([gated({ threshold: -FAR, scope })]);
      const free = await generate([STEERING]);
      expect(open.completions).toEqual(free.completions);
      const [proof] = open.applied;
      const tokens = (proof?.promptTokens ?? 0) + (proof?.generatedTokens ?? 0);
      expect(tokens).toBeGreaterThan(SAMPLING.maxNewTokens);
      const evaluations = scope === "SCOPE_EACH_TOKEN" ? tokens : 1;
      const gate = { gateEvaluations: evaluations, gateFired: evaluations };
      const { digest: gateDigest } = await server.client.vectors.get("condition");
      expect(proof).toEqual({ ...free.applied[0], ...gate, gateDigest });
      expect(free.applied[0]).toMatchObject({ gateEvaluations: 0, gateFired: 0, gateDigest: "" });
    },
  );
});

describe("a gate that never opens", () => {
  it.each(["SCOPE_EACH_TOKEN", "SCOPE_PROMPT_LAST_TOKEN", "SCOPE_PROMPT_MEAN"] as const)(
    "leaves every bit unsteered, and the proof says so (%s)",
    async (scope) => {
      const closed = await generate([gated({ threshold: FAR, scope })]);
      expect(closed.completions).toEqual((await generate([])).completions);
      expect(closed.applied[0]).toMatchObject({
        promptTokens: 0,
        generatedTokens: 0,
        steeredRows: "0",
        meanDeltaRatio: 0,
        gateFired: 0,
      });
      expect(closed.applied[0]?.gateEvaluations).toBeGreaterThan(0);
    },
  );
});

describe("a gate at each token", () => {
  const cases = [
    ["METRIC_DOT", "COMPARATOR_ABOVE"],
    ["METRIC_DOT", "COMPARATOR_BELOW"],
    ["METRIC_COSINE", "COMPARATOR_ABOVE"],
    ["METRIC_COSINE", "COMPARATOR_BELOW"],
  ] as const;

  it.each(cases)("opens where %s is %s the threshold", async (metric, comparator) => {
    const before = await rows([STEERING], true);
    const score = (row: Float32Array) => {
      const size =
        metric === "METRIC_DOT" ? 1 : Math.sqrt(dot(row, row) * dot(direction, direction));
      return dot(row, direction) / size;
    };
    const scores = before.map(score);
    const sorted = [...scores].sort((a, b) => a - b);
    const middle = Math.floor(sorted.length / 2);
    const threshold = ((sorted[middle - 1] ?? 0) + (sorted[middle] ?? 0)) / 2;
    const opens = scores.map((value) =>
      comparator === "COMPARATOR_ABOVE" ? value > threshold : value < threshold,
    );
    const after = await rows([gated({ metric, comparator, threshold })]);
    const free = await rows([STEERING]);
    for (const [index, isOpen] of opens.entries()) {
      expect(after[index]).toEqual(isOpen ? free[index] : before[index]);
    }
    expect(new Set(opens).size).toBe(2);
    const { applied } = await generate([
      { ...gated({ metric, comparator, threshold }), positions: { prompt: {} } },
    ]);
    const fired = opens.filter(Boolean).length;
    expect(applied[0]).toMatchObject({
      promptTokens: fired,
      gateFired: fired,
      gateEvaluations: opens.length,
    });
  });

  it("is evaluated at the steering's tokens only", async () => {
    const steering = { ...gated({ threshold: -FAR }), positions: { range: { start: 2, end: 5 } } };
    const { applied } = await generate([steering]);
    expect(applied[0]).toMatchObject({ gateEvaluations: 3, gateFired: 3, promptTokens: 3 });
  });

  it("counts prompt and continuation of a score apart", async () => {
    const scored = await server.client.score({
      prompt: PROMPT,
      continuations: [{ text: " and here" }, { text: " or there again" }],
      steering: [gated({ threshold: -FAR })],
    });
    const prompt = (await server.client.model.tokenize({ text: PROMPT })).tokenIds.length;
    const continuations = scored.scores.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
    expect(scored.applied[0]?.promptTokens).toBe(2 * prompt);
    expect(scored.applied[0]?.generatedTokens).toBe(continuations);
    expect(scored.applied[0]?.gateFired).toBe(2 * prompt + continuations);
  });
});

describe("a gate on the prompt", () => {
  it("reads the last token, or the mean of all", async () => {
    const before = await rows([], true);
    const last = dot(before.at(-1) ?? new Float32Array(), direction);
    const mean = before.reduce((sum, row) => sum + dot(row, direction), 0) / before.length;
    const margin = Math.abs(last - mean) / 4;
    expect(margin).toBeGreaterThan(1e-3);
    for (const [scope, value] of [
      ["SCOPE_PROMPT_LAST_TOKEN", last],
      ["SCOPE_PROMPT_MEAN", mean],
    ] as const) {
      const fired = async (threshold: number) =>
        (await generate([gated({ scope, threshold })])).applied[0]?.gateFired;
      expect(await fired(value - margin)).toBe(1);
      expect(await fired(value + margin)).toBe(0);
    }
  });

  it("may be read behind the blocks that are steered", async () => {
    const steering = gated({ layer: 2, scope: "SCOPE_PROMPT_MEAN", threshold: -FAR });
    const open = await generate([steering]);
    expect(open.completions).toEqual((await generate([STEERING])).completions);
  });

  it("decides once for all completions", async () => {
    const sampling = { ...SAMPLING, n: 3 };
    const steering = gated({ scope: "SCOPE_PROMPT_LAST_TOKEN", threshold: -FAR });
    const open = await generate([steering], { sampling });
    expect(open.completions).toEqual((await generate([STEERING], { sampling })).completions);
    expect(open.applied[0]).toMatchObject({ gateEvaluations: 1, gateFired: 1 });
  });

  it("of a score reads the prompt, not the continuations", async () => {
    const before = await rows([], true);
    const last = dot(before.at(-1) ?? new Float32Array(), direction);
    const scored = await server.client.score({
      prompt: PROMPT,
      continuations: [{ text: " and" }, { text: " one two three" }],
      steering: [
        gated({ scope: "SCOPE_PROMPT_LAST_TOKEN", threshold: last - Math.abs(last) / 1000 }),
      ],
    });
    expect(scored.applied[0]).toMatchObject({ gateEvaluations: 2, gateFired: 2 });
  });
});

describe("gated requests", () => {
  it("get in a batch and from a warm cache what they get alone", async () => {
    const scopes = ["SCOPE_EACH_TOKEN", "SCOPE_PROMPT_LAST_TOKEN", "SCOPE_PROMPT_MEAN"] as const;
    const requests = Array.from({ length: 12 }, (_, index) => [
      gated({ threshold: (index % 4) - 1.5, scope: scopes[index % 3] ?? "SCOPE_EACH_TOKEN" }),
    ]);
    const run = async (steering: Steering[]) => {
      const { completions, applied } = await generate(steering);
      return { completions, applied };
    };
    const alone: unknown[] = [];
    for (const steering of requests) alone.push(await run(steering));
    expect(await Promise.all(requests.map(run))).toEqual(alone);
  });

  it("are counted", async () => {
    const fired = () => server.metric('gate_evaluations_total{fired="true"}');
    const before = await fired();
    const { applied } = await generate([gated({ threshold: -FAR })]);
    await until(async () => (await fired()) === before + (applied[0]?.gateFired ?? 0));
    expect(await server.metric('gate_evaluations_total{fired="false"}')).toBeGreaterThan(0);
  });
});
