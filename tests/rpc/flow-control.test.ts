/** One client takes a large capture at its own pace: memory stays bounded, other streams go on. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type CaptureActivationsRequest, LlamaSteerClient } from "../../src/client/client.js";
import { type LiveServer, startLiveServer } from "../support/live-server.js";
import { collect } from "../support/server.js";

const MIB = 1024 ** 2;
const STREAM_BYTES = 8 * MIB;
const INPUTS = 12;
const TOKENS = 1500;
const LAYERS = 8;
const HIDDEN_SIZE = 256;
/** Four sites of every layer and the final norm, float32. */
const TOTAL_BYTES = INPUTS * TOKENS * (4 * LAYERS + 1) * HIDDEN_SIZE * 4;
/** Beside the windows: heap that was not collected yet, buffers of the sockets. */
const SLACK_BYTES = 128 * MIB;

let live: LiveServer;
let client: LlamaSteerClient;
beforeAll(async () => {
  live = await startLiveServer(
    ...["--max-capture-stream-bytes", String(STREAM_BYTES)],
    ...["--kv-cache-bytes", String(64 * MIB)],
  );
  client = new LlamaSteerClient({ address: live.grpc });
}, 60_000);
afterAll(async () => {
  client.close();
  await live.stop();
});

const CAPTURE: CaptureActivationsRequest = {
  inputs: Array.from({ length: INPUTS }, (_, input) => ({
    tokens: { ids: Array.from({ length: TOKENS }, (_, at) => 3 + ((7 * input + 13 * at) % 2000)) },
  })),
  capture: {
    sites: [
      "SITE_RESID_PRE",
      "SITE_ATTN_OUT",
      "SITE_MLP_OUT",
      "SITE_RESID_POST",
      "SITE_FINAL_NORM",
    ],
  },
};

async function metric(name: string): Promise<number> {
  const response = await fetch(`http://${live.http}/metrics`);
  const line = (await response.text()).split("\n").find((text) => text.startsWith(`${name} `));
  return Number(line?.slice(line.lastIndexOf(" ")));
}
const residentBytes = () => metric("process_resident_memory_bytes");
const capturedBytes = () => metric("llamasteer_capture_bytes_total");

/** Eight streams to their ends; the text of each. */
async function eightStreams(): Promise<string[]> {
  const streams = Array.from({ length: 8 }, (_, index) =>
    collect(
      client.generateStream({
        prompt: `Human: Tell me about number ${index}.\n\nAssistant:`,
        sampling: { maxNewTokens: 40, temperature: 0, ignoreEos: true },
      }),
    ),
  );
  const events = await Promise.all(streams);
  return events.map((each) => each.map(({ delta }) => delta?.text ?? "").join(""));
}

/** Until nothing more is captured for a while. */
async function atRest(): Promise<number> {
  for (let before = -1; ; ) {
    const bytes = await capturedBytes();
    if (bytes === before) return bytes;
    before = bytes;
    await new Promise((resolve) => setTimeout(resolve, 300));
  }
}

describe("a slow reader of a large capture", () => {
  it("bounds what is computed and held, leaves others alone, and gets every byte", async () => {
    // Pages of the KV cache and of the engine's buffers are taken at their first use.
    const lasting = { ...CAPTURE.capture, tokens: { last: {} } };
    await collect(client.captureActivations({ ...CAPTURE, capture: lasting }));
    const { inputs: [first] = [] } = CAPTURE;
    await collect(client.captureActivations({ ...CAPTURE, inputs: first ? [first] : [] }));
    const alone = await eightStreams();
    const start = await residentBytes();
    let peak = start;
    const before = await capturedBytes();
    const events = client.captureActivations(CAPTURE);
    let received = 0;
    const take = async () => {
      const { value, done } = await events.next();
      received += value?.activations?.data.length ?? 0;
      peak = Math.max(peak, received % (8 * MIB) < MIB ? await residentBytes() : 0);
      return done ? null : value;
    };
    await take();
    // Nothing is taken: no more is computed than the window holds.
    const unread = await atRest();
    expect(unread - before).toBeLessThanOrEqual(received + STREAM_BYTES + 2 * MIB);
    expect(await metric("llamasteer_capture_reserved_bytes")).toBeLessThanOrEqual(STREAM_BYTES);
    expect(await eightStreams()).toEqual(alone);
    expect(await capturedBytes()).toBe(unread);
    peak = Math.max(peak, await residentBytes());
    // Taken at last, while others go on.
    const beside = eightStreams();
    let finished = false;
    for (let value = await take(); value; value = await take()) {
      if (value.finished) finished = true;
    }
    expect(finished).toBe(true);
    expect(await beside).toEqual(alone);
    expect(received).toBe(TOTAL_BYTES);
    expect(TOTAL_BYTES).toBeGreaterThan(3 * (STREAM_BYTES + SLACK_BYTES));
    expect(peak - start).toBeLessThan(STREAM_BYTES + SLACK_BYTES);
    expect(await metric("llamasteer_capture_reserved_bytes")).toBe(0);
  }, 240_000);
});
