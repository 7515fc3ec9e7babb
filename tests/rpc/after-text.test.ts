/** Positions that wait for a text, in the prompt and in what is generated. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  bytesToFloats,
  type Completion,
  type GenerateRequest,
  type Steering,
} from "../../src/client/client.js";
import { collect, TestServer } from "../support/server.js";
import { TINY } from "../support/tiny-checkpoint.js";
import { inlineVector } from "../support/vectors.js";

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start();
});
afterAll(() => server.stop());

const PROMPT = "there are many words in the world";
const SAMPLING = { maxNewTokens: 24, seed: "8", ignoreEos: true, logprobs: 1 };
const steer = (afterText: string, scope: Steering["positions"] = {}): Steering => ({
  ...inlineVector(2, [0, 1], 0.8),
  positions: { ...scope, afterText },
});

async function generate(steering: Steering[], overrides: GenerateRequest = {}) {
  return server.client.generate({ prompt: PROMPT, sampling: SAMPLING, steering, ...overrides });
}

const whole = async (steering: Steering[], overrides: GenerateRequest = {}) =>
  (await generate(steering, overrides)).completions as Completion[];

/** Position behind the token that completes `text` in the prompt. */
async function behindInPrompt(text: string): Promise<number> {
  const { tokenIds } = await server.client.model.tokenize({ text: PROMPT });
  for (let count = 1; count <= tokenIds.length; count++) {
    const start = await server.client.model.detokenize(tokenIds.slice(0, count));
    if (start.includes(text)) return count;
  }
  throw new Error(`${text} is not in the prompt`);
}

describe("a text in the prompt", () => {
  it("steers the tokens behind it, and only those", async () => {
    const rows = async (steering: Steering[]) => {
      const messages = await collect(
        server.client.captureActivations({
          inputs: [{ prompt: PROMPT }],
          capture: { sites: ["SITE_RESID_POST"], layers: [0] },
          steering,
        }),
      );
      const data = messages.map(({ activations }) => activations?.data ?? Buffer.alloc(0));
      return { values: bytesToFloats(Buffer.concat(data)), finished: messages.at(-1)?.finished };
    };
    const behind = await behindInPrompt("many");
    const plain = (await rows([])).values;
    const free = (await rows([inlineVector(2, [0, 1], 0.8)])).values;
    const { values, finished } = await rows([steer("many")]);
    const at = behind * TINY.hiddenSize;
    expect(values.subarray(0, at)).toEqual(plain.subarray(0, at));
    // Block 0 is the first that is steered, so its rows know nothing of earlier tokens' steering.
    expect(values.subarray(at)).toEqual(free.subarray(at));
    expect(finished?.applied[0]?.promptTokens).toBe(plain.length / TINY.hiddenSize - behind);
    expect(finished?.applied[0]?.afterTextPositions).toEqual([behind]);
  });

  it("is the same as the range behind it", async () => {
    const behind = await behindInPrompt("words in");
    const ranged = (range: { start: number; end?: number }): Steering => ({
      ...steer("words in"),
      positions: { range },
    });
    expect(await whole([steer("words in")])).toEqual(await whole([ranged({ start: behind })]));
    const { tokenIds } = await server.client.model.tokenize({ text: PROMPT });
    expect(await whole([steer("words in", { prompt: {} })])).toEqual(
      await whole([ranged({ start: behind, end: tokenIds.length })]),
    );
  });

  it("is told for each input of a capture, and for each continuation of a score", async () => {
    const inputs = [{ prompt: "many words" }, { prompt: "there are many words in" }];
    const messages = await collect(
      server.client.captureActivations({
        inputs,
        capture: { sites: ["SITE_RESID_POST"], layers: [0] },
        steering: [steer("many")],
      }),
    );
    const positions = messages.at(-1)?.finished?.applied[0]?.afterTextPositions ?? [];
    expect(positions).toHaveLength(2);
    expect(positions[1]).toBeGreaterThan(positions[0] ?? 0);
    const scored = await server.client.score({
      prompt: "there are",
      continuations: [{ text: " many words" }, { text: " so many words" }],
      steering: [steer("many")],
    });
    const [first = 0, second = 0] = scored.applied[0]?.afterTextPositions ?? [];
    expect(second).toBeGreaterThan(first);
    expect(scored.applied[0]?.promptTokens).toBe(0);
    expect(scored.applied[0]?.generatedTokens).toBeGreaterThan(0);
  });
});

