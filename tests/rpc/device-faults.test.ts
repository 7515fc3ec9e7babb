/** A device whose step hangs, and one that fails: what clients, probes and the process do. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { LlamaSteerClient } from "../../src/client/client.js";
import { FaultyDevice } from "../support/faulty-device.js";
import { checkHealth } from "../support/health.js";
import { type LiveServer, startLiveServerIn } from "../support/live-server.js";
import { collect, until } from "../support/server.js";
import { tinyCheckpoint } from "../support/tiny-checkpoint.js";

let device: FaultyDevice;
let server: LiveServer;
let client: LlamaSteerClient;
beforeAll(() => {
  device = new FaultyDevice();
});
afterAll(() => device.remove());
afterEach(async () => {
  client.close();
  device.set("");
  await server.stop();
});

async function start(...options: string[]): Promise<void> {
  const flags = ["--model", tinyCheckpoint(), "--device", "cuda", "--stall-seconds", "1"];
  server = await startLiveServerIn(device.env, ...flags, ...options);
  client = new LlamaSteerClient({ address: server.grpc });
}

async function http(name: string): Promise<{ status: number; body: string }> {
  const response = await fetch(`http://${server.http}${name}`);
  return { status: response.status, body: await response.text() };
}
const status = async (name: string) => (await http(name)).status;
const logged = (text: string) => server.log.filter((line) => line.includes(text));

const TOKENS = 60;
const LONG = { prompt: "a", sampling: { maxNewTokens: TOKENS, ignoreEos: true } };

/** A stream that has begun, and whose client waits for more. */
async function openStream() {
  const events = client.generateStream(LONG);
  await events.next();
  return collect(events);
}

describe("a step that hangs", () => {
  it("fails the probes and health, answers /metrics, and when it ends all is as before", async () => {
    await start();
    expect(await status("/livez")).toBe(200);
    device.set("hang");
    const stream = openStream();
    await until(async () => (await status("/livez")) === 503);
    expect((await http("/livez")).body).toMatch(/^the engine's step has taken \d+\.\d s$/);
    expect(await status("/readyz")).toBe(503);
    await until(async () => (await checkHealth(server.grpc, "")) === "NOT_SERVING");
    const age = /^llamasteer_scheduler_last_step_age_seconds (\S+)$/m;
    expect(Number(age.exec((await http("/metrics")).body)?.[1])).toBeGreaterThan(1);
    expect(logged("a step of the engine hangs")).toHaveLength(1);

    device.set("");
    await until(async () => (await checkHealth(server.grpc, "")) === "SERVING");
    expect(await status("/livez")).toBe(200);
    expect(await status("/readyz")).toBe(200);
    const tokens = (await stream).flatMap(({ delta }) => delta?.tokenIds ?? []);
    expect(tokens).toHaveLength(TOKENS);
    expect(await server.stop()).toBe(0);
  });

  it("does not keep a server that is told to stop: its requests are UNAVAILABLE, it kills itself", async () => {
    await start("--drain-timeout-seconds", "0.1");
    device.set("hang");
    const outcome = openStream().catch((error) => error);
    await until(async () => (await status("/livez")) === 503);
    server.process.kill("SIGTERM");
    expect(await outcome).toMatchObject({ code: "UNAVAILABLE" });
    expect(await server.exit).toBeNull();
    expect(server.process.signalCode).toBe("SIGKILL");
    expect(logged("the process ends without it")).toHaveLength(1);
  });
});

describe("a device that fails", () => {
  it("is INTERNAL for every request that runs, told to the log only, and ends the process with 1", async () => {
    await start();
    device.set("hang");
    const running = [openStream(), openStream(), client.generate(LONG)];
    const outcomes = Promise.all(running.map((each) => each.catch((error) => error)));
    // The step that hangs has taken one or more of them, which wait until it ends.
    const waiting = /^llamasteer_requests_waiting\S* 3$/m;
    await until(async () => waiting.test((await http("/metrics")).body));
    device.set("fail");
    for (const error of await outcomes) {
      expect(error.code).toBe("INTERNAL");
      expect(error.message).toMatch(/^internal error; correlation id [0-9a-f-]{36}$/);
      expect(logged(error.message.slice(-36))[0]).toContain("failed on command");
    }
    expect(await server.exit).toBe(1);
    const fatal = server.log
      .map((line) => JSON.parse(line))
      .filter(({ level }) => level === "fatal");
    expect(fatal.map(({ msg }) => msg)).toEqual([expect.stringContaining("failed on command")]);
  });
});
