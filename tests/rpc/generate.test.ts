/** Generate and GenerateStream over loopback, on a tiny random checkpoint. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { GenerateRequest } from "../../src/client/client.js";
import { collect, TestServer } from "../support/server.js";

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start();
});
afterAll(() => server.stop());

const REQUEST: GenerateRequest = {
  prompt: "the service answers",
  sampling: { maxNewTokens: 24, seed: "7", ignoreEos: true },
};

async function text(request: GenerateRequest): Promise<string> {
  const { completions } = await server.client.generate(request);
  return completions[0]?.text ?? "";
}

function decode(tokenIds: number[]): Promise<string> {
  return server.client.model.detokenize(tokenIds, { skipSpecialTokens: true });
}

describe("Generate", () => {
  it("returns text, tokens, usage, timings, seed and fingerprint", async () => {
    const response = await server.client.generate(REQUEST);
    const [completion] = response.completions;
    expect(completion?.tokenIds).toHaveLength(24);
    expect(completion?.finishReason).toBe("FINISH_REASON_LENGTH");
    expect(completion?.text).toBe(await decode(completion?.tokenIds ?? []));
    expect(response.usage?.promptTokens).toBe(
      (await server.client.model.tokenize({ text: "the service answers" })).tokenIds.length,
    );
    expect(response.usage?.completionTokens).toBe(24);
    expect(response.seed).toBe("7");
    expect(response.modelFingerprint).toMatch(/^sha256:[0-9a-f]{64}$/);
    expect(Number(response.timings?.timeToFirstToken?.nanos)).toBeGreaterThan(0);
  });

  it("repeats itself with the same seed, differs with another, and returns a drawn one", async () => {
    const again = { ...REQUEST, sampling: { ...REQUEST.sampling, seed: "8" } };
    expect(await text(REQUEST)).toBe(await text(REQUEST));
    expect(await text(REQUEST)).not.toBe(await text(again));

    const drawn = await server.client.generate({ prompt: "a", sampling: { maxNewTokens: 12 } });
    const repeated = await server.client.generate({
      prompt: "a",
      sampling: { maxNewTokens: 12, seed: drawn.seed },
    });
    expect(repeated.completions).toEqual(drawn.completions);
  });

  it("takes a conversation as its rendered token ids", async () => {
    const chat = { messages: [{ role: "user", content: "one two three" }] };
    const rendered = await server.client.model.renderChat(chat);
    const sampling = { maxNewTokens: 8, temperature: 0 };
    const fromChat = await server.client.generate({ chat, sampling });
    const fromTokens = await server.client.generate({
      tokens: { ids: rendered.tokenIds },
      sampling,
    });
    expect(fromChat.completions).toEqual(fromTokens.completions);
    expect(fromChat.usage?.promptTokens).toBe(rendered.tokenIds.length);
  });

  it("ends before a stop text, and leaves it out", async () => {
    const whole = await text(REQUEST);
    const stop = whole.slice(5, 9);
    const response = await server.client.generate({
      ...REQUEST,
      sampling: { ...REQUEST.sampling, stop: [stop] },
    });
    expect(response.completions[0]?.finishReason).toBe("FINISH_REASON_STOP_TEXT");
    expect(response.completions[0]?.text).toBe(whole.slice(0, whole.indexOf(stop)));
  });

  it("ends at a stop token, which is in the token ids and not in the text", async () => {
    const { completions } = await server.client.generate(REQUEST);
    const ids = completions[0]?.tokenIds ?? [];
    const stopAt = ids.findIndex((id, index) => index > 3 && ids.indexOf(id) === index);
    const response = await server.client.generate({
      ...REQUEST,
      sampling: { ...REQUEST.sampling, stopTokenIds: [ids[stopAt] ?? 0] },
    });
    const [stopped] = response.completions;
    expect(stopped?.finishReason).toBe("FINISH_REASON_STOP");
    expect(stopped?.tokenIds).toEqual(ids.slice(0, stopAt + 1));
    expect(stopped?.text).toBe(await decode(ids.slice(0, stopAt)));
  });

  it("draws n different completions, the first as if it were alone", async () => {
    const { completions } = await server.client.generate({
      ...REQUEST,
      sampling: { ...REQUEST.sampling, n: 4 },
    });
    expect(completions).toHaveLength(4);
    expect(new Set(completions.map((completion) => completion.text)).size).toBe(4);
    expect(completions[0]?.text).toBe(await text(REQUEST));
  });

  it("reports log-probabilities, the most likely first, of the drawn token too", async () => {
    const { completions } = await server.client.generate({
      ...REQUEST,
      sampling: { ...REQUEST.sampling, temperature: 0, logprobs: 3 },
    });
    const { tokenIds = [], logprobs = [] } = completions[0] ?? {};
    expect(logprobs.map(({ tokenId }) => tokenId)).toEqual(tokenIds);
    for (const { tokenId, logprob, top } of logprobs) {
      expect(top).toHaveLength(3);
      // Greedy: the drawn token is the most likely one.
      expect(top[0]).toEqual({ tokenId, logprob });
      expect(top[0]?.logprob).toBeGreaterThanOrEqual(top[1]?.logprob ?? 0);
      expect(logprob).toBeLessThan(0);
    }
  });

  it("obeys logit_bias", async () => {
    const { completions } = await server.client.generate({
      prompt: "x",
      sampling: { maxNewTokens: 5, logitBias: { 65: 100 } },
    });
    expect(completions[0]?.tokenIds).toEqual([65, 65, 65, 65, 65]);
  });

  it("fills the context to the last token and ends there", async () => {
    const ids = Array.from({ length: 500 }, (_, index) => 1 + (index % 200));
    const response = await server.client.generate({
      tokens: { ids },
      sampling: { ignoreEos: true },
    });
    expect(response.completions[0]?.tokenIds).toHaveLength(12);
    expect(response.completions[0]?.finishReason).toBe("FINISH_REASON_LENGTH");
  });
});

describe("GenerateStream", () => {
  it("begins with `started`, ends with `finished`, and adds up to the unary answer", async () => {
    const request = { ...REQUEST, sampling: { ...REQUEST.sampling, n: 2, logprobs: 1 } };
    const events = await collect(server.client.generateStream(request));
    expect(events[0]?.event).toBe("started");
    expect(events.at(-1)?.event).toBe("finished");
    const whole = await server.client.generate(request);
    for (const [index, completion] of whole.completions.entries()) {
      const deltas = events.flatMap(({ delta }) =>
        delta?.completionIndex === index ? [delta] : [],
      );
      expect(deltas.map((delta) => delta.text).join("")).toBe(completion.text);
      expect(deltas.flatMap((delta) => delta.tokenIds)).toEqual(completion.tokenIds);
      expect(deltas.flatMap((delta) => delta.logprobs)).toEqual(completion.logprobs);
    }
    expect(events[0]?.started?.seed).toBe(whole.seed);
    expect(events.at(-1)?.finished?.usage?.completionTokens).toBe(whole.usage?.completionTokens);
    expect(events.at(-1)?.finished?.finishReasons).toEqual(
      whole.completions.map(({ finishReason }) => finishReason),
    );
  });

  it("gives no part of a stop text away, wherever tokens end", async () => {
    const whole = await text(REQUEST);
    for (let start = 1; start < 12; start++) {
      const stop = whole.slice(start, start + 6);
      const events = await collect(
        server.client.generateStream({
          ...REQUEST,
          sampling: { ...REQUEST.sampling, stop: [stop] },
        }),
      );
      const streamed = events.map(({ delta }) => delta?.text ?? "").join("");
      expect(streamed).toBe(whole.slice(0, whole.indexOf(stop)));
      expect(events.at(-1)?.finished?.finishReasons).toEqual(["FINISH_REASON_STOP_TEXT"]);
    }
  });

  it("keeps the other completions running when one meets its stop text", async () => {
    const sampling = { ...REQUEST.sampling, n: 3 };
    const { completions } = await server.client.generate({ ...REQUEST, sampling });
    const stop = completions[1]?.text.slice(4, 12) ?? "";
    const stopped = await server.client.generate({
      ...REQUEST,
      sampling: { ...sampling, stop: [stop] },
    });
    expect(stopped.completions[1]?.finishReason).toBe("FINISH_REASON_STOP_TEXT");
    expect(stopped.completions[0]).toEqual(completions[0]);
    expect(stopped.completions[2]).toEqual(completions[2]);
  });
});
