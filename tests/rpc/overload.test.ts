/** Queues, deadlines, cancellation, slow readers: nothing is leaked, others go on. */
import { afterEach, describe, expect, it } from "vitest";
import type { GenerateRequest } from "../../src/client/client.js";
import { FakeBinding } from "../support/fake-binding.js";
import { collect, type ServerOptions, TestServer, until } from "../support/server.js";

let server: TestServer;
afterEach(() => server.stop());

async function start(options: ServerOptions = {}): Promise<TestServer> {
  server = await TestServer.start(options);
  return server;
}

const LONG: GenerateRequest = {
  prompt: "the last and the first",
  sampling: { maxNewTokens: 450, ignoreEos: true },
};

describe("the queue", () => {
  it("refuses the request over its limit, says when to come back, and counts it", async () => {
    const binding = new FakeBinding();
    binding.started = false;
    const { client } = await start({ binding, flags: ["--max-waiting-requests", "3"] });
    const waiting = [1, 2, 3].map(() => client.generate(LONG));
    await until(() => binding.running.size === 3);
    const refusal = await client.generate(LONG).catch((error) => error);
    expect(refusal).toMatchObject({ code: "RESOURCE_EXHAUSTED", reason: "QUEUE_FULL" });
    expect(refusal.retryDelayMs).toBeGreaterThanOrEqual(750);
    expect(refusal.retryDelayMs).toBeLessThanOrEqual(1250);
    const [pushback] = refusal.cause.metadata.get("grpc-retry-pushback-ms");
    expect(Number(pushback)).toBe(refusal.retryDelayMs);
    expect(await server.metric('admission_rejections_total{reason="queue"}')).toBe(1);
    expect(await server.metric('requests_waiting{model="tiny"}')).toBe(3);
    binding.start();
    for (const answer of await Promise.all(waiting)) {
      expect(answer.completions[0]?.tokenIds).toHaveLength(450);
    }
    await client.generate(LONG);
  });

  it("refuses prompt tokens over its limit, but takes any request when it is empty", async () => {
    const binding = new FakeBinding();
    binding.started = false;
    const { client } = await start({ binding, flags: ["--max-waiting-prompt-tokens", "50"] });
    const tokens = { ids: Array(60).fill(5) };
    const first = client.generate({ tokens, sampling: { maxNewTokens: 2 } });
    await until(() => binding.running.size === 1);
    await expect(client.generate({ prompt: "a" })).rejects.toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      reason: "PROMPT_TOKENS_WAITING",
    });
    expect(await server.metric('admission_rejections_total{reason="tokens"}')).toBe(1);
    binding.start();
    await first;
  });

  it("has room again after requests that failed in every way", async () => {
    const { client } = await start({ flags: ["--max-waiting-requests", "2"] });
    for (let round = 0; round < 20; round++) {
      await client.generate({ prompt: "" }).catch(() => {});
      await client.generate({ prompt: "a", steering: [{ vectorId: "nope" }] }).catch(() => {});
      await client.generate(LONG, { timeoutMs: 1 }).catch(() => {});
    }
    await until(async () => (await server.metric('requests_running{model="tiny"}')) === 0);
    await client.generate({ prompt: "a", sampling: { maxNewTokens: 1 } });
  });
});

describe("deadlines", () => {
  it("end a running request and free its KV", async () => {
    const { client } = await start();
    const many = { ...LONG, sampling: { ...LONG.sampling, n: 8 } };
    const call = collect(client.generateStream(many, { timeoutMs: 30 }));
    await expect(call).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    await until(async () => (await server.metric("kv_cache_usage_ratio")) === 0);
    await until(async () => (await server.metric('requests_running{model="tiny"}')) === 0);
  });

  it("end a wait for a registry revision that does not come", async () => {
    const { client } = await start();
    const call = client.generate({ prompt: "a", minRegistryRevision: "99" }, { timeoutMs: 50 });
    await expect(call).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    await client.generate({ prompt: "a", sampling: { maxNewTokens: 1 } });
  });

  it("end a request that waits in the queue", async () => {
    const binding = new FakeBinding();
    binding.started = false;
    const { client } = await start({ binding });
    const call = client.generate(LONG, { timeoutMs: 50 });
    await expect(call).rejects.toMatchObject({ code: "DEADLINE_EXCEEDED" });
    await until(() => binding.running.size === 0);
    expect(binding.submitted[0]?.deadlineNs).toBeGreaterThan(0n);
  });
});

