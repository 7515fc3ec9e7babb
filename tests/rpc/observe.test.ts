/** What a generation tells about itself: probe scores and the distance to the unsteered model. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  bytesToFloats,
  type Completion,
  type GenerateRequest,
  type GenerateStreamResponse,
  type ProbeUse,
} from "../../src/client/client.js";
import { collect, TestServer } from "../support/server.js";
import { TINY } from "../support/tiny-checkpoint.js";
import { inlineVector } from "../support/vectors.js";

const PAIRS = [
  ["I love this", "I hate this"],
  ["yes of course", "no never"],
] as const;

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start({
    flags: ["--max-logprobs", String(TINY.vocabSize), "--metrics-probes", "honest"],
  });
  const pairs = PAIRS.map(([positive, negative]) => ({
    positive: { prompt: positive },
    negative: { prompt: negative },
  }));
  for (const [layer, probeId] of ["early", "honest", "late"].entries()) {
    await server.client.probes.fit({ probeId, pairs, layer });
  }
  await server.client.probes.calibrate({
    probeId: "late",
    benign: ["a", "the", "of", "many words"].map((prompt) => ({ prompt })),
    falsePositiveRate: 0.25,
  });
});
afterAll(() => server.stop());

const PROMPT = "there are many words in the world";
const SAMPLING = { maxNewTokens: 10, seed: "21", ignoreEos: true };
const STEERING = [{ ...inlineVector(5, [0, 1], 0.6) }];

const request = (overrides: GenerateRequest = {}): GenerateRequest => ({
  prompt: PROMPT,
  sampling: SAMPLING,
  ...overrides,
});
const generate = (overrides: GenerateRequest = {}) => server.client.generate(request(overrides));

/** Rows of all layers at each position, by layer. */
function rowsOf(events: GenerateStreamResponse[], layer: number): Map<number, Float32Array> {
  const rows = new Map<number, Float32Array>();
  for (const { activations } of events) {
    if (activations?.layer !== layer) continue;
    const values = bytesToFloats(activations.data);
    for (const [index, position] of activations.positions.entries()) {
      const begin = index * TINY.hiddenSize;
      rows.set(position, values.slice(begin, begin + TINY.hiddenSize));
    }
  }
  return rows;
}

