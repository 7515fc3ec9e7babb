/** Activations of what is being generated, and the logit lens. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type {
  ActivationChunk,
  CaptureSpec,
  GenerateRequest,
  Site,
} from "../../src/client/client.js";
import { collect, TestServer } from "../support/server.js";
import { TINY } from "../support/tiny-checkpoint.js";
import { inlineVector } from "../support/vectors.js";

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start({
    flags: ["--max-batch-tokens", "7", "--max-capture-chunk-bytes", "1024"],
  });
});
afterAll(() => server.stop());

const PROMPT = "there are many words in the world";
const SAMPLING = { maxNewTokens: 20, seed: "13", ignoreEos: true, logprobs: 3 };
const SITES: Site[] = ["SITE_RESID_PRE", "SITE_ATTN_OUT", "SITE_MLP_OUT", "SITE_RESID_POST"];
const EVERYTHING: CaptureSpec = { sites: [...SITES, "SITE_FINAL_NORM"] };
const REQUEST: GenerateRequest = { prompt: PROMPT, sampling: SAMPLING };

/** Bytes, positions and tokens by site and layer. */
function bySite(chunks: readonly (ActivationChunk | null | undefined)[]) {
  const sites = new Map<string, { positions: number[]; tokenIds: number[]; data: Buffer[] }>();
  for (const chunk of chunks) {
    if (!chunk) continue;
    const key = `${chunk.site} ${chunk.layer}`;
    const site = sites.get(key) ?? { positions: [], tokenIds: [], data: [] };
    sites.set(key, site);
    site.positions.push(...chunk.positions);
    site.tokenIds.push(...chunk.tokenIds);
    site.data.push(chunk.data);
  }
  return Object.fromEntries(
    [...sites].map(([key, { data, ...rest }]) => [key, { ...rest, data: Buffer.concat(data) }]),
  );
}

async function generateWith(capture: CaptureSpec, overrides: GenerateRequest = {}) {
  const events = await collect(server.client.generateStream({ ...REQUEST, capture, ...overrides }));
  const tokenIds = events.flatMap(({ delta }) => delta?.tokenIds ?? []);
  const logprobs = events.flatMap(({ delta }) => delta?.logprobs ?? []);
  const chunks = events.flatMap(({ activations }) => (activations ? [activations] : []));
  return { events, tokenIds, logprobs, chunks, finished: events.at(-1)?.finished };
}

describe("GenerateStream with capture", () => {
  it("has every computed row once: the prompt, and each generated token but the last", async () => {
    const { tokenIds, chunks, finished } = await generateWith(EVERYTHING);
    const prompt = (await server.client.model.tokenize({ text: PROMPT })).tokenIds;
    const sequence = [...prompt, ...tokenIds].slice(0, -1);
    const sites = bySite(chunks);
    expect(Object.keys(sites)).toHaveLength(SITES.length * TINY.layers + 1);
    for (const site of Object.values(sites)) {
      expect(site.positions).toEqual(sequence.map((_, position) => position));
      expect(site.tokenIds).toEqual(sequence);
      expect(site.data).toHaveLength(sequence.length * TINY.hiddenSize * 4);
    }
    expect(finished?.usage?.completionTokens).toBe(SAMPLING.maxNewTokens);
    for (const chunk of chunks) {
      expect(chunk.data.length).toBeLessThanOrEqual(1024);
      expect(chunk.shape).toEqual([String(chunk.positions.length), String(TINY.hiddenSize)]);
    }
  });

  it("changes no bit of what is generated", async () => {
    const plain = await server.client.generate(REQUEST);
    const captured = await generateWith(EVERYTHING);
    expect(captured.tokenIds).toEqual(plain.completions[0]?.tokenIds);
    expect(captured.logprobs).toEqual(plain.completions[0]?.logprobs);
  });

  it("shows the rows that a prefill of the same tokens shows, steered or not", async () => {
    for (const steering of [[], [{ ...inlineVector(6, [1], 0.9) }]]) {
      const { tokenIds, chunks } = await generateWith(EVERYTHING, { steering });
      const prompt = (await server.client.model.tokenize({ text: PROMPT })).tokenIds;
      const ids = [...prompt, ...tokenIds].slice(0, -1);
      const messages = await collect(
        server.client.captureActivations({
          inputs: [{ tokens: { ids } }],
          capture: EVERYTHING,
          steering,
        }),
      );
      expect(bySite(chunks)).toEqual(bySite(messages.map(({ activations }) => activations)));
    }
  });

  it("selects generated tokens, and averages over them", async () => {
    const capture: CaptureSpec = { sites: ["SITE_RESID_POST"], layers: [2] };
    const all = await generateWith(capture);
    const prompt = all.events[0]?.started?.promptTokens ?? 0;
    const tokens = { range: { start: prompt } };
    const some = await generateWith({ ...capture, tokens });
    const rows = bySite(some.chunks)["SITE_RESID_POST 2"];
    expect(rows?.positions[0]).toBe(prompt);
    expect(rows?.positions).toHaveLength(SAMPLING.maxNewTokens - 1);
    const whole = bySite(all.chunks)["SITE_RESID_POST 2"];
    expect(rows?.data).toEqual(whole?.data.subarray(prompt * TINY.hiddenSize * 4));
    const mean = await generateWith({ ...capture, tokens: { ...tokens, mean: true } });
    expect(mean.chunks).toHaveLength(1);
    expect(mean.chunks[0]?.positions).toEqual([prompt, prompt + SAMPLING.maxNewTokens - 2]);
    const floats = (data: Buffer | undefined) =>
      Array.from({ length: (data?.length ?? 0) / 4 }, (_, at) => data?.readFloatLE(at * 4) ?? 0);
    const values = floats(rows?.data);
    for (const [column, value] of floats(mean.chunks[0]?.data).entries()) {
      let sum = 0;
      for (let at = column; at < values.length; at += TINY.hiddenSize) sum += values[at] ?? 0;
      expect(value).toBeCloseTo(sum / (SAMPLING.maxNewTokens - 1), 4);
    }
  });

  it("gives each of many streams what it gets alone", async () => {
    const seeds = Array.from({ length: 6 }, (_, index) => String(index));
    const run = async (seed: string) => {
      const sampling = { ...SAMPLING, seed };
      const { chunks, tokenIds } = await generateWith(EVERYTHING, { sampling });
      return { sites: bySite(chunks), tokenIds };
    };
    const alone: unknown[] = [];
    for (const seed of seeds) alone.push(await run(seed));
    expect(await Promise.all(seeds.map(run))).toEqual(alone);
  });

  it("frees its room when the client leaves", async () => {
    const events = server.client.generateStream({
      ...REQUEST,
      sampling: { ...SAMPLING, maxNewTokens: 400 },
      capture: EVERYTHING,
    });
    for await (const { activations } of events) if (activations) break;
    await expect.poll(() => server.metric("capture_reserved_bytes")).toBe(0);
    await expect.poll(() => server.metric("kv_cache_usage_ratio")).toBe(0);
  });
});

