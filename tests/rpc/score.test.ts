/** Score against what generation itself reports. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { TestServer } from "../support/server.js";
import { inlineVector } from "../support/vectors.js";

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start();
});
afterAll(() => server.stop());

const prompt = "what would you like to know";

it("scores a generated continuation with the very numbers of the generation", async () => {
  const steering = [{ ...inlineVector(2, [0, 2], 0.5), coefficient: 2 }];
  const { completions } = await server.client.generate({
    prompt,
    steering,
    sampling: { maxNewTokens: 10, seed: "3", ignoreEos: true, logprobs: 4 },
  });
  const ids = completions[0]?.tokenIds ?? [];
  const { scores } = await server.client.score({
    prompt,
    steering,
    continuations: [{ tokens: { ids } }],
    logprobs: 4,
  });
  expect(scores[0]?.logprobs).toEqual(completions[0]?.logprobs);
});

it("sums log-probabilities and gives perplexity", async () => {
  const { scores, usage } = await server.client.score({
    prompt,
    continuations: [{ text: " about the weather" }, { tokens: { ids: [65, 66] } }],
  });
  for (const { logprobs, sumLogprob, perplexity, tokenIds } of scores) {
    const sum = logprobs.reduce((total, { logprob }) => total + logprob, 0);
    expect(sumLogprob).toBeCloseTo(sum, 4);
    expect(perplexity).toBeCloseTo(Math.exp(-sum / tokenIds.length), 3);
    expect(logprobs.map(({ tokenId }) => tokenId)).toEqual(tokenIds);
  }
  expect(scores[1]?.tokenIds).toEqual([65, 66]);
  expect(usage?.promptTokens).toBeGreaterThan(0);
});

it("scores the prompt from its second token on", async () => {
  const { tokenIds } = await server.client.model.tokenize({ text: prompt });
  const whole = await server.client.score({ prompt, promptLogprobs: true, logprobs: 1 });
  expect(whole.scores).toEqual([]);
  expect(whole.promptLogprobs.map(({ tokenId }) => tokenId)).toEqual(tokenIds.slice(1));

  const half = Math.floor(tokenIds.length / 2);
  const split = await server.client.score({
    tokens: { ids: tokenIds.slice(0, half) },
    continuations: [{ tokens: { ids: tokenIds.slice(half) } }],
    promptLogprobs: true,
    logprobs: 1,
  });
  expect([...split.promptLogprobs, ...(split.scores[0]?.logprobs ?? [])]).toEqual(
    whole.promptLogprobs,
  );
});

it("counts continuation tokens as generated in the proof", async () => {
  const { tokenIds } = await server.client.model.tokenize({ text: prompt });
  const { applied } = await server.client.score({
    prompt,
    continuations: [{ tokens: { ids: [65, 66, 67] } }, { tokens: { ids: [68, 69] } }],
    steering: [inlineVector(1, [1])],
  });
  // The last token of a sequence is scored from the row before it, but its own row is computed too.
  expect(applied[0]?.promptTokens).toBe(2 * tokenIds.length);
  expect(applied[0]?.generatedTokens).toBe(5);
});

it("gives a continuation the same score whatever stands beside it", async () => {
  const alone = await server.client.score({ prompt, continuations: [{ text: " one" }] });
  const many = await server.client.score({
    prompt,
    continuations: [{ text: " two three" }, { text: " one" }, { text: " four" }],
  });
  expect(many.scores[1]).toEqual(alone.scores[0]);
});

it("scores a cached prompt with the same numbers", async () => {
  const request = { prompt: prompt.repeat(8), promptLogprobs: true, logprobs: 2 };
  const first = await server.client.score(request);
  expect(await server.client.score(request)).toMatchObject({
    promptLogprobs: first.promptLogprobs,
  });
});
