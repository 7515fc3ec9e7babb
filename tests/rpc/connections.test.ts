/** Connections: storms of cancels, floods of resets, broken and silent peers, too many of them. */
import { once, setMaxListeners } from "node:events";
import { type ClientHttp2Session, connect as connectHttp2 } from "node:http2";
import { connect, type Socket } from "node:net";
import { afterEach, describe, expect, it } from "vitest";
import { type GenerateRequest, LlamaSteerClient } from "../../src/client/client.js";
import { FakeBinding } from "../support/fake-binding.js";
import { callAndBrokenFrame, floodOfResets, serializeRequest } from "../support/http2-frames.js";
import { collect, type ServerOptions, TestServer, until } from "../support/server.js";
import { TcpProxy } from "../support/tcp-proxy.js";

let server: TestServer;
afterEach(() => server.stop());

async function start(options: ServerOptions = {}): Promise<TestServer> {
  server = await TestServer.start(options);
  return server;
}

/** Where nothing is computed: calls wait until they are cancelled or the test lets them go. */
async function startHeld(...flags: string[]): Promise<FakeBinding> {
  const binding = new FakeBinding();
  binding.started = false;
  await start({ binding, flags: ["--max-waiting-requests", "5000", ...flags] });
  return binding;
}

const TOKENS = 200;
const LONG: GenerateRequest = {
  prompt: "the last and the first",
  sampling: { maxNewTokens: TOKENS, ignoreEos: true },
};

function connection(): Socket {
  const [host = "", port] = server.app.addresses.grpc.split(":");
  return connect(Number(port), host).on("error", () => {});
}

function anotherClient(address = server.app.addresses.grpc): LlamaSteerClient {
  return new LlamaSteerClient({ address });
}

async function tokensOf(client: LlamaSteerClient): Promise<number> {
  const events = await collect(client.generateStream(LONG));
  return events.reduce((sum, { delta }) => sum + (delta?.tokenIds.length ?? 0), 0);
}

/** Calls that are cancelled at the same moment. */
class Storm {
  private readonly abort = new AbortController();
  private readonly outcomes: Promise<PromiseSettledResult<unknown>[]>;

  constructor(client: LlamaSteerClient, calls: number) {
    const { signal } = this.abort;
    setMaxListeners(calls, signal);
    const begun = Array.from({ length: calls }, () => client.generate(LONG, { signal }));
    this.outcomes = Promise.allSettled(begun);
  }

  async cancel(): Promise<void> {
    this.abort.abort();
    for (const outcome of await this.outcomes) {
      expect(outcome).toMatchObject({ reason: { code: "CANCELLED" } });
    }
  }
}

describe("a client that cancels thousands of calls on one connection", () => {
  it("harms none of its other calls, one after the other", async () => {
    const binding = await startHeld();
    const { client } = server;
    const held = Array.from({ length: 8 }, () => tokensOf(client));
    await until(() => binding.running.size === 8);
    for (let round = 0; round < 30; round++) {
      const storm = new Storm(client, 50);
      await until(() => binding.running.size === 58);
      const beside = client.model.get();
      await storm.cancel();
      await beside;
      await until(() => binding.running.size === 8);
    }
    // 1500 cancels.
    expect(await server.metric("connections_retired_total")).toBeGreaterThan(1);
    binding.start();
    expect(await Promise.all(held)).toEqual(Array(8).fill(TOKENS));
    await until(async () => (await server.metric("connections")) === 1);
  });

  it("harms none of its other calls when it cancels all at the same moment", async () => {
    const binding = await startHeld();
    const { client } = server;
    const held = [tokensOf(client), tokensOf(client)];
    await until(() => binding.running.size === 2);
    const storm = new Storm(client, 2000);
    await until(() => binding.running.size === 2002);
    await storm.cancel();
    await until(() => binding.running.size === 2);
    binding.start();
    expect(await Promise.all(held)).toEqual([TOKENS, TOKENS]);
    expect(await tokensOf(client)).toBe(TOKENS);
  });
});