describe("probes", () => {
  const uses: ProbeUse[] = [
    { probeId: "honest" },
    { probeId: "late", read: "READ_PROMPT_LAST" },
    { probeId: "early", read: "READ_AFTER_TEXT", text: "many" },
    { probeId: "honest", read: "READ_AFTER_TEXT", text: "@never@" },
  ];

  it("are read where they say, and each tells its content", async () => {
    const response = await generate({ probes: uses });
    const promptTokens = response.usage?.promptTokens ?? 0;
    const scores = response.completions[0]?.probeScores ?? [];
    expect(scores.map(({ probeId }) => probeId)).toEqual(["honest", "late", "early", "honest"]);
    expect(scores.map(({ probeIndex }) => probeIndex)).toEqual([0, 1, 2, 3]);
    const each = Array.from({ length: SAMPLING.maxNewTokens }, (_, at) => promptTokens - 1 + at);
    expect(scores[0]?.positions).toEqual(each);
    expect(scores[1]?.positions).toEqual([promptTokens - 1]);
    expect(scores[2]?.positions).toHaveLength(1);
    expect(scores[2]?.positions[0]).toBeLessThan(promptTokens - 1);
    expect(scores[3]).toMatchObject({ positions: [], scores: [] });
    for (const { positions, scores: values } of scores) {
      expect(values).toHaveLength(positions.length);
    }
    const { digest } = await server.client.probes.get("honest");
    expect(response.probes).toMatchObject([
      { probeId: "honest", digest, layer: 1, read: "READ_EACH_TOKEN" },
      { probeId: "late", layer: 2, read: "READ_PROMPT_LAST" },
      { probeId: "early", layer: 0, read: "READ_AFTER_TEXT" },
      { probeId: "honest", digest, layer: 1, read: "READ_AFTER_TEXT" },
    ]);
    expect(response.probes[0]?._threshold).toBeUndefined();
    expect(Number.isFinite(response.probes[1]?.threshold)).toBe(true);
  });

  /** The mean difference of the pairs' last tokens after a block, worked out here. */
  async function directionAt(layer: number): Promise<Float32Array> {
    const last = async (prompt: string) => {
      const messages = await collect(
        server.client.captureActivations({
          inputs: [{ prompt }],
          capture: { sites: ["SITE_RESID_POST"], layers: [layer], tokens: { last: {} } },
        }),
      );
      return bytesToFloats(messages[0]?.activations?.data ?? Buffer.alloc(0));
    };
    const direction = new Float32Array(TINY.hiddenSize);
    for (const [positive, negative] of PAIRS) {
      const [a, b] = [await last(positive), await last(negative)];
      for (const at of direction.keys()) {
        direction[at] = (direction[at] ?? 0) + ((a[at] ?? 0) - (b[at] ?? 0)) / PAIRS.length;
      }
    }
    return direction;
  }

  it("score the steered stream that a capture shows", async () => {
    const probes = uses.slice(0, 2);
    const capture = { sites: ["SITE_RESID_POST" as const] };
    const events = await collect(
      server.client.generateStream(request({ probes, steering: STEERING, capture })),
    );
    for (const [probeIndex, layer] of [
      [0, 1],
      [1, 2],
    ] as const) {
      const direction = await directionAt(layer);
      const rows = rowsOf(events, layer);
      const own = events
        .flatMap(({ delta }) => delta?.probeScores ?? [])
        .filter((scores) => scores.probeIndex === probeIndex);
      expect(own.length).toBeGreaterThan(0);
      for (const { positions, scores } of own) {
        for (const [index, position] of positions.entries()) {
          const row = rows.get(position) ?? new Float32Array();
          const expected = row.reduce((sum, value, at) => sum + value * (direction[at] ?? 0), 0);
          expect(scores[index]).toBeCloseTo(expected, 3);
        }
      }
    }
    const scoresOf = async (steering: GenerateRequest["steering"] = []) =>
      (await generate({ probes, steering })).completions[0]?.probeScores[0]?.scores;
    expect(await scoresOf()).not.toEqual(await scoresOf(STEERING));
  });

  it("come in streams in the parts of the whole, shared by completions where they read the prompt", async () => {
    const sampling = { ...SAMPLING, n: 3 };
    const whole = await generate({ probes: uses, sampling });
    const events = await collect(server.client.generateStream(request({ probes: uses, sampling })));
    expect(events[0]?.started?.probes).toEqual(whole.probes);
    for (const [index, completion] of whole.completions.entries()) {
      const deltas = events.flatMap(({ delta }) =>
        delta?.completionIndex === index ? [delta] : [],
      );
      const parts = deltas.flatMap(({ probeScores }) => probeScores);
      for (const expected of completion.probeScores) {
        const own = parts.filter(({ probeIndex }) => probeIndex === expected.probeIndex);
        expect(own.flatMap(({ scores }) => scores)).toEqual(expected.scores);
        expect(own.flatMap(({ positions }) => positions)).toEqual(expected.positions);
      }
    }
    const prompts = whole.completions.map(({ probeScores }) => probeScores[1]);
    expect(prompts[1]).toEqual(prompts[0]);
    expect(prompts[0]?.scores).toHaveLength(1);
  });

  it("score each token that is told, and none behind a stop text", async () => {
    const whole = (await generate({ probes: [uses[0] ?? {}] })).completions[0] as Completion;
    const stop = whole.text.slice(3, 7);
    const stopped = await generate({
      probes: [uses[0] ?? {}],
      sampling: { ...SAMPLING, stop: [stop] },
    });
    const [completion] = stopped.completions;
    const scores = completion?.probeScores[0]?.scores ?? [];
    expect(completion?.finishReason).toBe("FINISH_REASON_STOP_TEXT");
    expect(scores).toHaveLength(completion?.tokenIds.length ?? -1);
    expect(scores).toEqual(whole.probeScores[0]?.scores.slice(0, scores.length));
  });

  it("change nothing of what is generated, and nothing changes them", async () => {
    const tokens = { ids: Array.from({ length: 80 }, (_, index) => index + 3) };
    const { prompt: _, ...rest } = request({ tokens, probes: uses.slice(0, 2) });
    const first = await server.client.generate(rest);
    const cached = await server.client.generate(rest);
    expect(cached.usage?.cachedPromptTokens).toBeGreaterThan(0);
    expect(cached.completions).toEqual(first.completions);
    const plain = await server.client.generate({ ...rest, probes: [] });
    expect(plain.completions[0]?.tokenIds).toEqual(first.completions[0]?.tokenIds);
    const many = Array.from({ length: 8 }, () => server.client.generate(rest));
    for (const { completions } of await Promise.all(many)) {
      expect(completions).toEqual(first.completions);
    }
  });

  it("that are allowed to are counted in the histogram", async () => {
    const count = () => server.metric('probe_score_count{probe="honest"}');
    const before = await count();
    await generate({ probes: uses });
    expect(await count()).toBe(before + SAMPLING.maxNewTokens);
    expect(await server.metric('probe_score_count{probe="late"}')).toBeNaN();
  });
});

