/** A peer that says goodbye and goes on ends its own connection, not the process (CVE-2026-27135). */
import { once } from "node:events";
import { connect } from "node:net";
import { expect, it } from "vitest";
import { LlamaSteerClient } from "../../src/client/client.js";
import { callAfterGoaway } from "../support/http2-frames.js";
import { startLiveServer } from "../support/live-server.js";

it("frames after a GOAWAY end their connection, and others are served", async () => {
  const server = await startLiveServer("--threads", "1");
  const client = new LlamaSteerClient({ address: server.grpc });
  const request = { prompt: "a", sampling: { maxNewTokens: 3, temperature: 0 } };
  const before = await client.generate(request);
  const [host = "", port] = server.grpc.split(":");
  for (let peer = 0; peer < 10; peer++) {
    const socket = connect(Number(port), host).on("error", () => {});
    const closed = once(socket, "close");
    socket.resume();
    socket.write(callAfterGoaway("/llamasteer.v1.ModelService/GetModel"));
    await closed;
  }
  expect((await client.generate(request)).completions).toEqual(before.completions);
  client.close();
  expect(await server.stop()).toBe(0);
});