describe("a flood of resets", () => {
  it("that heeds no GOAWAY is read no further than its first few hundred calls", async () => {
    const binding = await startHeld();
    const flood = 20_000;
    const socket = connection();
    const ended = once(socket, "close");
    socket.resume();
    socket.write(floodOfResets("/llamasteer.v1.ModelService/GetModel", flood));
    await ended;
    const { body } = await server.http("/metrics");
    const lines = body.matchAll(/^llamasteer_requests_total\{method="[^"]*GetModel",.* (\d+)$/gm);
    const counted = [...lines].reduce((sum, [, calls]) => sum + Number(calls), 0);
    expect(counted).toBeGreaterThanOrEqual(500);
    // What one read from the socket holds may still come after the 500th.
    expect(counted).toBeLessThan(2000);
    binding.start();
    expect(await tokensOf(server.client)).toBe(TOKENS);
  });
});

describe("peers that go away", () => {
  it("in the middle of a stream, by a reset of TCP", async () => {
    const binding = await startHeld();
    const proxy = await TcpProxy.start(server.app.addresses.grpc);
    const through = anotherClient(proxy.address);
    const stream = through.generateStream(LONG);
    expect((await stream.next()).value).toHaveProperty("started");
    expect(binding.running.size).toBe(1);
    proxy.reset();
    await expect(collect(stream)).rejects.toMatchObject({ code: "UNAVAILABLE" });
    await until(() => binding.running.size === 0);
    through.close();
    await proxy.close();
  });

  it("without a word: the server's pings find out", async () => {
    const keepalive = ["--keepalive-seconds", "0.1", "--keepalive-timeout-seconds", "0.2"];
    const binding = await startHeld(...keepalive);
    const proxy = await TcpProxy.start(server.app.addresses.grpc);
    const through = anotherClient(proxy.address);
    const lost = collect(through.generateStream(LONG)).catch(({ code }) => code);
    const held = tokensOf(server.client);
    await until(() => binding.running.size === 2);
    proxy.freeze();
    await until(() => binding.running.size === 1);
    through.close();
    await proxy.close();
    await lost;
    binding.start();
    expect(await held).toBe(TOKENS);
  });
});

describe("a peer that breaks the protocol", () => {
  it("loses its connection and its calls; the others go on", async () => {
    const binding = await startHeld();
    const held = tokensOf(server.client);
    await until(() => binding.running.size === 1);
    const socket = connection();
    socket.resume();
    const request = serializeRequest("InferenceService/Generate", LONG);
    socket.write(callAndBrokenFrame("/llamasteer.v1.InferenceService/Generate", request));
    await until(() => binding.submitted.length === 2);
    await until(() => binding.running.size === 1);
    await until(async () => (await server.metric("connections")) === 1);
    binding.start();
    expect(await held).toBe(TOKENS);
    socket.destroy();
  });
});

describe("connections", () => {
  it("that are old are closed when their calls have ended, and others take their place", async () => {
    const binding = await startHeld("--max-connection-age-seconds", "1");
    const { client } = server;
    const held = tokensOf(client);
    await until(() => binding.running.size === 1);
    // The second one was opened after the first was told to end.
    await until(async () => {
      await client.model.get();
      return (await server.metric("connections")) === 2;
    });
    binding.start();
    expect(await held).toBe(TOKENS);
  });

  it("over the limit are closed at once; the others go on", async () => {
    await start({ flags: ["--max-connections", "3"] });
    const { client } = server;
    await client.model.get();
    const idle = [connection(), connection()];
    await until(async () => (await server.metric("connections")) === 3);
    const refused = connection();
    refused.resume();
    await once(refused, "close");
    expect(await server.metric("connections_refused_total")).toBe(1);
    expect(await tokensOf(client)).toBe(TOKENS);
    for (const socket of idle) socket.destroy();
    await until(async () => (await server.metric("connections")) === 1);
    const another = anotherClient();
    expect(await tokensOf(another)).toBe(TOKENS);
    another.close();
  });

  it("by the hundred are served side by side", async () => {
    await start();
    const sessions = Array.from({ length: 300 }, () =>
      connectHttp2(`http://${server.app.addresses.grpc}`),
    );
    await Promise.all(sessions.map(getModel));
    expect(await server.metric("connections")).toBe(300);
    for (const session of sessions) session.close();
    await until(async () => (await server.metric("connections")) === 0);
  });
});

/** GetModel with an empty message, by hand: clients of grpc-js share one connection. */
async function getModel(session: ClientHttp2Session): Promise<void> {
  const call = session.request({
    ":method": "POST",
    ":path": "/llamasteer.v1.ModelService/GetModel",
    "content-type": "application/grpc",
    te: "trailers",
  });
  call.end(Buffer.alloc(5)).resume();
  const [trailers] = await once(call, "trailers");
  expect(trailers).toMatchObject({ "grpc-status": "0" });
}
