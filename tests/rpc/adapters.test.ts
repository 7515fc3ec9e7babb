/** LoRA adapters: chosen by requests, loaded and forgotten while others run. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { GenerateRequest } from "../../src/client/client.js";
import { collect, TestServer, until } from "../support/server.js";
import { writeTinyAdapter } from "../support/tiny-adapter.js";
import { TemporaryFolder } from "../support/tiny-checkpoint.js";
import { inlineVector } from "../support/vectors.js";

const folder = new TemporaryFolder();
let server: TestServer;
beforeAll(async () => {
  const first = writeTinyAdapter(folder.join("start", "first"), 1);
  writeTinyAdapter(folder.join("later", "second"), 2);
  server = await TestServer.start({
    flags: ["--adapter", `first=${first}`, "--adapter-dir", folder.join("later")],
  });
});
afterAll(async () => {
  await server.stop();
  folder.remove();
});

const REQUEST: GenerateRequest = {
  prompt: "there are many words in the world",
  sampling: { maxNewTokens: 12, seed: "5", ignoreEos: true, logprobs: 2 },
};
const withAdapter = (adapterId: string): GenerateRequest => ({ ...REQUEST, adapterId });
const completion = async (request: GenerateRequest) =>
  (await server.client.generate(request)).completions[0];

describe("an adapter", () => {
  it("changes what is generated, and is named by its digest", async () => {
    const base = await server.client.generate(REQUEST);
    const adapted = await server.client.generate(withAdapter("first"));
    expect(adapted.completions[0]?.logprobs).not.toEqual(base.completions[0]?.logprobs);
    expect(base.adapterDigest).toBe("");
    expect(adapted.adapterDigest).toMatch(/^sha256:[0-9a-f]{64}$/);
    const model = await server.client.model.get();
    expect(model.adapters).toContain("first");
    const details = model.adapterDetails.find(({ adapterId }) => adapterId === "first");
    expect(details).toMatchObject({ digest: adapted.adapterDigest, rank: 2 });
    expect(details?.modules).toEqual(["q", "down"]);
    expect(Number(details?.sizeBytes)).toBeGreaterThan(0);
  });

  it("is told by streams, scores and captures too", async () => {
    const { adapterDigest } = await server.client.generate(withAdapter("first"));
    const [started] = await collect(server.client.generateStream(withAdapter("first")));
    expect(started?.started?.adapterDigest).toBe(adapterDigest);
    const prompt = "there are many";
    const continuations = [{ text: " words" }];
    const base = await server.client.score({ prompt, continuations });
    const scored = await server.client.score({ prompt, continuations, adapterId: "first" });
    expect(scored.adapterDigest).toBe(adapterDigest);
    expect(scored.scores[0]?.sumLogprob).not.toBe(base.scores[0]?.sumLogprob);
    const capture = { sites: ["SITE_MLP_OUT" as const], layers: [1] };
    const rows = async (adapterId: string) =>
      collect(server.client.captureActivations({ inputs: [{ prompt }], capture, adapterId }));
    const adapted = await rows("first");
    expect(adapted.at(-1)?.finished?.adapterDigest).toBe(adapterDigest);
    expect(adapted[0]?.activations?.data).not.toEqual((await rows(""))[0]?.activations?.data);
  });

  it("gives each request of a mixed batch what it gets alone, steered or not", async () => {
    const steering = [{ ...inlineVector(3, [1]), coefficient: 0.5 }];
    const requests = Array.from(
      { length: 12 },
      (_, index): GenerateRequest => ({
        ...REQUEST,
        prompt: (REQUEST.prompt ?? "").repeat(1 + (index % 3)),
        ...(index % 2 === 0 ? { adapterId: "first" } : {}),
        ...(index % 3 === 0 ? { steering } : {}),
      }),
    );
    const alone: unknown[] = [];
    for (const request of requests) alone.push(await completion(request));
    expect(await Promise.all(requests.map(completion))).toEqual(alone);
  });

  it("has cache blocks of its own", async () => {
    const tokens = { ids: Array.from({ length: 100 }, (_, index) => index + 3) };
    const { prompt: _, ...rest } = REQUEST;
    const base = await completion({ ...rest, tokens });
    const first = await completion({ ...rest, tokens, adapterId: "first" });
    const cached = await server.client.generate({ ...rest, tokens, adapterId: "first" });
    expect(cached.usage?.cachedPromptTokens).toBeGreaterThan(0);
    expect(cached.completions[0]).toEqual(first);
    expect(await completion({ ...rest, tokens })).toEqual(base);
  });
});

describe("loading", () => {
  it("serves an adapter until it is unloaded; the same content again is a success", async () => {
    const { model } = server.client;
    const loaded = await model.loadAdapter("second");
    expect(loaded).toMatchObject({ adapterId: "second", rank: 2 });
    expect(await model.loadAdapter("second")).toEqual(loaded);
    expect((await model.get()).adapters).toEqual(["first", "second"]);
    expect(await server.metric("adapters_resident")).toBe(2);
    const response = await server.client.generate(withAdapter("second"));
    expect(response.adapterDigest).toBe(loaded.digest);
    await model.unloadAdapter("second");
    await expect(server.client.generate(withAdapter("second"))).rejects.toMatchObject({
      code: "NOT_FOUND",
      resource: { type: "adapter", name: "second" },
    });
    expect((await model.get()).adapters).toEqual(["first"]);
    expect(await server.metric("adapters_resident")).toBe(1);
  });

  it("refuses other content under an id that is taken", async () => {
    writeTinyAdapter(folder.join("later", "first"), 3);
    await expect(server.client.model.loadAdapter("first")).rejects.toMatchObject({
      code: "ALREADY_EXISTS",
      resource: { type: "adapter", name: "first" },
    });
  });

  it("lets a request that runs keep its adapter to the end", async () => {
    await server.client.model.loadAdapter("second");
    const long = withAdapter("second");
    long.sampling = { ...REQUEST.sampling, maxNewTokens: 200 };
    const whole = await server.client.generate(long);
    const events = server.client.generateStream(long);
    await events.next();
    await server.client.model.unloadAdapter("second");
    await server.client.generate(REQUEST);
    const rest = await collect(events);
    const tokenIds = rest.flatMap(({ delta }) => delta?.tokenIds ?? []);
    expect(tokenIds).toEqual(whole.completions[0]?.tokenIds);
    await until(async () => (await server.metric("adapters_resident")) === 1);
  });
});

describe("an adapter that is merged into the weights", () => {
  it("gives the model another fingerprint, and about what the adapter gives", async () => {
    const merged = await TestServer.start({
      flags: ["--merge-adapter", folder.join("start", "first")],
    });
    const model = await merged.client.model.get();
    const base = await server.client.model.get();
    expect(model.fingerprint).not.toBe(base.fingerprint);
    const digest = base.adapterDetails.find(({ adapterId }) => adapterId === "first")?.digest;
    expect(model.mergedAdapterDigest).toBe(digest);
    expect(base.mergedAdapterDigest).toBe("");
    const request = { prompt: "there are many", continuations: [{ text: " words in" }] };
    const scored = await merged.client.score(request);
    const adapted = await server.client.score({ ...request, adapterId: "first" });
    const plain = await server.client.score(request);
    const of = ({ scores }: typeof plain) => scores[0]?.sumLogprob ?? Number.NaN;
    const distance = Math.abs(of(scored) - of(adapted));
    expect(distance).toBeLessThan(Math.abs(of(plain) - of(adapted)) / 10);
    await merged.stop();
  });
});

describe("a start with an adapter that is none", () => {
  it("fails and names the option and the file", async () => {
    const flags = ["--adapter", `x=${folder.join("nowhere")}`];
    await expect(TestServer.start({ flags })).rejects.toThrow(/nowhere/);
  });
});
