/** Traces: what a collector receives, and that calls do not depend on it. */
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { LlamaSteerClient } from "../../src/client/client.js";
import { FakeBinding } from "../support/fake-binding.js";
import { checkHealth } from "../support/health.js";
import { startLiveServerIn } from "../support/live-server.js";
import { OtlpReceiver, type ReceivedSpan } from "../support/otlp-receiver.js";
import { collect, type ServerOptions, TestServer, until } from "../support/server.js";
import { inlineVector } from "../support/vectors.js";

const SERVICE = "llamasteer.v1.InferenceService";
const PARENT = { trace: "4bf92f3577b34da6a3ce929d0e0e4736", span: "00f067aa0ba902b7" };
const traceparent = (flags: string) => `00-${PARENT.trace}-${PARENT.span}-${flags}`;
const PROMPT = "a secret that no trace may hold";
const SAMPLING = { maxNewTokens: 8, ignoreEos: true, temperature: 0 };

let receiver: OtlpReceiver;
let server: TestServer;
beforeEach(async () => {
  receiver = await OtlpReceiver.start();
});
afterEach(async () => {
  await server.stop();
  await receiver.stop();
});

async function start(flags: string[] = [], options: ServerOptions = {}): Promise<TestServer> {
  server = await TestServer.start({
    ...options,
    flags: ["--otlp-endpoint", receiver.url, ...flags],
  });
  return server;
}

function clientWith(headers: Record<string, string>): LlamaSteerClient {
  return new LlamaSteerClient({ address: server.app.addresses.grpc, headers });
}

/** What the server has sent when it is closed. */
const flush = () => server.app[Symbol.asyncDispose]();

function expectPhases(span: ReceivedSpan, names: string[]): void {
  const phases = receiver.children(span);
  expect(phases.map(({ name }) => name)).toEqual(names);
  for (const phase of phases) {
    expect(phase.kind).toBe(1);
    expect(phase.traceId).toBe(span.traceId);
    expect(phase.endNs).toBeGreaterThanOrEqual(phase.startNs);
    expect(phase.startNs).toBeGreaterThanOrEqual(span.startNs);
  }
}

const GENERATION = ["validate", "admission", "tokenize", "queue", "prefill", "decode"];

describe("a traced call", () => {
  it("continues the caller's trace, with its phases, and holds no text and no vector", async () => {
    await start();
    using client = clientWith({ traceparent: traceparent("01") });
    const before = BigInt(Date.now() - 1000) * 1_000_000n;
    const response = await client.generate({
      prompt: PROMPT,
      sampling: { ...SAMPLING, stop: ["unlikely words"] },
      steering: [inlineVector(1, [0.5])],
    });
    await flush();
    const span = receiver.span(`${SERVICE}/Generate`);
    expect(span).toMatchObject({
      traceId: PARENT.trace,
      parentSpanId: PARENT.span,
      kind: 2,
      status: 0,
      resource: { "service.name": "llama-steer" },
    });
    expect(span.startNs).toBeGreaterThan(before);
    expect(span.endNs).toBeLessThan(BigInt(Date.now() + 1000) * 1_000_000n);
    expect(span.attributes).toMatchObject({
      "rpc.system.name": "grpc",
      "rpc.method": `${SERVICE}/Generate`,
      "rpc.status_code": "OK",
      "rpc.grpc.status_code": 0,
      "gen_ai.operation.name": "text_completion",
      "gen_ai.request.model": "tiny",
      "gen_ai.request.max_tokens": 8,
      "gen_ai.request.temperature": 0,
      "gen_ai.response.finish_reasons": ["length"],
      "gen_ai.usage.input_tokens": response.usage?.promptTokens,
      "gen_ai.usage.output_tokens": 8,
      "llamasteer.request.steerings": 1,
    });
    expectPhases(span, GENERATION);
    for (const { endNs } of receiver.children(span)) expect(endNs).toBeLessThanOrEqual(span.endNs);
    const sent = Buffer.concat(receiver.bodies);
    const words = [PROMPT, "unlikely words", response.completions[0]?.text ?? ""];
    for (const word of words) expect(sent.includes(word)).toBe(false);
    expect(receiver.paths[0]).toBe("/v1/traces");
  });

  it("is a root without a caller's trace; streams, scores and captures have phases too", async () => {
    await start();
    const { client } = server;
    await collect(client.generateStream({ prompt: "a", sampling: SAMPLING }));
    await client.score({ prompt: "a", continuations: [{ text: "b" }, { text: "c" }] });
    const sites = ["SITE_RESID_POST" as const];
    await collect(client.captureActivations({ inputs: [{ prompt: "a" }], capture: { sites } }));
    await client.model.tokenize({ text: "a" });
    expect(await checkHealth(server.app.addresses.grpc, "")).toBe("SERVING");
    await flush();
    const roots = receiver.spans.filter(({ kind }) => kind === 2);
    expect(roots.map(({ parentSpanId }) => parentSpanId)).toEqual(["", "", "", ""]);
    expect(new Set(roots.map(({ traceId }) => traceId)).size).toBe(4);
    expectPhases(receiver.span(`${SERVICE}/GenerateStream`), GENERATION);
    const prefillOnly = ["validate", "admission", "tokenize", "engine"];
    expectPhases(receiver.span(`${SERVICE}/Score`), prefillOnly);
    expectPhases(receiver.span(`${SERVICE}/CaptureActivations`), prefillOnly);
    expectPhases(receiver.span("llamasteer.v1.ModelService/Tokenize"), []);
  });
});

