/** Wrong uses of gates, texts to wait for, probes, adapters, the lens and captures while generating. */
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type {
  CaptureActivationsRequest,
  CaptureSpec,
  GenerateRequest,
  ProbeUse,
  ScoreRequest,
  Steering,
} from "../../src/client/client.js";
import { expectRefusalOf, invalid, type Refusal } from "../support/refusals.js";
import { collect, TestServer } from "../support/server.js";
import { TemporaryFolder, TINY } from "../support/tiny-checkpoint.js";
import { inlineVector, randomRow, rowBytes } from "../support/vectors.js";

const adapterDir = new TemporaryFolder();
let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start({
    flags: ["--adapter-dir", adapterDir.path, "--max-after-text-bytes", "100"],
  });
  const rows = [0, 1, 2].map((layer) => ({ layer, data: randomRow(layer) }));
  await server.client.vectors.create({ vectorId: "all", rows });
  await server.client.vectors.create({ vectorId: "last", rows: rows.slice(2) });
  const zeros = rowBytes(new Float32Array(TINY.hiddenSize));
  await server.client.vectors.create({
    vectorId: "half-zeros",
    rows: [{ layer: 0, data: zeros }, ...rows.slice(1)],
  });
});
afterAll(async () => {
  await server.stop();
  adapterDir.remove();
});

const expectRefusal = (call: Promise<unknown>, refusal: Refusal) =>
  expectRefusalOf(server, call, refusal);

const notFound = (type: string, name: string): Refusal => ({
  code: "NOT_FOUND",
  resource: { type, name },
});
// Numbers that the generated types do not allow, but the wire does.
const unknown = <T>(value: number) => value as unknown as T;

const ok: GenerateRequest = { prompt: "hello", sampling: { maxNewTokens: 4 } };
const steering = (fields: Steering): GenerateRequest => ({ ...ok, steering: [fields] });
type Gate = NonNullable<Steering["gate"]>;
const gate = (fields: Gate, more: Steering = {}): GenerateRequest =>
  steering({ vectorId: "all", ...more, gate: { vectorId: "all", layer: 0, ...fields } });
const probe = (fields: ProbeUse): GenerateRequest => ({ ...ok, probes: [fields] });

