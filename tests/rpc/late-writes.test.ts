/**
 * Calls that grpc-js ends by itself, at a deadline or for a message that is too large, while a handler
 * still writes to them: their clients get the status. On a process of its own: within this one,
 * client and server take turns and hardly ever meet so.
 */
import { once } from "node:events";
import { type ClientHttp2Session, type ClientHttp2Stream, connect } from "node:http2";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { grpcMessage, serializeRequest } from "../support/http2-frames.js";
import { type LiveServer, startLiveServer } from "../support/live-server.js";
import { sumOfMetric } from "../support/metrics.js";
import { until } from "../support/server.js";

const AT_ONCE = 4;
/** A message for every token and, all at once, for every block of a capture. */
const MANY_MESSAGES = {
  prompt: "Human: Hello",
  sampling: { maxNewTokens: 400, ignoreEos: true },
  capture: { sites: ["SITE_RESID_POST", "SITE_ATTN_OUT", "SITE_MLP_OUT"] },
};

let server: LiveServer;
let session: ClientHttp2Session;
beforeAll(async () => {
  server = await startLiveServer("--threads", "1");
  session = connect(`http://${server.grpc}`);
});
afterAll(async () => {
  session.destroy();
  expect(await server.stop()).toBe(0);
});

function begin(path: string, headers: Record<string, string>): ClientHttp2Stream {
  const fixed = { ":method": "POST", "content-type": "application/grpc", te: "trailers" };
  return session.request({ ":path": path, ...fixed, ...headers });
}

/** The status of its trailers, or of trailers only; "none" without one. */
async function statusOf(call: ClientHttp2Stream): Promise<string> {
  let status = "none";
  const take = (headers: Record<string, unknown>) => {
    status = String(headers["grpc-status"] ?? status);
  };
  call.on("response", take).on("trailers", take).resume();
  await once(call, "close");
  return status;
}

/** Every status that calls ended with; all of them must end. */
async function statusesOf(rounds: number, call: (index: number) => Promise<string>) {
  const statuses = new Set<string>();
  for (let round = 0; round < rounds; round++) {
    const calls = Array.from({ length: AT_ONCE }, (_, index) => call(round * AT_ONCE + index));
    for (const status of await Promise.all(calls)) statuses.add(status);
  }
  return [...statuses].sort();
}

async function runningRequests(): Promise<number> {
  const text = await (await fetch(`http://${server.http}/metrics`)).text();
  return sumOfMetric(text, "llamasteer_requests_running");
}

describe("a call that ends without its handler", () => {
  it("ends for its client when the deadline passes in the midst of messages", async () => {
    const message = grpcMessage(serializeRequest("InferenceService/GenerateStream", MANY_MESSAGES));
    const statuses = await statusesOf(30, (index) => {
      const timeout = { "grpc-timeout": `${5 + ((7 * index) % 31)}m` };
      const call = begin("/llamasteer.v1.InferenceService/GenerateStream", timeout);
      call.end(message);
      return statusOf(call);
    });
    // DEADLINE_EXCEEDED and nothing else.
    expect(statuses).toEqual(["4"]);
    await until(async () => (await runningRequests()) === 0);
  });

  it("ends for its client when a later message is too large", async () => {
    const empty = grpcMessage(Buffer.alloc(0));
    const tooLarge = Buffer.from("00ffffffff", "hex");
    const statuses = await statusesOf(100, (index) => {
      const call = begin("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", {});
      call.write(Buffer.concat([empty, empty, tooLarge.subarray(0, 2)]));
      setTimeout(() => call.end(tooLarge.subarray(2)), index % 5);
      return statusOf(call);
    });
    // RESOURCE_EXHAUSTED.
    expect(statuses).toEqual(["8"]);
  });
});