describe("a call that fails", () => {
  it("through its caller is no error of the server; the phase it failed in is marked", async () => {
    await start();
    await server.client.generate({ prompt: "a", sampling: { topP: 7 } }).catch(() => {});
    await flush();
    const span = receiver.span(`${SERVICE}/Generate`);
    expect(span.status).toBe(0);
    expect(span.attributes).toMatchObject({
      "rpc.status_code": "INVALID_ARGUMENT",
      "rpc.grpc.status_code": 3,
      "llamasteer.error.reason": "INVALID_ARGUMENT",
    });
    expect(span.attributes).not.toHaveProperty("error.type");
    expect(receiver.children(span)).toMatchObject([{ name: "validate", status: 2 }]);
  });

  it("through the device is an error, without the text of the fault", async () => {
    const binding = new FakeBinding();
    binding.started = false;
    await start([], { binding });
    const failing = server.client.generate({ prompt: "a" }).catch(() => {});
    await until(() => binding.running.size === 1);
    binding.fail("device at 0xdeadbeef is lost");
    await failing;
    await flush();
    const span = receiver.span(`${SERVICE}/Generate`);
    expect(span.status).toBe(2);
    expect(span.attributes).toMatchObject({
      "rpc.status_code": "INTERNAL",
      "error.type": "INTERNAL",
    });
    expect(receiver.children(span).at(-1)?.status).toBe(2);
    expect(Buffer.concat(receiver.bodies).includes("deadbeef")).toBe(false);
  });

  it("because it was cancelled tells how far it came", async () => {
    const binding = new FakeBinding();
    binding.started = false;
    await start([], { binding });
    const abort = new AbortController();
    const { signal } = abort;
    const cancelled = server.client.generate({ prompt: "a" }, { signal }).catch(() => {});
    await until(() => binding.running.size === 1);
    abort.abort();
    await cancelled;
    await until(() => binding.running.size === 0);
    await flush();
    const span = receiver.span(`${SERVICE}/Generate`);
    expect(span.attributes).toMatchObject({ "rpc.status_code": "CANCELLED" });
    expect(span.status).toBe(0);
    const names = receiver.children(span).map(({ name }) => name);
    expect(names.slice(0, 4)).toEqual(["validate", "admission", "tokenize", "queue"]);
    expect(receiver.children(span).at(-1)?.status).toBe(2);
  });
});

describe("sampling", () => {
  it("follows the caller's trace, whatever the ratio", async () => {
    await start(["--trace-sample-ratio", "0"]);
    using traced = clientWith({ traceparent: traceparent("01") });
    using untraced = clientWith({ traceparent: traceparent("00") });
    await server.client.model.get();
    await untraced.model.get();
    await traced.model.get();
    await flush();
    expect(receiver.spans).toMatchObject([{ traceId: PARENT.trace }]);
  });

  it("takes a traceparent that is malformed for none", async () => {
    await start();
    using client = clientWith({ traceparent: "00-zz-1-01" });
    await client.model.get();
    await flush();
    expect(receiver.spans).toMatchObject([{ parentSpanId: "" }]);
  });
});

describe("a collector that is away", () => {
  it("costs spans and a line in the log, no call", async () => {
    await receiver.stop();
    await start(["--otlp-timeout-seconds", "0.2"]);
    for (let call = 0; call < 5; call++) {
      await server.client.generate({ prompt: "a", sampling: SAMPLING });
    }
    const isWarning = (line: string) => line.includes("traces do not reach the collector");
    await until(() => server.logLines.some(isWarning));
    await server.client.generate({ prompt: "a", sampling: SAMPLING });
    await flush();
    expect(server.logLines.filter(isWarning)).toHaveLength(1);
  });

  it("and takes requests without an answer does not keep the server from closing", async () => {
    await receiver.stop();
    receiver = await OtlpReceiver.start(false);
    await start(["--otlp-timeout-seconds", "3600"]);
    await server.client.model.get();
    await flush();
    expect(receiver.spans).toHaveLength(1);
  });
});

describe("a process", () => {
  /** URLs of all scripts that it loaded, from the coverage that Node writes at its end. */
  async function scriptsOf(...options: string[]): Promise<string[]> {
    const folder = mkdtempSync(path.join(tmpdir(), "llama-steer-scripts-"));
    try {
      const live = await startLiveServerIn({ NODE_V8_COVERAGE: folder }, ...options);
      using client = new LlamaSteerClient({ address: live.grpc });
      await client.model.get();
      expect(await live.stop()).toBe(0);
      return readdirSync(folder).flatMap((file) =>
        JSON.parse(readFileSync(path.join(folder, file), "utf8")).result.map(
          ({ url }: { url: string }) => url,
        ),
      );
    } finally {
      rmSync(folder, { recursive: true });
    }
  }
  const isTracing = (url: string) => /otlp-tracing|@opentelemetry\/(?!api\/)/.test(url);

  it("loads nothing for traces when they are off, and sends what it has when it drains", async () => {
    await start();
    expect((await scriptsOf()).filter(isTracing)).toEqual([]);
    expect(receiver.spans).toEqual([]);
    const scripts = await scriptsOf("--otlp-endpoint", receiver.url);
    expect(scripts.some(isTracing)).toBe(true);
    expect(receiver.span("llamasteer.v1.ModelService/GetModel").status).toBe(0);
  });
});