const generate: [name: string, request: GenerateRequest, refusal: Refusal][] = [
  ["a gate without a vector", gate({ vectorId: "" }), invalid("steering[0].gate.vector_id")],
  ["a gate with an unknown vector", gate({ vectorId: "nope" }), notFound("vector", "nope")],
  ["a gate with a path", gate({ vectorId: "../all" }), invalid("steering[0].gate.vector_id")],
  [
    "a gate with a pin of other content",
    gate({ vectorId: "all@sha256:000000000000" }),
    notFound("vector", "all@sha256:000000000000"),
  ],
  ["a gate outside the model", gate({ layer: 3 }), invalid("steering[0].gate.layer", "3 blocks")],
  [
    "a gate on a layer that its vector does not hold",
    gate({ vectorId: "last", layer: 1 }, { layers: [2] }),
    invalid("steering[0].gate.layer"),
  ],
  [
    "a gate on a row of zeros",
    gate({ vectorId: "half-zeros", layer: 0 }),
    invalid("steering[0].gate.layer", "zeros"),
  ],
  [
    "a block before the gate's",
    gate({ layer: 1 }, { layers: [0, 2] }),
    invalid("steering[0].layers", "block 0"),
  ],
  [
    "all blocks of a vector, some before the gate's",
    gate({ layer: 2 }),
    invalid("steering[0].layers"),
  ],
  ["a threshold of NaN", gate({ threshold: Number.NaN }), invalid("steering[0].gate.threshold")],
  ["an infinite threshold", gate({ threshold: -Infinity }), invalid("steering[0].gate.threshold")],
  ["an unknown metric", gate({ metric: unknown(9) }), invalid("steering[0].gate.metric", "9")],
  [
    "an unknown comparator",
    gate({ comparator: unknown(7) }),
    invalid("steering[0].gate.comparator"),
  ],
  ["an unknown scope", gate({ scope: unknown(-1) }), invalid("steering[0].gate.scope")],
  [
    "an empty text to wait for",
    steering({ vectorId: "all", positions: { afterText: "" } }),
    invalid("steering[0].positions.after_text", "empty"),
  ],
  [
    "a long text to wait for",
    steering({ vectorId: "all", positions: { afterText: "ü".repeat(51) } }),
    invalid("steering[0].positions.after_text", "102 bytes"),
  ],
  [
    "a range that no token reaches, whatever the text",
    steering({ vectorId: "all", positions: { range: { start: 400 }, afterText: "x" } }),
    invalid("steering[0].positions"),
  ],
  [
    "PROJECT_OUT of the row of zeros among others",
    steering({ vectorId: "half-zeros", operation: "OPERATION_PROJECT_OUT" }),
    invalid("steering[0]", "block 0"),
  ],

  ["an unknown probe", probe({ probeId: "nope" }), notFound("probe", "nope")],
  ["a probe without an id", probe({}), invalid("probes[0].probe_id")],
  ["a probe with a path", probe({ probeId: "../../x" }), invalid("probes[0].probe_id")],
  ["a vector as a probe", probe({ probeId: "all" }), notFound("probe", "all")],
  ["an unknown read", probe({ probeId: "p", read: unknown(44) }), invalid("probes[0].read", "44")],
  [
    "a read after no text",
    probe({ probeId: "p", read: "READ_AFTER_TEXT" }),
    invalid("probes[0].text", "empty"),
  ],
  [
    "a read after a long text",
    probe({ probeId: "p", read: "READ_AFTER_TEXT", text: "x".repeat(101) }),
    invalid("probes[0].text", "100"),
  ],
  [
    "a text for a read that waits for none",
    probe({ probeId: "p", read: "READ_PROMPT_LAST", text: "x" }),
    invalid("probes[0].text", "READ_AFTER_TEXT"),
  ],
  ["too many probes", { ...ok, probes: Array(17).fill({ probeId: "p" }) }, invalid("probes", "16")],

  ["an unknown adapter", { ...ok, adapterId: "nope" }, notFound("adapter", "nope")],
  ["an adapter's path", { ...ok, adapterId: "/etc/passwd" }, invalid("adapter_id")],
  ["an adapter's folder", { ...ok, adapterId: ".." }, invalid("adapter_id")],
  ["an adapter with a long id", { ...ok, adapterId: "a".repeat(64) }, invalid("adapter_id")],
  [
    "a capture, for the answer is one message",
    { ...ok, capture: { sites: ["SITE_RESID_POST"] } },
    invalid("capture", "GenerateStream"),
  ],
];

describe("Generate refuses", () => {
  it.each(generate)("%s", async (_name, request, refusal) => {
    await expectRefusal(server.client.generate(request), refusal);
  });

  it("wrong parts of several features at once, naming each", async () => {
    const call = server.client.generate({
      ...gate({ layer: 9, threshold: Number.NaN }),
      probes: [{ probeId: "p", read: "READ_AFTER_TEXT" }],
    });
    await expect(call).rejects.toMatchObject({
      violations: [
        { field: "steering[0].gate.layer" },
        { field: "steering[0].gate.threshold" },
        { field: "probes[0].text" },
      ],
    });
  });
});

const sites = ["SITE_RESID_POST" as const];
const captures: [name: string, capture: CaptureSpec, refusal: Refusal][] = [
  ["no sites", {}, invalid("capture.sites")],
  ["a lens over the limit", { sites, lensTopK: 21 }, invalid("capture.lens_top_k", "20")],
  [
    "a lens of a mean",
    { sites, lensTopK: 2, tokens: { mean: true } },
    invalid("capture.lens_top_k", "mean"),
  ],
  [
    "an empty text to wait for",
    { sites, tokens: { afterText: "" } },
    invalid("capture.tokens.after_text", "empty"),
  ],
  [
    "a long text to wait for",
    { sites, tokens: { afterText: "x".repeat(101) } },
    invalid("capture.tokens.after_text"),
  ],
  [
    "a range that no token reaches",
    { sites, tokens: { range: { start: 400 } } },
    invalid("capture.tokens"),
  ],
];

