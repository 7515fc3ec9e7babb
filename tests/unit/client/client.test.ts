import { setTimeout as sleep } from "node:timers/promises";
import { status } from "@grpc/grpc-js";
import { afterEach, describe, expect, test } from "vitest";
import { ClientError, LlamaSteerClient } from "../../../src/client/client.js";
import {
  type FakeServer,
  failure,
  type Handlers,
  type Streaming,
  startFakeServer,
  type Unary,
} from "./fake-server.js";

/** Recorded with googleapis-common-protos (Python): google.rpc.Status of each kind of detail. */
const RECORDED = {
  badRequest:
    "CAMSA2JhZBp1Cil0eXBlLmdvb2dsZWFwaXMuY29tL2dvb2dsZS5ycGMuQmFkUmVxdWVzdBJICiEKF3N0ZWVyaW5nWzBdLmNvZWZmaWNpZW50EgZpcyBOYU4KIwoOc2FtcGxpbmcudG9wX3ASEW11c3QgYmUgaW4gKDAsIDFdGlIKKHR5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnJwYy5FcnJvckluZm8SJgoQSU5WQUxJRF9BUkdVTUVOVBIKbGxhbWFzdGVlchoGCgFrEgF2",
  retry:
    "CAgSBGZ1bGwaNQoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIJCgcIARCA5Zp3GkQKKHR5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnJwYy5FcnJvckluZm8SGAoKUVVFVUVfRlVMTBIKbGxhbWFzdGVlchovCiN0eXBlLmdvb2dsZWFwaXMuY29tL2dvb2dsZS5ycGMuSGVscBIICgYKAXgSAXk=",
  resource:
    "CAUSBG5vbmUaRQordHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJlc291cmNlSW5mbxIWCgZ2ZWN0b3ISCXNlbnRpbWVudCIBZA==",
};

let server: FakeServer;
let client: LlamaSteerClient;
afterEach(() => {
  client.close();
  server.stop();
});

async function start(
  handlers: Handlers,
  options: ConstructorParameters<typeof LlamaSteerClient>[0] = {},
): Promise<void> {
  server = await startFakeServer(handlers);
  client = new LlamaSteerClient({ ...options, address: server.address });
}

const unary = (handler: Unary) => handler as never;
const streaming = (handler: Streaming) => handler as never;

async function errorOf(promise: Promise<unknown>): Promise<ClientError> {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  );
  if (!(error instanceof ClientError)) throw new Error(`no ClientError but ${error}`);
  return error;
}

describe("unary calls", () => {
  test("send the request and the token, and give the response", async () => {
    let sent: unknown;
    const generate = unary(({ request, metadata }, callback) => {
      sent = [request["prompt"], request["input"], metadata.get("authorization")];
      callback(null, { completions: [{ text: "out" }], seed: "18446744073709551615" });
    });
    await start({ InferenceService: { generate } }, { token: "secret" });
    const response = await client.generate({ prompt: "in" });
    expect(sent).toEqual(["in", "prompt", ["Bearer secret"]]);
    expect(response.completions[0]?.text).toBe("out");
    expect(response.seed).toBe("18446744073709551615");
  });

  test.each([
    [
      status.INVALID_ARGUMENT,
      RECORDED.badRequest,
      {
        code: "INVALID_ARGUMENT",
        reason: "INVALID_ARGUMENT",
        violations: [
          { field: "steering[0].coefficient", description: "is NaN" },
          { field: "sampling.top_p", description: "must be in (0, 1]" },
        ],
      },
    ],
    [
      status.RESOURCE_EXHAUSTED,
      RECORDED.retry,
      { code: "RESOURCE_EXHAUSTED", retryDelayMs: 1250, reason: "QUEUE_FULL", violations: [] },
    ],
    [
      status.NOT_FOUND,
      RECORDED.resource,
      { code: "NOT_FOUND", resource: { type: "vector", name: "sentiment" } },
    ],
    [status.INTERNAL, Buffer.from("junk").toString("base64"), { code: "INTERNAL", violations: [] }],
    [status.INTERNAL, undefined, { code: "INTERNAL", violations: [], retryDelayMs: undefined }],
  ])("code %i comes with its details", async (code, details, expected) => {
    const getVector = unary((_call, callback) => callback(failure(code, "the text", details)));
    await start({ VectorService: { getVector } });
    const error = await errorOf(client.vectors.get("x"));
    expect(error).toMatchObject({ ...expected, message: "the text" });
  });

  test("a deadline that passes is DEADLINE_EXCEEDED, and the server sees it", async () => {
    let cancelled = false;
    const getModel = ((call: { on(event: "cancelled", listener: () => void): void }) => {
      call.on("cancelled", () => {
        cancelled = true;
      });
    }) as never;
    await start({ ModelService: { getModel } });
    const error = await errorOf(client.model.get({ timeoutMs: 50 }));
    expect(error.code).toBe("DEADLINE_EXCEEDED");
    await until(() => cancelled);
  });

  test("an abort cancels; one before the call sends nothing", async () => {
    let calls = 0;
    const getModel = unary(() => {
      calls++;
    });
    await start({ ModelService: { getModel } });
    const abort = new AbortController();
    const pending = errorOf(client.model.get({ signal: abort.signal }));
    await until(() => calls === 1);
    abort.abort();
    expect((await pending).code).toBe("CANCELLED");
    expect((await errorOf(client.model.get({ signal: abort.signal }))).code).toBe("CANCELLED");
    expect(calls).toBe(1);
  });
});