describe("the distance to the unsteered model", () => {
  it("is exactly 0 without steering, and changes no token", async () => {
    const plain = await generate();
    const compared = await generate({ compareUnsteered: true });
    expect(compared.completions[0]?.klToUnsteered).toEqual(Array(SAMPLING.maxNewTokens).fill(0));
    expect(compared.completions[0]?.tokenIds).toEqual(plain.completions[0]?.tokenIds);
    expect(plain.completions[0]?.klToUnsteered).toEqual([]);
    expect(compared.usage?.completionTokens).toBe(SAMPLING.maxNewTokens);
  });

  it("is the KL of the distributions that each token was drawn from", async () => {
    const sampling = { ...SAMPLING, logprobs: TINY.vocabSize };
    const compared = await generate({ steering: STEERING, sampling, compareUnsteered: true });
    const alone = await generate({ steering: STEERING, sampling });
    const [completion] = compared.completions;
    expect({ ...completion, klToUnsteered: [] }).toEqual(alone.completions[0]);
    expect(compared.applied).toEqual(alone.applied);
    const { tokenIds } = await server.client.model.tokenize({ text: PROMPT });
    const unsteered = await server.client.score({
      tokens: { ids: tokenIds },
      continuations: [{ tokens: { ids: completion?.tokenIds ?? [] } }],
      logprobs: TINY.vocabSize,
    });
    for (const [at, { top }] of (completion?.logprobs ?? []).entries()) {
      const base = new Map(
        unsteered.scores[0]?.logprobs[at]?.top.map(({ tokenId, logprob }) => [tokenId, logprob]),
      );
      expect(top).toHaveLength(TINY.vocabSize);
      const kl = top.reduce(
        (sum, { tokenId, logprob }) =>
          sum + Math.exp(logprob) * (logprob - (base.get(tokenId) ?? Number.NaN)),
        0,
      );
      expect(completion?.klToUnsteered[at]).toBeCloseTo(kl, 4);
      expect(kl).toBeGreaterThan(1e-4);
    }
  });

  it("is 0 before the first steered token, and comes with each delta of a stream", async () => {
    const steering = STEERING.map((each) => ({ ...each, positions: { generated: {} } }));
    const sampling = { ...SAMPLING, n: 2 };
    const whole = await generate({ steering, sampling, compareUnsteered: true });
    const events = await collect(
      server.client.generateStream(request({ steering, sampling, compareUnsteered: true })),
    );
    for (const [index, { klToUnsteered, tokenIds }] of whole.completions.entries()) {
      expect(klToUnsteered).toHaveLength(tokenIds.length);
      expect(klToUnsteered[0]).toBe(0);
      expect(klToUnsteered[1]).toBeGreaterThan(0);
      const parts = events.flatMap(({ delta }) =>
        delta?.completionIndex === index ? delta.klToUnsteered : [],
      );
      expect(parts).toEqual(klToUnsteered);
    }
  });

  it("ends with the text that a stop text ends", async () => {
    const [whole] = (await generate({ steering: STEERING, compareUnsteered: true })).completions;
    const sampling = { ...SAMPLING, stop: [whole?.text.slice(4, 8) ?? ""] };
    const response = await generate({ steering: STEERING, sampling, compareUnsteered: true });
    const [stopped] = response.completions;
    expect(stopped?.klToUnsteered).toEqual(
      whole?.klToUnsteered.slice(0, stopped?.tokenIds.length ?? -1),
    );
  });
});
