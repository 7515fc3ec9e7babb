/**
 * Two replicas on one PostgreSQL, behind nginx and behind clients that balance by themselves: what is
 * written through one is there through the other, and replicas come and go under load. Longer runs:
 * node bench/replicas.mjs
 */
import { appendFileSync } from "node:fs";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { LlamaSteerClient } from "../../src/client/client.js";
import { Nginx } from "../support/nginx.js";
import { PostgresServer } from "../support/postgres.js";
import { type Replica, startReplicas } from "../support/replicas.js";
import { until } from "../support/server.js";
import { knownStreams, StreamLoad, streamRequests } from "../support/stream-load.js";
import { TcpProxy } from "../support/tcp-proxy.js";
import { randomRow } from "../support/vectors.js";

const ROUNDS = Number(process.env["LLAMA_STEER_SCALE_OUT_ROUNDS"] ?? 1);
const FIGURES = process.env["LLAMA_STEER_SCALE_OUT_FIGURES"];
const WORKERS = 8;
const TOKENS = 200;
const HIDDEN_SIZE = 256;
const VECTORS = 20;
/** Only notifications bring news: no test waits for a poll. */
const NO_POLL = ["--registry-poll-seconds", "3600"];
const timeout = 120_000 * ROUNDS;

let postgres: PostgresServer;
let a: Replica;
let b: Replica;
/** What a test has started, closed last to first. */
const owned: (() => unknown)[] = [];

beforeAll(async () => {
  postgres = await PostgresServer.start();
});
afterAll(() => postgres.dispose());
afterEach(async () => {
  for (let close = owned.pop(); close; close = owned.pop()) await close();
});

async function start(...options: string[]): Promise<void> {
  [a, b] = await startReplicas(postgres, ...options);
  owned.push(() => Promise.all([a.stop(), b.stop()]));
}

function clientAt(address: string, maxAttempts?: number): LlamaSteerClient {
  const client = new LlamaSteerClient({ address, ...(maxAttempts && { maxAttempts }) });
  owned.push(() => client.close());
  return client;
}

async function nginxClient(): Promise<LlamaSteerClient> {
  const nginx = await Nginx.start([a.address, b.address]);
  owned.push(() => nginx.stop());
  return clientAt(nginx.address);
}

const target = (...addresses: string[]) => `ipv4:${addresses.join(",")}`;

/** One worker a stream; the load ends with the test. */
async function loadOn(client: LlamaSteerClient): Promise<StreamLoad> {
  await client.waitForReady(30_000);
  const load = new StreamLoad(
    client,
    await knownStreams(a.client, streamRequests(WORKERS, TOKENS)),
  );
  owned.push(() => load.abandon());
  return load;
}

const requestsOf = (replica: Replica, method: string) =>
  replica.metric(`requests_total{method="llamasteer.v1.InferenceService/${method}",code="OK"}`);

/** Through `writer`, then at once through `reader`; the proof names the content that was written. */
async function writeAndUse(writer: LlamaSteerClient, reader: LlamaSteerClient, index: number) {
  const vectorId = `v${index}`;
  const rows = [{ layer: 3, data: randomRow(index + 1, 0.05, HIDDEN_SIZE) }];
  const { digest, revision } = await writer.vectors.create({ vectorId, rows });
  const answer = await reader.generate(
    {
      prompt: "The food was",
      steering: [{ vectorId }],
      sampling: { maxNewTokens: 2 },
      minRegistryRevision: revision,
    },
    { timeoutMs: 30_000 },
  );
  expect(answer.applied[0]?.digest).toBe(digest);
  expect(BigInt(answer.registryRevision)).toBeGreaterThanOrEqual(BigInt(revision));
}

function record(name: string, load: StreamLoad): void {
  if (FIGURES === undefined) return;
  const codes: Record<string, number> = {};
  for (const { code, accepted } of load.failures) {
    const key = `${code}${accepted ? ", accepted" : ""}`;
    codes[key] = (codes[key] ?? 0) + 1;
  }
  const { finished } = load;
  appendFileSync(FIGURES, `${JSON.stringify({ name, rounds: ROUNDS, finished, codes })}\n`);
}

/** No stream gave a wrong token, and whatever failed may be sent again. */
function expectHonest(load: StreamLoad): void {
  expect(load.wrong).toEqual([]);
  expect(load.failures.filter(({ code }) => code !== "UNAVAILABLE")).toEqual([]);
}

