/** Prometheus' own linter reads /metrics. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { LlamaSteerClient } from "../../../src/client/client.js";
import { type LiveServer, run, startLiveServer } from "../../support/live-server.js";

let server: LiveServer;
beforeAll(async () => {
  server = await startLiveServer();
}, 60_000);
afterAll(() => server.stop());

async function metrics(): Promise<string> {
  const response = await fetch(`http://${server.http}/metrics`);
  expect(response.status).toBe(200);
  return response.text();
}

describe("promtool check metrics", { timeout: 30_000 }, () => {
  test("finds nothing before the first request and after some", async () => {
    const fresh = await run("promtool", ["check", "metrics"], { input: await metrics() });
    expect(fresh).toEqual({ code: 0, stdout: "", stderr: "" });

    const client = new LlamaSteerClient({ address: server.grpc });
    await client.generate({ prompt: "x", sampling: { maxNewTokens: 4 } });
    await client.generate({ prompt: "" }).catch(() => {});
    client.close();
    const used = await metrics();
    expect(used).toMatch(/^llamasteer_generation_tokens_total(\{.*\})? [1-9]/m);
    expect(await run("promtool", ["check", "metrics"], { input: used })).toEqual({
      code: 0,
      stdout: "",
      stderr: "",
    });
  });

  test("does find fault with a bad page", async () => {
    const bad = "# HELP x_count a counter\n# TYPE x_count counter\nx_count 1\n";
    const { code, stderr, stdout } = await run("promtool", ["check", "metrics"], { input: bad });
    expect(stderr + stdout).toContain("x_count");
    expect(code).not.toBe(0);
  });
});
