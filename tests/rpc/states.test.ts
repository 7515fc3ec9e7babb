/** Loading, draining, a fault: what clients and probes see. */
import { afterEach, describe, expect, it } from "vitest";
import { FakeBinding } from "../support/fake-binding.js";
import { checkHealth } from "../support/health.js";
import { collect, type ServerOptions, TestServer, until } from "../support/server.js";

let server: TestServer;
afterEach(() => server.stop());

async function start(options: ServerOptions): Promise<TestServer> {
  server = await TestServer.start(options);
  return server;
}

const SERVICES = ["", "llamasteer.v1.InferenceService", "llamasteer.v1.ModelService"];

async function probes(): Promise<Record<string, number>> {
  const names = ["livez", "readyz", "startupz"];
  const codes = await Promise.all(
    names.map(async (name) => (await server.http(`/${name}`)).status),
  );
  return Object.fromEntries(names.map((name, index) => [name, codes[index] ?? 0]));
}

async function expectHealth(expected: string): Promise<void> {
  for (const service of SERVICES) {
    expect(await checkHealth(server.app.addresses.grpc, service)).toBe(expected);
  }
}

describe("while loading", () => {
  it("every call is UNAVAILABLE with a delay, health is NOT_SERVING, the process is live", async () => {
    const binding = new FakeBinding(false);
    const { client, app } = await start({ binding, load: false });
    const loading = app.load();
    const refusal = { code: "UNAVAILABLE", reason: "LOADING", retryDelayMs: 1000 };
    await expect(client.generate({ prompt: "a" })).rejects.toMatchObject(refusal);
    await expect(collect(client.generateStream({ prompt: "a" }))).rejects.toMatchObject(refusal);
    await expect(client.vectors.get("a")).rejects.toMatchObject(refusal);
    await expect(client.model.get()).rejects.toMatchObject(refusal);
    await expectHealth("NOT_SERVING");
    expect(await probes()).toEqual({ livez: 200, readyz: 503, startupz: 503 });
    binding.finishLoading();
    await loading;
    await client.generate({ prompt: "a", sampling: { maxNewTokens: 1 } });
    await expectHealth("SERVING");
    expect(await probes()).toEqual({ livez: 200, readyz: 200, startupz: 200 });
  });
});

describe("while draining", () => {
  it("refuses new calls and finishes the accepted ones", async () => {
    const binding = new FakeBinding();
    binding.started = false;
    const { client, app } = await start({ binding });
    const accepted = client.generate({ prompt: "a", sampling: { maxNewTokens: 200 } });
    await until(() => binding.running.size === 1);
    const drained = app.drain();
    await expectHealth("NOT_SERVING");
    expect(await probes()).toEqual({ livez: 200, readyz: 503, startupz: 200 });
    const refusal = { code: "UNAVAILABLE", reason: "DRAINING" };
    await expect(client.generate({ prompt: "b" })).rejects.toMatchObject(refusal);
    await expect(client.model.get()).rejects.toMatchObject(refusal);
    expect(binding.running.size).toBe(1);
    binding.start();
    expect((await accepted).completions[0]?.tokenIds).toHaveLength(200);
    expect(await drained).toBe(0);
  });

  it("gives up after the drain timeout, and tells clients that it is UNAVAILABLE", async () => {
    const binding = new FakeBinding();
    binding.started = false;
    const { client, app } = await start({ binding, flags: ["--drain-timeout-seconds", "0.1"] });
    const accepted = client.generate({ prompt: "a" });
    const outcome = expect(accepted).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await until(() => binding.running.size === 1);
    expect(await app.drain()).toBe(1);
    await app[Symbol.asyncDispose]();
    await outcome;
    expect(binding.closed).toBe(true);
  });
});

describe("a device fault", () => {
  it("is INTERNAL for what runs, with a correlation id and nothing else, and NOT_SERVING", async () => {
    const binding = new FakeBinding();
    binding.started = false;
    const { client, app } = await start({ binding });
    const running = client.generate({ prompt: "a" });
    const outcome = running.catch((reason) => reason);
    await until(() => binding.running.size === 1);
    binding.fail("device /dev/gpu0 at 0xdeadbeef is lost");
    const error = await outcome;
    expect(error.code).toBe("INTERNAL");
    expect(error.message).toMatch(/^internal error; correlation id [0-9a-f-]{36}$/);
    const id = error.message.slice(-36);
    const logged = server.logLines.find((line) => line.includes(id)) ?? "";
    expect(logged).toContain("0xdeadbeef");
    await app.faulted;
    await expectHealth("NOT_SERVING");
    expect(await probes()).toEqual({ livez: 503, readyz: 503, startupz: 200 });
    await expect(client.generate({ prompt: "a" })).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(await server.metric("engine_healthy")).toBe(0);
    expect(await server.metric('device_errors_total{class="fatal"}')).toBe(1);
  });

  it("fails the liveness probe when one step takes too long", async () => {
    const binding = new FakeBinding();
    await start({ binding, flags: ["--stall-seconds", "5"] });
    binding.lastStepAgeSeconds = 4;
    expect((await server.http("/livez")).status).toBe(200);
    binding.lastStepAgeSeconds = 6;
    expect((await server.http("/livez")).status).toBe(503);
  });
});