/** Each replica in turn goes by `leave` while it has streams in work, and comes back. */
async function comeAndGo(
  load: StreamLoad,
  leave: (replica: Replica) => Promise<void>,
): Promise<void> {
  for (let round = 0; round < ROUNDS; round += 1) {
    const replica = round % 2 === 0 ? a : b;
    // It has streams, and all that there are have been accepted.
    await until(async () => (await replica.isBusy()) && load.allUnderWay);
    await leave(replica);
    await replica.restart();
  }
}

const drain = async (replica: Replica) => expect(await replica.drain()).toBe(0);

describe("a vector that is written through one replica", () => {
  it("is usable through the other at once", async () => {
    await start(...NO_POLL);
    for (let index = 0; index < VECTORS; index += 1) {
      const [writer, reader] = index % 2 === 0 ? [a, b] : [b, a];
      await writeAndUse(writer.client, reader.client, index);
    }
  });

  it("is usable through nginx, whichever replica a call comes to", async () => {
    await start(...NO_POLL);
    const client = await nginxClient();
    for (let index = 0; index < VECTORS; index += 1) {
      await writeAndUse(client, client, index);
      // The third call of three: writes and uses change places.
      await client.model.get();
    }
    expect(await requestsOf(a, "Generate")).toBeGreaterThan(0);
    expect(await requestsOf(b, "Generate")).toBeGreaterThan(0);
  });
});

describe("behind nginx", () => {
  it("a killed replica costs errors that say to try again, and the same calls then succeed", {
    timeout,
  }, async () => {
    await start();
    const load = await loadOn(await nginxClient());
    await comeAndGo(load, (replica) => replica.kill());
    await load.stop();
    expectHonest(load);
    expect(load.lostStreams.length).toBeGreaterThan(0);
    record("nginx, SIGKILL", load);
  });

  it("a replica that drains loses no accepted stream", { timeout }, async () => {
    await start();
    const load = await loadOn(await nginxClient());
    await comeAndGo(load, drain);
    await load.stop();
    expectHonest(load);
    expect(load.lostStreams).toEqual([]);
    record("nginx, SIGTERM", load);
  });
});

describe("clients that balance by themselves", () => {
  it("spread their calls evenly", async () => {
    await start();
    const client = clientAt(target(a.address, b.address));
    await client.waitForReady(30_000);
    for (let index = 0; index < 20; index += 1) {
      await client.generate({ prompt: "a", sampling: { maxNewTokens: 1 } });
    }
    const shares = [await requestsOf(a, "Generate"), await requestsOf(b, "Generate")];
    expect(shares.reduce((sum, share) => sum + share)).toBe(20);
    expect(Math.min(...shares)).toBeGreaterThanOrEqual(9);
  });

  it("that try again themselves see nothing of a drain", { timeout }, async () => {
    await start();
    const load = await loadOn(clientAt(target(a.address, b.address), 5));
    await comeAndGo(load, drain);
    await load.stop();
    expect(load.wrong).toEqual([]);
    expect(load.failures).toEqual([]);
    record("round robin with retries, SIGTERM", load);
  });

  it("see of a killed replica only streams that had begun", { timeout }, async () => {
    await start();
    const load = await loadOn(clientAt(target(a.address, b.address), 5));
    await comeAndGo(load, (replica) => replica.kill());
    await load.stop();
    expectHonest(load);
    expect(load.lostStreams.length).toBeGreaterThan(0);
    expect(load.failures).toEqual(load.lostStreams);
    record("round robin with retries, SIGKILL", load);
  });

  it("lose no stream when connections age out", { timeout }, async () => {
    await start("--max-connection-age-seconds", "1");
    const proxies = [await TcpProxy.start(a.address), await TcpProxy.start(b.address)];
    owned.push(() => Promise.all(proxies.map((proxy) => proxy.close())));
    const all = target(...proxies.map(({ address }) => address));
    const plain = await loadOn(clientAt(all));
    const load = await loadOn(clientAt(all, 5));
    const aged = () => proxies.every((proxy) => proxy.connections > 2 + ROUNDS);
    while (!aged()) await new Promise((resolve) => setTimeout(resolve, 50));
    await plain.stop();
    await load.stop();
    // A call that crosses the goodbye of both is refused twice, which grpc-js leaves to the client.
    expectHonest(plain);
    expect(plain.lostStreams).toEqual([]);
    expect(load.wrong).toEqual([]);
    expect(load.failures).toEqual([]);
    // A stream went on over the old connection while others used the new one.
    expect(Math.max(...proxies.map(({ mostOpen }) => mostOpen))).toBeGreaterThan(1);
    record("round robin, connections of 1 s", load);
  });
});