describe("cancellation", () => {
  it("frees the KV of streams that are left, whenever they are left", async () => {
    const { client } = await start();
    const leaveAfter = async (events: number) => {
      let seen = 0;
      for await (const _ of client.generateStream(LONG)) {
        seen += 1;
        if (seen > events) break;
      }
    };
    await Promise.all(Array.from({ length: 40 }, (_, index) => leaveAfter(index % 7)));
    await until(async () => (await server.metric("kv_cache_usage_ratio")) === 0);
    expect(await server.metric('requests_running{model="tiny"}')).toBe(0);
    expect(await server.metric('requests_waiting{model="tiny"}')).toBe(0);
  });

  it("reaches unary calls, scores and captures", async () => {
    const { client } = await start();
    const abort = new AbortController();
    const { signal } = abort;
    const many = Array.from({ length: 200 }, () => ({ tokens: { ids: Array(300).fill(9) } }));
    const calls = [
      client.generate(LONG, { signal }),
      client.score({ prompt: "a", continuations: many }, { signal }),
      collect(
        client.captureActivations(
          { inputs: many, capture: { sites: ["SITE_RESID_POST"] } },
          { signal },
        ),
      ),
    ];
    const outcomes = Promise.allSettled(calls);
    await until(async () => (await server.metric('requests_running{model="tiny"}')) >= 2);
    abort.abort();
    for (const outcome of await outcomes) {
      expect(outcome).toMatchObject({ status: "rejected", reason: { code: "CANCELLED" } });
    }
    await until(async () => (await server.metric("kv_cache_usage_ratio")) === 0);
    await until(async () => (await server.metric('requests_running{model="tiny"}')) === 0);
  });
});

describe("a slow reader", () => {
  /** Rows of all layers for a long prompt: many times what the wire buffers. */
  const BIG = {
    inputs: Array.from({ length: 60 }, () => ({ tokens: { ids: Array(500).fill(9) } })),
    capture: { sites: ["SITE_RESID_POST" as const, "SITE_MLP_OUT" as const] },
  };

  it("stops being computed, does not hold others up, and gets everything in the end", async () => {
    const { client } = await start();
    const events = client.captureActivations(BIG);
    await events.next();
    let before = -1;
    // The server comes to rest although most of the work is left.
    await until(async () => {
      const bytes = await server.metric("capture_bytes_total");
      const still = bytes === before;
      before = bytes;
      if (!still) await new Promise((resolve) => setTimeout(resolve, 100));
      return still;
    });
    const all = 60 * 500 * 3 * 2 * 64 * 4;
    expect(before).toBeLessThan(all / 2);
    await client.generate({ prompt: "a", sampling: { maxNewTokens: 5 } });
    const rest = await collect(events);
    expect(rest.at(-1)?.finished?.usage?.promptTokens).toBe(60 * 500);
  });

  it("is ended when it takes nothing for too long", async () => {
    const { client } = await start({ flags: ["--slow-reader-timeout-seconds", "0.2"] });
    const events = client.captureActivations(BIG);
    await events.next();
    await until(async () => (await server.metric("capture_reserved_bytes")) > 0);
    await until(async () => (await server.metric("capture_reserved_bytes")) === 0);
    await expect(collect(events)).rejects.toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      reason: "SLOW_READER",
    });
    expect(await server.metric("kv_cache_usage_ratio")).toBe(0);
  });
});
