/** A full queue refuses calls by their headers alone: nothing of the request is waited for or read. */
import http2 from "node:http2";
import { credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { createToken } from "../../src/cli/tokens.js";
import { LlamaSteerClient } from "../../src/client/client.js";
import { contract } from "../../src/client/contract.js";
import { FakeBinding } from "../support/fake-binding.js";
import { collect, TestServer, until } from "../support/server.js";
import { TemporaryFolder } from "../support/tiny-checkpoint.js";

const GENERATE = "/llamasteer.v1.InferenceService/Generate";
const SHORT = { prompt: "a", sampling: { maxNewTokens: 1 } };
const RETRIES = {
  name: [{}],
  retryPolicy: {
    maxAttempts: 3,
    initialBackoff: "0.01s",
    maxBackoff: "0.01s",
    backoffMultiplier: 1,
    retryableStatusCodes: ["RESOURCE_EXHAUSTED"],
  },
};
/** Above the calls that one connection may have open. */
const MANY_CALLS = 5000;

let folder: TemporaryFolder;
let binding: FakeBinding;
let server: TestServer;
let waiting: Promise<unknown>;
let token: string;
let otherToken: string;

/** The queue has room for one request, and one waits. */
beforeEach(async () => {
  folder = new TemporaryFolder();
  const tokens = folder.join("tokens.json");
  token = createToken("infer", ["infer"], tokens);
  otherToken = createToken("reader", ["vectors:read"], tokens);
  binding = new FakeBinding();
  binding.started = false;
  const flags = ["--max-waiting-requests", "1", "--tokens-file", tokens];
  server = await TestServer.start({ binding, flags });
  const client = clientOf(token);
  waiting = client.generate(SHORT).finally(() => client.close());
  await until(() => binding.running.size === 1);
});
afterEach(async () => {
  binding.start();
  await waiting;
  await server.stop();
  folder.remove();
});

function clientOf(bearer?: string): LlamaSteerClient {
  const address = server.app.addresses.grpc;
  return new LlamaSteerClient({ address, ...(bearer && { token: bearer }) });
}

/** A call of which the headers are sent and no more, and the trailers that come for them. */
async function headersOnly(session: http2.ClientHttp2Session) {
  const stream = session.request(
    {
      ":method": "POST",
      ":path": GENERATE,
      "content-type": "application/grpc",
      te: "trailers",
      authorization: `Bearer ${token}`,
    },
    { endStream: false },
  );
  const closed = new Promise((resolve) => stream.once("close", resolve));
  const trailers = await new Promise<http2.IncomingHttpHeaders>((resolve, reject) => {
    stream.once("response", resolve);
    stream.once("error", reject);
  });
  expect(trailers["grpc-status"]).toBe(String(status.RESOURCE_EXHAUSTED));
  stream.resume();
  return { stream, closed };
}

describe("a full queue", () => {
  it("refuses every call that would enter it, with its delay in both places", async () => {
    using client = clientOf(token);
    const calls = [
      client.generate(SHORT, { timeoutMs: 20_000 }),
      client.generate({ prompt: "" }),
      collect(client.generateStream(SHORT)),
      client.score({ prompt: "a", continuations: [{ text: "b" }] }),
    ];
    for (const outcome of await Promise.allSettled(calls)) {
      expect(outcome).toMatchObject({
        status: "rejected",
        reason: {
          code: "RESOURCE_EXHAUSTED",
          reason: "QUEUE_FULL",
          message: "1 requests wait; the limit is 1",
        },
      });
      const { reason } = outcome as PromiseRejectedResult;
      const [pushback] = reason.cause.metadata.get("grpc-retry-pushback-ms");
      expect(reason.retryDelayMs).toBeGreaterThan(0);
      expect(Number(pushback)).toBe(reason.retryDelayMs);
    }
    expect(await server.metric('admission_rejections_total{reason="queue"}')).toBe(4);
    const counted = 'requests_total{method="llamasteer.v1.InferenceService/Generate",code=';
    expect(await server.metric(`${counted}"RESOURCE_EXHAUSTED"}`)).toBe(2);
  });

  it("goes on serving calls that need no place in it", async () => {
    using client = clientOf(token);
    expect((await client.model.get()).name).toBe("tiny");
  });

  it("tells callers without a token, or without the role, no more than otherwise", async () => {
    using stranger = clientOf();
    await expect(stranger.generate(SHORT)).rejects.toMatchObject({ code: "UNAUTHENTICATED" });
    using reader = clientOf(otherToken);
    await expect(reader.generate(SHORT)).rejects.toMatchObject({ code: "PERMISSION_DENIED" });
    expect(await server.metric('admission_rejections_total{reason="queue"}')).toBe(0);
  });

  describe("and calls of which the headers have come only", () => {
    let session: http2.ClientHttp2Session;
    beforeEach(() => {
      session = http2.connect(`http://${server.app.addresses.grpc}`);
    });
    afterEach(() => session.destroy());

    it("keeps nothing of them", async () => {
      for (let done = 0; done < MANY_CALLS; done += 100) {
        const calls = await Promise.all(Array.from({ length: 100 }, () => headersOnly(session)));
        for (const { stream } of calls) stream.end();
        await Promise.all(calls.map(({ closed }) => closed));
      }
      expect(await server.metric("connections_retired_total")).toBe(0);
      binding.start();
      using client = clientOf(token);
      await client.generate(SHORT);
    });

    it("ends those that their clients do not end", async () => {
      const { stream, closed } = await headersOnly(session);
      await closed;
      expect(stream.rstCode).toBe(http2.constants.NGHTTP2_NO_ERROR);
    });
  });

  it("is something that a client's own retries come through, at the time that they are told", async () => {
    const call = new contract.InferenceService(
      server.app.addresses.grpc,
      credentials.createInsecure(),
      { "grpc.service_config": JSON.stringify({ methodConfig: [RETRIES] }) },
    );
    const metadata = new Metadata();
    metadata.set("authorization", `Bearer ${token}`);
    const answer = new Promise((resolve, reject) => {
      const done = (error: ServiceError | null, response: unknown) =>
        error ? reject(error) : resolve(response);
      call.generate(SHORT, metadata, { deadline: Date.now() + 20_000 }, done);
    });
    const refusals = () => server.metric('admission_rejections_total{reason="queue"}');
    await until(async () => (await refusals()) === 1);
    // By their own back-off all attempts would be over before there is room.
    await new Promise((resolve) => setTimeout(resolve, 200));
    binding.start();
    expect(await answer).toMatchObject({ completions: [{}] });
    expect(await refusals()).toBe(1);
    call.close();
  });
});