describe("GenerateStream refuses to capture", () => {
  it.each(captures)("%s", async (_name, capture, refusal) => {
    await expectRefusal(collect(server.client.generateStream({ ...ok, capture })), refusal);
  });

  it("several completions", async () => {
    const request = { ...ok, sampling: { maxNewTokens: 2, n: 2 }, capture: { sites } };
    await expectRefusal(collect(server.client.generateStream(request)), invalid("sampling.n"));
  });
});

const inputs = [{ prompt: "there are many words" }];
const activations: [name: string, request: CaptureActivationsRequest, refusal: Refusal][] = [
  [
    "several completions of an input",
    { inputs, capture: { sites }, sampling: { n: 3 } },
    invalid("sampling.n"),
  ],
  [
    "bad sampling numbers",
    { inputs, capture: { sites }, sampling: { temperature: Number.NaN } },
    invalid("sampling.temperature"),
  ],
  [
    "more new tokens than the context holds",
    { inputs, capture: { sites }, sampling: { maxNewTokens: 512 } },
    invalid("sampling.max_new_tokens", "512"),
  ],
  [
    "a text that does not appear",
    { inputs, capture: { sites, tokens: { afterText: "zebra" } } },
    invalid("capture.tokens.after_text", "inputs[0].prompt"),
  ],
  [
    "a text with nothing behind it",
    { inputs, capture: { sites, tokens: { afterText: "words" } } },
    invalid("capture.tokens.after_text", "no token"),
  ],
  [
    "a text that one of the inputs lacks",
    {
      inputs: [...inputs, { prompt: "nothing" }],
      capture: { sites, tokens: { afterText: "many" } },
    },
    invalid("capture.tokens.after_text", "inputs[1].prompt"),
  ],
  [
    "a steering that waits for a text that does not appear",
    {
      inputs,
      capture: { sites },
      steering: [{ ...inlineVector(1, [1]), positions: { afterText: "zebra" } }],
    },
    invalid("steering[0].positions.after_text", "inputs[0].prompt"),
  ],
  ["an unknown adapter", { inputs, capture: { sites }, adapterId: "x" }, notFound("adapter", "x")],
];

describe("CaptureActivations refuses", () => {
  it.each(activations)("%s", async (_name, request, refusal) => {
    await expectRefusal(collect(server.client.captureActivations(request)), refusal);
  });
});

const scoring: ScoreRequest = { prompt: "there are many", continuations: [{ text: " words" }] };
const scores: [name: string, request: ScoreRequest, refusal: Refusal][] = [
  ["an unknown adapter", { ...scoring, adapterId: "x" }, notFound("adapter", "x")],
  [
    "a text that does not appear",
    { ...scoring, steering: [{ vectorId: "all", positions: { afterText: "zebra" } }] },
    invalid("steering[0].positions.after_text", "continuations[0]"),
  ],
  [
    "a text that one of the continuations lacks",
    {
      ...scoring,
      continuations: [{ text: " words here" }, { text: " others" }],
      steering: [{ vectorId: "all", positions: { afterText: "words" } }],
    },
    invalid("steering[0].positions.after_text", "continuations[1]"),
  ],
  [
    "a text that ends where the positions end",
    {
      ...scoring,
      steering: [{ vectorId: "all", positions: { range: { end: 2 }, afterText: "many" } }],
    },
    invalid("steering[0].positions.after_text", "no token"),
  ],
  [
    "a gate behind a steered block",
    {
      ...scoring,
      steering: [{ vectorId: "all", gate: { vectorId: "all", layer: 1 } }],
    },
    invalid("steering[0].layers"),
  ],
];

describe("Score refuses", () => {
  it.each(scores)("%s", async (_name, request, refusal) => {
    await expectRefusal(server.client.score(request), refusal);
  });
});

