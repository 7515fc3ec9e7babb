/** Calls that meet a server which is away, and connections that break. */
import { readFileSync } from "node:fs";
import http2 from "node:http2";
import path from "node:path";
import { status } from "@grpc/grpc-js";
import { afterEach, describe, expect, it } from "vitest";
import { LlamaSteerClient } from "../../../src/client/client.js";
import { MAX_ATTEMPTS, serviceConfig } from "../../../src/client/service-config.js";
import { collect } from "../../support/server.js";
import { REPOSITORY } from "../../support/tiny-checkpoint.js";
import {
  type FakeServer,
  failure,
  type Streaming,
  startFakeServer,
  type Unary,
} from "./fake-server.js";

const owned: (() => void)[] = [];
afterEach(() => {
  for (const close of owned.splice(0)) close();
});

let calls = 0;

/** Answers after it was UNAVAILABLE once. */
const awayOnce: Unary = (_call, callback) => {
  calls += 1;
  if (calls > 1) callback(null, {});
  else callback(failure(status.UNAVAILABLE, "draining"));
};

/** Its stream breaks off after the first message. */
const breaksOff: Streaming = (call) => {
  calls += 1;
  call.write({ started: {} });
  call.emit("error", failure(status.UNAVAILABLE, "gone"));
};

async function start(maxAttempts?: number): Promise<LlamaSteerClient> {
  calls = 0;
  const server: FakeServer = await startFakeServer({
    InferenceService: { generate: awayOnce, generateStream: breaksOff },
    VectorService: { deleteVector: awayOnce },
  });
  return clientOf(server.address, () => server.stop(), maxAttempts);
}

function clientOf(address: string, stop: () => void, maxAttempts?: number): LlamaSteerClient {
  const client = new LlamaSteerClient({ address, ...(maxAttempts && { maxAttempts }) });
  owned.push(() => client.close(), stop);
  return client;
}

describe("a server that is UNAVAILABLE", () => {
  it("is asked once, unless more attempts are allowed", async () => {
    const refusal = { code: "UNAVAILABLE" };
    await expect((await start()).generate({ prompt: "a" })).rejects.toMatchObject(refusal);
    await (await start(2)).generate({ prompt: "a" });
    expect(calls).toBe(2);
  });

  it("is never asked again to remove something", async () => {
    const client = await start(MAX_ATTEMPTS);
    await expect(client.vectors.delete("a")).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(calls).toBe(1);
  });

  it("is not asked again for a stream that has begun", async () => {
    const client = await start(MAX_ATTEMPTS);
    const events = collect(client.generateStream({ prompt: "a" }));
    await expect(events).rejects.toMatchObject({ code: "UNAVAILABLE" });
    expect(calls).toBe(1);
  });
});

describe("a stream that a proxy cuts", () => {
  it("is UNAVAILABLE, not INTERNAL: it may be sent again", async () => {
    const server = http2.createServer();
    server.on("stream", (stream) => {
      stream.on("error", () => {});
      stream.respond({ ":status": 200, "content-type": "application/grpc" });
      stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR);
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    const port = typeof address === "object" ? address?.port : 0;
    const client = clientOf(`127.0.0.1:${port}`, () => server.close());
    await expect(client.generate({ prompt: "a" })).rejects.toMatchObject({
      code: "UNAVAILABLE",
      message: expect.stringContaining("the connection broke"),
    });
  });
});

it("the service config of the documents is the one in use", () => {
  const text = readFileSync(path.join(REPOSITORY, "docs/deployment.md"), "utf8");
  const json = /```json\n(\{\n\s+"loadBalancingConfig[^`]+)```/.exec(text)?.[1] ?? "";
  expect(JSON.parse(json)).toEqual(serviceConfig(MAX_ATTEMPTS));
});