describe("streams", () => {
  const deltas = (count: number) =>
    Array.from({ length: count }, (_, i) => ({ delta: { text: `${i}` } }));

  test("give every message in order", async () => {
    const generateStream = streaming((call) => {
      for (const message of deltas(5)) call.write(message);
      call.end();
    });
    await start({ InferenceService: { generateStream } });
    const texts: (string | undefined)[] = [];
    for await (const { event, delta } of client.generateStream({ prompt: "x" })) {
      expect(event).toBe("delta");
      texts.push(delta?.text);
    }
    expect(texts).toEqual(["0", "1", "2", "3", "4"]);
  });

  test("an error comes after every message that was sent before it", async () => {
    const generateStream = streaming((call) => {
      for (const message of deltas(20)) call.write(message);
      call.emit("error", failure(status.RESOURCE_EXHAUSTED, "full", RECORDED.retry));
    });
    await start({ InferenceService: { generateStream } });
    let seen = 0;
    const read = async () => {
      for await (const _ of client.generateStream({ prompt: "x" })) seen++;
    };
    const error = await errorOf(read());
    expect(error).toMatchObject({ code: "RESOURCE_EXHAUSTED", retryDelayMs: 1250 });
    expect(seen).toBe(20);
  });

  test("leaving the loop cancels the call", async () => {
    let cancelled = false;
    const generateStream = streaming((call) => {
      call.on("cancelled", () => {
        cancelled = true;
      });
      call.write({ delta: { text: "a" } });
    });
    await start({ InferenceService: { generateStream } });
    for await (const _ of client.generateStream({ prompt: "x" })) break;
    await until(() => cancelled);
  });

  test("an abort ends a stream that waits", async () => {
    const captureActivations = streaming((call) => {
      call.write({ activations: { layer: 3 } });
    });
    await start({ InferenceService: { captureActivations } });
    const abort = new AbortController();
    const read = async () => {
      const messages = client.captureActivations({ inputs: [] }, { signal: abort.signal });
      for await (const { activations } of messages) {
        expect(activations?.layer).toBe(3);
        setTimeout(() => abort.abort(), 10);
      }
    };
    expect((await errorOf(read())).code).toBe("CANCELLED");
  });

  test("a slow reader holds the server back", async () => {
    let written = 0;
    let blocked = false;
    const captureActivations = streaming((call) => {
      const chunk = { activations: { data: Buffer.alloc(64 * 1024) } };
      const writeOn = () => {
        while (written < 1000) {
          written++;
          if (!call.write(chunk)) {
            blocked = true;
            call.once("drain", writeOn);
            return;
          }
        }
        call.end();
      };
      writeOn();
    });
    await start({ InferenceService: { captureActivations } });
    const stream = client.captureActivations({ inputs: [] });
    await stream.next();
    await sleep(200);
    expect(blocked).toBe(true);
    expect(written).toBeLessThan(500);
    let received = 1;
    for await (const _ of stream) received++;
    expect(received).toBe(1000);
  });
});

describe("vectors", () => {
  test("a list follows the pages and repeats the filter", async () => {
    const asked: unknown[] = [];
    const listVectors = unary(({ request }, callback) => {
      asked.push([request["pageToken"], request["filter"]]);
      const page = Number(request["pageToken"] || 0);
      const vectors = [{ vectorId: `v${page}` }];
      callback(null, { vectors, nextPageToken: page < 2 ? String(page + 1) : "" });
    });
    await start({ VectorService: { listVectors } });
    const ids: string[] = [];
    for await (const { vectorId } of client.vectors.list({ kind: "a" })) ids.push(vectorId);
    expect(ids).toEqual(["v0", "v1", "v2"]);
    expect(asked).toEqual([
      ["", { kind: "a" }],
      ["1", { kind: "a" }],
      ["2", { kind: "a" }],
    ]);
  });
});

describe("waiting until the server is ready", () => {
  test("ends when health says SERVING", async () => {
    await start({});
    server.setHealth("NOT_SERVING");
    setTimeout(() => server.setHealth("SERVING"), 100);
    const begin = performance.now();
    await client.waitForReady(5000);
    expect(performance.now() - begin).toBeGreaterThan(90);
  });

  test("fails in time when it never does, or when there is no server", async () => {
    await start({});
    server.setHealth("NOT_SERVING");
    expect((await errorOf(client.waitForReady(150))).code).toMatch(/UNAVAILABLE|DEADLINE_EXCEEDED/);
    const nobody = new LlamaSteerClient({ address: "127.0.0.1:1" });
    expect((await errorOf(nobody.waitForReady(150))).message).toBe("no server at 127.0.0.1:1");
    nobody.close();
  });
});

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(5);
}