describe("LoadAdapter refuses", () => {
  const load = (adapterId: string) => server.client.model.loadAdapter(adapterId);

  it.each(["", "..", "../x", "/etc", "a/b", "a\\b", "A", ".hidden", "a\0b", "x".repeat(64)])(
    "%j as an id",
    async (id) => {
      await expectRefusal(load(id), invalid("adapter_id"));
    },
  );

  it("a folder that does not exist", async () => {
    await expectRefusal(load("nope"), notFound("adapter", "nope"));
  });

  it("a link out of the operator's folder", async () => {
    symlinkSync("/etc", adapterDir.join("etc"));
    await expectRefusal(load("etc"), notFound("adapter", "etc"));
  });

  it("a folder that is no adapter, without naming the server's folders", async () => {
    mkdirSync(adapterDir.join("empty"));
    const refusal: Refusal = { code: "FAILED_PRECONDITION", text: "empty" };
    await expectRefusal(load("empty"), refusal);
    mkdirSync(adapterDir.join("broken"));
    writeFileSync(adapterDir.join("broken", "adapter_config.json"), "{");
    const error = await load("broken").catch((reason) => reason);
    expect(error).toMatchObject({ code: "FAILED_PRECONDITION", reason: "ADAPTER_REFUSED" });
    expect(error.message).not.toContain(adapterDir.path);
  });

  it("to unload what is not loaded", async () => {
    await expectRefusal(server.client.model.unloadAdapter("nope"), notFound("adapter", "nope"));
    await expectRefusal(server.client.model.unloadAdapter("../x"), invalid("adapter_id"));
  });

  it("everything while the operator set no folder aside", async () => {
    const closed = await TestServer.start();
    const refusal = { code: "FAILED_PRECONDITION", reason: "ADAPTER_LOADING_OFF" };
    await expect(closed.client.model.loadAdapter("x")).rejects.toMatchObject(refusal);
    await expect(closed.client.model.unloadAdapter("x")).rejects.toMatchObject(refusal);
    expect((await closed.client.model.get()).adapterLoadingEnabled).toBe(false);
    await closed.stop();
  });
});

describe("capture switched off", () => {
  it("is FAILED_PRECONDITION in GenerateStream too, which goes on without it", async () => {
    const closed = await TestServer.start({ flags: ["--capture", "off"] });
    const call = collect(closed.client.generateStream({ ...ok, capture: { sites } }));
    await expect(call).rejects.toMatchObject({
      code: "FAILED_PRECONDITION",
      reason: "CAPTURE_OFF",
    });
    expect((await collect(closed.client.generateStream(ok))).at(-1)?.event).toBe("finished");
    await closed.stop();
  });
});

describe("room for captures", () => {
  it("too small for one token's rows is INVALID_ARGUMENT with both numbers", async () => {
    // Three rows of 64 float32 values.
    const small = await TestServer.start({
      flags: ["--max-capture-stream-bytes", "767", "--max-capture-buffer-bytes", "767"],
    });
    const call = collect(small.client.captureActivations({ inputs, capture: { sites } }));
    await expect(call).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      violations: [{ field: "capture" }],
      message: expect.stringMatching(/768 bytes.*767/),
    });
    const layers = [1, 2];
    const fewer = small.client.captureActivations({ inputs, capture: { sites, layers } });
    expect((await collect(fewer)).at(-1)?.event).toBe("finished");
    await small.stop();
  });

  it("taken by others is RESOURCE_EXHAUSTED with a time to come back", async () => {
    const small = await TestServer.start({
      flags: ["--max-capture-stream-bytes", "60000", "--max-capture-buffer-bytes", "60000"],
    });
    const many = Array.from({ length: 100 }, () => ({ tokens: { ids: Array(400).fill(9) } }));
    const unread = small.client.captureActivations({ inputs: many, capture: { sites } });
    await unread.next();
    const call = collect(small.client.captureActivations({ inputs, capture: { sites } }));
    await expect(call).rejects.toMatchObject({
      code: "RESOURCE_EXHAUSTED",
      reason: "CAPTURE_BUFFERS",
      retryDelayMs: 1000,
    });
    const streamed = collect(small.client.generateStream({ ...ok, capture: { sites } }));
    await expect(streamed).rejects.toMatchObject({ reason: "CAPTURE_BUFFERS" });
    await small.client.generate(ok);
    await unread.return(undefined);
    await small.stop();
  });
});