describe("CaptureActivations with sampling", () => {
  it("has for each input the rows and the completion that a generation has", async () => {
    const inputs = [{ prompt: PROMPT }, { prompt: "the sea" }, { prompt: "words and words" }];
    const messages = await collect(
      server.client.captureActivations({ inputs, capture: EVERYTHING, sampling: SAMPLING }),
    );
    for (const [index, input] of inputs.entries()) {
      const { chunks, tokenIds, logprobs } = await generateWith(EVERYTHING, input);
      const own = messages.flatMap(({ activations }) =>
        activations?.inputIndex === index ? [activations] : [],
      );
      expect(bySite(own)).toEqual(bySite(chunks));
      const ended = messages.findIndex(({ completion }) => completion?.inputIndex === index);
      const last = messages.findLastIndex(({ activations }) => activations?.inputIndex === index);
      expect(ended).toBeGreaterThan(last);
      const completion = messages[ended]?.completion;
      expect(completion?.seed).toBe(SAMPLING.seed);
      expect(completion?.completion).toMatchObject({
        tokenIds,
        logprobs,
        finishReason: "FINISH_REASON_LENGTH",
      });
      expect(completion?.completion?.text.length).toBeGreaterThan(0);
    }
    const finished = messages.at(-1)?.finished;
    expect(finished?.usage?.completionTokens).toBe(inputs.length * SAMPLING.maxNewTokens);
  });

  it("draws a seed, tells it, and proves the steering of generated tokens", async () => {
    const { seed: _, ...sampling } = SAMPLING;
    const request = {
      inputs: [{ prompt: PROMPT }],
      capture: { sites: ["SITE_RESID_POST" as const], layers: [1] },
      steering: [{ ...inlineVector(6, [1]), positions: { generated: {} } }],
    };
    const first = await collect(server.client.captureActivations({ ...request, sampling }));
    const drawn = first.find(({ completion }) => completion)?.completion;
    const applied = first.at(-1)?.finished?.applied[0];
    expect(applied).toMatchObject({ promptTokens: 0, generatedTokens: SAMPLING.maxNewTokens - 1 });
    const again = await collect(
      server.client.captureActivations({
        ...request,
        sampling: { ...sampling, seed: drawn?.seed ?? "" },
      }),
    );
    expect(again.find(({ completion }) => completion)?.completion).toEqual(drawn);
  });
});

describe("the logit lens", () => {
  it("of the last block is what the next token is drawn from", async () => {
    const capture: CaptureSpec = { sites: ["SITE_RESID_POST"], layers: [2], lensTopK: 3 };
    const { chunks, logprobs, events } = await generateWith(capture);
    const lens = chunks.flatMap((chunk) => chunk.lens);
    const prompt = events[0]?.started?.promptTokens ?? 0;
    expect(lens).toHaveLength(prompt + SAMPLING.maxNewTokens - 1);
    for (const [at, { top }] of logprobs.entries()) {
      const row = lens[prompt - 1 + at]?.top ?? [];
      expect(row.map(({ tokenId }) => tokenId)).toEqual(top.map(({ tokenId }) => tokenId));
      for (const [rank, { logprob }] of row.entries()) {
        expect(logprob).toBeCloseTo(top[rank]?.logprob ?? Number.NaN, 4);
      }
    }
  });

  it("has k tokens by falling probability at every site", async () => {
    const messages = await collect(
      server.client.captureActivations({
        inputs: [{ prompt: PROMPT }],
        capture: { ...EVERYTHING, lensTopK: 5 },
      }),
    );
    const chunks = messages.flatMap(({ activations }) => (activations ? [activations] : []));
    for (const { lens, positions } of chunks) {
      expect(lens).toHaveLength(positions.length);
      for (const { top } of lens) {
        expect(top).toHaveLength(5);
        const falling = [...top].sort((a, b) => b.logprob - a.logprob);
        expect(top).toEqual(falling);
        expect(top[0]?.logprob).toBeLessThanOrEqual(0);
      }
    }
  });

  it("is not there when it is not asked for", async () => {
    const { chunks } = await generateWith({ sites: ["SITE_RESID_POST"], layers: [1] });
    for (const { lens } of chunks) expect(lens).toEqual([]);
  });
});