describe("a text in the completion", () => {
  /** Letters from the middle of an unsteered completion that stand nowhere before. */
  async function someText(): Promise<{ text: string; request: GenerateRequest }> {
    for (let seed = 1; seed < 50; seed++) {
      const request = { sampling: { ...SAMPLING, seed: String(seed) } };
      const [completion] = await whole([], request);
      const text = completion?.text ?? "";
      for (let start = 8; start < text.length - 12; start++) {
        const part = text.slice(start, start + 4);
        if (!/^[ -~]+$/.test(part)) continue;
        const all = PROMPT + text;
        if (all.indexOf(part) === PROMPT.length + start) return { text: part, request };
      }
    }
    throw new Error("no completion has a text to wait for");
  }

  it("steers what follows it", async () => {
    const { text, request } = await someText();
    const [plain] = await whole([], request);
    const response = await generate([steer(text)], request);
    const [steered] = response.completions;
    const [proof] = response.applied;
    const promptTokens = response.usage?.promptTokens ?? 0;
    const behind = proof?.afterTextPositions[0] ?? -1;
    expect(behind).toBeGreaterThan(promptTokens);
    // The token at `behind` is the first whose row is steered, so it is still drawn unsteered.
    const same = behind - promptTokens + 1;
    expect(steered?.logprobs.slice(0, same)).toEqual(plain?.logprobs.slice(0, same));
    expect(steered?.logprobs.slice(same)).not.toEqual(plain?.logprobs.slice(same));
    expect(proof?.promptTokens).toBe(0);
    expect(proof?.generatedTokens).toBe(promptTokens + SAMPLING.maxNewTokens - 1 - behind);
    const before = await server.client.model.detokenize(
      steered?.tokenIds.slice(0, behind - promptTokens) ?? [],
    );
    expect(before).toContain(text);
  });

  it("may begin in the prompt", async () => {
    const response = await generate([]);
    const text = `world${response.completions[0]?.text.slice(0, 2)}`;
    const promptTokens = response.usage?.promptTokens ?? 0;
    const behind = (await generate([steer(text)])).applied[0]?.afterTextPositions[0] ?? -1;
    expect(behind).toBeGreaterThan(promptTokens);
    expect(behind).toBeLessThanOrEqual(promptTokens + 2);
  });

  it("is looked for in each completion on its own", async () => {
    const { text, request } = await someText();
    const sampling = { ...SAMPLING, ...request.sampling, n: 3 };
    const { applied } = await generate([steer(text)], { sampling });
    expect(applied[0]?.afterTextPositions).toHaveLength(3);
    expect(applied[0]?.afterTextPositions[0]).toBeGreaterThan(0);
  });

  it("that never appears steers nothing, and the proof says so", async () => {
    const response = await generate([steer("@never@")]);
    expect(response.completions).toEqual(await whole([]));
    expect(response.applied[0]).toMatchObject({
      promptTokens: 0,
      generatedTokens: 0,
      steeredRows: "0",
      afterTextPositions: [-1],
    });
  });

  it("limits a gate and a range as well", async () => {
    const behind = await behindInPrompt("many");
    await server.client.vectors.create({
      vectorId: "wide",
      rows: inlineVector(9, [0]).inline.rows,
    });
    const gate = { vectorId: "wide", layer: 0, threshold: -1e9 };
    const steering = { ...steer("many", { range: { start: 1, end: behind + 2 } }), gate };
    const { applied } = await generate([steering]);
    expect(applied[0]).toMatchObject({ gateEvaluations: 2, gateFired: 2, promptTokens: 2 });
  });
});

describe("a capture that waits for a text", () => {
  const capture = { sites: ["SITE_RESID_POST" as const], layers: [1] };
  const positionsOf = (messages: { activations?: { positions: number[] } | null }[]) =>
    messages.flatMap(({ activations }) => activations?.positions ?? []);

  it("has the rows behind it", async () => {
    const behind = await behindInPrompt("many");
    const messages = await collect(
      server.client.captureActivations({
        inputs: [{ prompt: PROMPT }],
        capture: { ...capture, tokens: { afterText: "many" } },
      }),
    );
    const count = messages.at(-1)?.finished?.usage?.promptTokens ?? 0;
    const expected = Array.from({ length: count - behind }, (_, index) => behind + index);
    expect(positionsOf(messages)).toEqual(expected);
  });

  it("has none when it is not generated", async () => {
    const events = await collect(
      server.client.generateStream({
        prompt: PROMPT,
        sampling: SAMPLING,
        capture: { ...capture, tokens: { afterText: "@never@" } },
      }),
    );
    expect(events.some(({ activations }) => activations)).toBe(false);
    expect(events.at(-1)?.event).toBe("finished");
  });
});
