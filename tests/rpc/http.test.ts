/** The HTTP side: probes and metrics. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { sumOfMetric } from "../support/metrics.js";
import { TestServer, until } from "../support/server.js";
import { inlineVector } from "../support/vectors.js";

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start({ flags: ["--metrics-vectors", "mood"] });
});
afterAll(() => server.stop());

describe("HTTP", () => {
  it("answers GET and HEAD of the four paths, with or without a query", async () => {
    for (const path of ["/livez", "/readyz", "/startupz", "/metrics", "/livez?verbose"]) {
      expect((await server.http(path)).status).toBe(200);
      const head = await server.http(path, { method: "HEAD" });
      expect(head).toEqual({ status: 200, body: "" });
    }
  });

  it("knows no other path and no other method", async () => {
    expect((await server.http("/")).status).toBe(404);
    expect((await server.http("/metrics/../etc")).status).toBe(404);
    expect((await server.http("/metrics", { method: "POST", body: "x" })).status).toBe(405);
  });
});

describe("metrics of calls", () => {
  const call = (method: string, code: string) =>
    server.metric(`requests_total{method="llamasteer.v1.${method}",code="${code}"}`);

  it("count calls by method and code, however they end", async () => {
    const { client } = server;
    const sampling = { maxNewTokens: 10, ignoreEos: true };
    await client.generate({ prompt: "a", sampling, steering: [inlineVector(1, [1])] });
    await client.generate({ prompt: "" }).catch(() => {});
    await client.vectors.get("nope").catch(() => {});
    // Many completions: not all of them end before the cancel arrives.
    const long = { maxNewTokens: 450, ignoreEos: true, n: 8 };
    const events = client.generateStream({ prompt: "a", sampling: long });
    for await (const { delta } of events) if (delta) break;
    await until(async () => (await call("InferenceService/GenerateStream", "CANCELLED")) === 1);
    expect(await call("InferenceService/Generate", "OK")).toBe(1);
    expect(await call("InferenceService/Generate", "INVALID_ARGUMENT")).toBe(1);
    expect(await call("VectorService/GetVector", "NOT_FOUND")).toBe(1);
    expect(await call("ModelService/Tokenize", "OK")).toBe(0);
  });

  it("follow a generation", async () => {
    expect(await server.metric("generation_tokens_total")).toBeGreaterThanOrEqual(10);
    expect(await server.metric('finished_total{reason="length"}')).toBe(1);
    // The one that was cancelled is counted when its end comes before its call is let go, and then in both.
    const { body } = await server.http("/metrics");
    const cancelled = sumOfMetric(body, 'llamasteer_finished_total{reason="cancelled"}');
    const firsts = sumOfMetric(body, "llamasteer_time_to_first_token_seconds_count");
    expect(firsts).toBe(cancelled > 0 ? 2 : 1);
    expect(await server.metric("steering_delta_ratio_count")).toBe(1);
    expect(await server.metric("inter_token_latency_seconds_count")).toBeGreaterThan(0);
    expect(await server.metric('vector_tokens_total{vector="_other"}')).toBeGreaterThan(10);
    expect(await server.metric("batch_tokens_count")).toBeGreaterThanOrEqual(10);
    expect(await server.metric("engine_healthy")).toBe(1);
    expect(await server.metric('kv_cache_config_info{block_size="16",blocks="2048"}')).toBe(1);
  });
});
