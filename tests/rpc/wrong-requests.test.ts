/** Wrong requests: each gets the promised code, names the field, and the server keeps serving. */
import { Client, credentials, Metadata, type ServiceError, status } from "@grpc/grpc-js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type {
  CaptureActivationsRequest,
  CreateVectorRequest,
  GenerateRequest,
  ScoreRequest,
  Steering,
} from "../../src/client/client.js";
import { decodeStatusDetails } from "../../src/client/status-details.js";
import { expectRefusalOf, invalid, type Refusal } from "../support/refusals.js";
import { collect, TestServer } from "../support/server.js";
import { TINY } from "../support/tiny-checkpoint.js";
import { inlineVector, randomRow, rowBytes } from "../support/vectors.js";

let server: TestServer;
let raw: Client;
beforeAll(async () => {
  server = await TestServer.start({
    flags: ["--max-message-bytes", "1000000", "--max-prompt-bytes", "500000"],
  });
  raw = new Client(server.app.addresses.grpc, credentials.createInsecure());
  await server.client.vectors.create({
    vectorId: "mood",
    rows: [{ layer: 1, data: randomRow(1) }],
  });
  const zeros = [{ layer: 1, data: rowBytes(new Float32Array(TINY.hiddenSize)) }];
  await server.client.vectors.create({ vectorId: "zeros", rows: zeros });
});
afterAll(async () => {
  raw.close();
  await server.stop();
});

const expectRefusal = (call: Promise<unknown>, refusal: Refusal) =>
  expectRefusalOf(server, call, refusal);

const ok: GenerateRequest = { prompt: "hello", sampling: { maxNewTokens: 2 } };
const sampling = (fields: GenerateRequest["sampling"]): GenerateRequest => ({
  prompt: "hello",
  ...(fields ? { sampling: fields } : {}),
});
const steering = (fields: Steering): GenerateRequest => ({ ...ok, steering: [fields] });
const chat = (content: string, role = "user"): GenerateRequest => ({
  chat: { messages: [{ role, content }] },
});
const tokens = (count: number, first = 5): GenerateRequest => ({
  tokens: { ids: Array.from({ length: count }, (_, index) => first + (index % 100)) },
});
// Numbers that the generated types do not allow, but the wire does.
const unknownEnum = (value: number) => value as unknown as "OPERATION_ADD";
const unknownSite = 77 as unknown as "SITE_RESID_POST";

const generate: [name: string, request: GenerateRequest, refusal: Refusal][] = [
  ["no input", {}, invalid("input")],
  ["an empty prompt", { prompt: "" }, invalid("prompt")],
  ["no token ids", { tokens: { ids: [] } }, invalid("tokens.ids")],
  ["a token id outside the vocabulary", tokens(1, 1024), invalid("tokens.ids[0]", "1024")],
  ["a token id of 32 bits", tokens(1, 4294967200), invalid("tokens.ids[0]")],
  ["a conversation without messages", { chat: { messages: [] } }, invalid("chat.messages")],
  ["a message without a role", chat("hi", ""), invalid("chat.messages[0].role")],
  [
    "a special token in a message",
    chat("bye<|eot_id|>"),
    invalid("chat.messages[0].content", "allow_special_tokens"),
  ],
  ["a prompt over the limit of bytes", { prompt: "x".repeat(600_000) }, invalid("prompt")],
  ["a prompt over the context", tokens(513), invalid("tokens", "512")],
  [
    "prompt and new tokens over the context, with both numbers",
    { ...tokens(500), sampling: { maxNewTokens: 13 } },
    invalid("sampling.max_new_tokens", "500 + 13"),
  ],
  ["no new tokens", sampling({ maxNewTokens: 0 }), invalid("sampling.max_new_tokens")],
  [
    "too many new tokens",
    sampling({ maxNewTokens: 2 ** 32 - 1 }),
    invalid("sampling.max_new_tokens"),
  ],
  ["a negative temperature", sampling({ temperature: -0.1 }), invalid("sampling.temperature")],
  ["a temperature of NaN", sampling({ temperature: Number.NaN }), invalid("sampling.temperature")],
  ["an infinite temperature", sampling({ temperature: Infinity }), invalid("sampling.temperature")],
  ["a top_p of 0", sampling({ topP: 0 }), invalid("sampling.top_p")],
  ["a top_p above 1", sampling({ topP: 1.5 }), invalid("sampling.top_p")],
  ["a top_p of NaN", sampling({ topP: Number.NaN }), invalid("sampling.top_p")],
  ["a min_p above 1", sampling({ minP: 1.01 }), invalid("sampling.min_p")],
  ["a negative min_p", sampling({ minP: -0.5 }), invalid("sampling.min_p")],
  [
    "a repetition_penalty of 0",
    sampling({ repetitionPenalty: 0 }),
    invalid("sampling.repetition_penalty"),
  ],
  [
    "a presence_penalty of NaN",
    sampling({ presencePenalty: Number.NaN }),
    invalid("sampling.presence_penalty"),
  ],
  [
    "a huge frequency_penalty",
    sampling({ frequencyPenalty: 1e30 }),
    invalid("sampling.frequency_penalty"),
  ],
  ["n of 0", sampling({ n: 0 }), invalid("sampling.n")],
  ["n over the limit", sampling({ n: 17 }), invalid("sampling.n", "16")],
  ["too many stop texts", sampling({ stop: Array(17).fill("x") }), invalid("sampling.stop")],
  ["an empty stop text", sampling({ stop: ["ok", ""] }), invalid("sampling.stop[1]")],
  ["a long stop text", sampling({ stop: ["x".repeat(1025)] }), invalid("sampling.stop[0]")],
  [
    "a stop token outside the vocabulary",
    sampling({ stopTokenIds: [3, 5000] }),
    invalid("sampling.stop_token_ids[1]"),
  ],
  [
    "too many stop tokens",
    sampling({ stopTokenIds: Array(65).fill(3) }),
    invalid("sampling.stop_token_ids"),
  ],
  ["logprobs over the limit", sampling({ logprobs: 21 }), invalid("sampling.logprobs")],
  [
    "a logit_bias of an unknown token",
    sampling({ logitBias: { 4000: 1 } }),
    invalid("sampling.logit_bias[4000]"),
  ],
  [
    "a logit_bias of NaN",
    sampling({ logitBias: { 4: Number.NaN } }),
    invalid("sampling.logit_bias[4]"),
  ],
  [
    "too many logit_bias entries",
    sampling({ logitBias: Object.fromEntries(Array.from({ length: 1025 }, (_, id) => [id, 1])) }),
    invalid("sampling.logit_bias"),
  ],

  [
    "an unknown vector",
    steering({ vectorId: "nope" }),
    { code: "NOT_FOUND", resource: { type: "vector", name: "nope" } },
  ],
  ["a path as an id", steering({ vectorId: "../../etc/passwd" }), invalid("steering[0].vector_id")],
  ["an empty id", steering({ vectorId: "" }), invalid("steering[0].vector_id")],
  [
    "an id of 64 characters",
    steering({ vectorId: "a".repeat(64) }),
    invalid("steering[0].vector_id"),
  ],
  ["a short pin", steering({ vectorId: "mood@sha256:abc" }), invalid("steering[0].vector_id")],
  [
    "a pin of other content",
    steering({ vectorId: "mood@sha256:000000000000" }),
    { code: "NOT_FOUND" },
  ],
  ["a steering without a source", steering({}), invalid("steering[0].source")],
  [
    "a layer that the vector does not hold",
    steering({ vectorId: "mood", layers: [2] }),
    invalid("steering[0].layers"),
  ],
  [
    "a layer outside the model",
    steering({ vectorId: "mood", layers: [3] }),
    invalid("steering[0].layers"),
  ],
  [
    "a coefficient of NaN",
    steering({ vectorId: "mood", coefficient: Number.NaN }),
    invalid("steering[0].coefficient"),
  ],
  [
    "a coefficient above the cap",
    steering({ vectorId: "mood", coefficient: -10_001 }),
    invalid("steering[0].coefficient"),
  ],
  [
    "an unknown operation",
    steering({ vectorId: "mood", operation: unknownEnum(99) }),
    invalid("steering[0].operation"),
  ],
  [
    "CLAMP without bounds",
    steering({ vectorId: "mood", operation: "OPERATION_CLAMP" }),
    invalid("steering[0].clamp_min"),
  ],
  [
    "CLAMP with bounds the wrong way",
    steering({ vectorId: "mood", operation: "OPERATION_CLAMP", clampMin: 2, clampMax: 1 }),
    invalid("steering[0].clamp_min"),
  ],
  [
    "CLAMP with NaN",
    steering({ vectorId: "mood", operation: "OPERATION_CLAMP", clampMin: Number.NaN }),
    invalid("steering[0].clamp_min"),
  ],
  [
    "bounds without CLAMP",
    steering({ vectorId: "mood", clampMax: 1 }),
    invalid("steering[0].clamp_max"),
  ],
  [
    "PROJECT_OUT of a row of zeros",
    steering({ vectorId: "zeros", operation: "OPERATION_PROJECT_OUT" }),
    invalid("steering[0]"),
  ],
  [
    "an empty range",
    steering({ vectorId: "mood", positions: { range: { start: 3, end: 3 } } }),
    invalid("steering[0].positions.range"),
  ],
  [
    "a range before the prompt",
    steering({ vectorId: "mood", positions: { range: { start: -100 } } }),
    invalid("steering[0].positions.range.start"),
  ],
  [
    "a range that no token reaches",
    steering({ vectorId: "mood", positions: { range: { start: 400 } } }),
    invalid("steering[0].positions"),
  ],
  [
    "generated positions with one token to generate",
    {
      ...steering({ vectorId: "mood", positions: { generated: {} } }),
      sampling: { maxNewTokens: 1 },
    },
    invalid("steering[0].positions"),
  ],
  [
    "too many steerings",
    { ...ok, steering: Array(17).fill({ vectorId: "mood" }) },
    invalid("steering"),
  ],
  [
    "an inline vector without rows",
    steering({ inline: { rows: [] } }),
    invalid("steering[0].inline.rows"),
  ],
  [
    "an inline row of another size",
    steering({ inline: { rows: [{ layer: 0, data: randomRow(1, 1, 65) }] } }),
    invalid("steering[0].inline.rows[0].data", "64"),
  ],
  [
    "an inline row with a cut value",
    steering({ inline: { rows: [{ layer: 0, data: randomRow(1).subarray(1) }] } }),
    invalid("steering[0].inline.rows[0].data"),
  ],
  [
    "an inline row with NaN",
    steering({
      inline: { rows: [{ layer: 0, data: rowBytes(new Float32Array(64).fill(Number.NaN)) }] },
    }),
    invalid("steering[0].inline.rows[0].data"),
  ],
  [
    "an inline row outside the model",
    steering(inlineVector(1, [3])),
    invalid("steering[0].inline.rows[0].layer"),
  ],
  [
    "an inline layer twice",
    steering(inlineVector(1, [1, 1])),
    invalid("steering[0].inline.rows[1].layer"),
  ],

  [
    "an adapter",
    { ...ok, adapterId: "lora" },
    { code: "NOT_FOUND", resource: { type: "adapter", name: "lora" } },
  ],
  [
    "a probe",
    { ...ok, probes: [{ probeId: "deceit" }] },
    { code: "NOT_FOUND", resource: { type: "probe", name: "deceit" } },
  ],
  [
    "capture on the unary call",
    { ...ok, capture: { sites: ["SITE_RESID_POST"] } },
    invalid("capture"),
  ],
];

describe("Generate refuses", () => {
  it.each(generate)("%s", async (_name, request, refusal) => {
    await expectRefusal(server.client.generate(request), refusal);
  });

  it("several wrong fields at once, naming each", async () => {
    const call = server.client.generate({ sampling: { temperature: -1, n: 0 } });
    await expect(call).rejects.toMatchObject({
      violations: [{ field: "input" }, { field: "sampling.temperature" }, { field: "sampling.n" }],
    });
  });
});

describe("GenerateStream refuses", () => {
  it.each([
    ["an unknown vector", steering({ vectorId: "nope" }), { code: "NOT_FOUND" }],
    [
      "a temperature of NaN",
      sampling({ temperature: Number.NaN }),
      invalid("sampling.temperature"),
    ],
  ] as [string, GenerateRequest, Refusal][])("%s", async (_name, request, refusal) => {
    await expectRefusal(collect(server.client.generateStream(request)), refusal);
  });
});

const score: [name: string, request: ScoreRequest, refusal: Refusal][] = [
  ["no input", { continuations: [{ text: "a" }] }, invalid("input")],
  ["nothing to score", { prompt: "a" }, invalid("continuations")],
  [
    "an empty continuation",
    { prompt: "a", continuations: [{ text: "b" }, {}] },
    invalid("continuations[1]"),
  ],
  [
    "an unknown token id",
    { prompt: "a", continuations: [{ tokens: { ids: [9999] } }] },
    invalid("continuations[0].tokens.ids[0]"),
  ],
  [
    "too many continuations",
    { prompt: "a", continuations: Array(257).fill({ text: "b" }) },
    invalid("continuations"),
  ],
  [
    "a continuation over the context",
    { prompt: "a", continuations: [{ tokens: { ids: Array(512).fill(7) } }] },
    invalid("continuations[0]", "512"),
  ],
  [
    "logprobs over the limit",
    { prompt: "a", promptLogprobs: true, logprobs: 1000 },
    invalid("logprobs"),
  ],
  ["an adapter", { prompt: "a", promptLogprobs: true, adapterId: "x" }, { code: "NOT_FOUND" }],
];

describe("Score refuses", () => {
  it.each(score)("%s", async (_name, request, refusal) => {
    await expectRefusal(server.client.score(request), refusal);
  });
});

const spec = { sites: ["SITE_RESID_POST" as const] };
const inputs = [{ prompt: "hello" }];
const capture: [name: string, request: CaptureActivationsRequest, refusal: Refusal][] = [
  ["no inputs", { capture: spec }, invalid("inputs")],
  ["an empty input", { inputs: [{ prompt: "a" }, {}], capture: spec }, invalid("inputs[1].input")],
  ["too many inputs", { inputs: Array(257).fill(inputs[0]), capture: spec }, invalid("inputs")],
  ["no capture", { inputs }, invalid("capture")],
  ["no sites", { inputs, capture: {} }, invalid("capture.sites")],
  [
    "an unspecified site",
    { inputs, capture: { sites: ["SITE_UNSPECIFIED"] } },
    invalid("capture.sites[0]"),
  ],
  [
    "an unknown site",
    { inputs, capture: { sites: [unknownSite] } },
    invalid("capture.sites[0]", "77"),
  ],
  [
    "a layer outside the model",
    { inputs, capture: { ...spec, layers: [0, 3] } },
    invalid("capture.layers[1]"),
  ],
  [
    "a range that selects nothing",
    { inputs, capture: { ...spec, tokens: { range: { start: 300 } } } },
    invalid("capture.tokens"),
  ],
];

describe("CaptureActivations refuses", () => {
  it.each(capture)("%s", async (_name, request, refusal) => {
    await expectRefusal(collect(server.client.captureActivations(request)), refusal);
  });
});

const row = { layer: 0, data: randomRow(3) };
const create: [name: string, request: CreateVectorRequest, refusal: Refusal][] = [
  ["an upper-case id", { vectorId: "Mood", rows: [row] }, invalid("vector_id")],
  ["a path", { vectorId: "a/b", rows: [row] }, invalid("vector_id")],
  ["no rows", { vectorId: "x" }, invalid("rows")],
  ["more rows than blocks", { vectorId: "x", rows: Array(4).fill(row) }, invalid("rows")],
  ["a block twice", { vectorId: "x", rows: [row, row] }, invalid("rows[1].layer")],
  [
    "a block outside the model",
    { vectorId: "x", rows: [{ ...row, layer: 9 }] },
    invalid("rows[0].layer"),
  ],
  [
    "another hidden size",
    { vectorId: "x", rows: [{ layer: 0, data: randomRow(1, 1, 32) }] },
    invalid("rows[0].data"),
  ],
  [
    "infinite values",
    { vectorId: "x", rows: [{ layer: 0, data: rowBytes(Array(64).fill(Infinity)) }] },
    invalid("rows[0].data"),
  ],
  [
    "too many labels",
    {
      vectorId: "x",
      rows: [row],
      labels: Object.fromEntries(Array.from({ length: 33 }, (_, index) => [`k${index}`, "v"])),
    },
    invalid("labels"),
  ],
  [
    "a long label",
    { vectorId: "x", rows: [row], labels: { k: "v".repeat(2000) } },
    invalid("labels"),
  ],
  [
    "other content under an id that exists",
    { vectorId: "mood", rows: [row] },
    { code: "ALREADY_EXISTS", resource: { type: "vector", name: "mood" } },
  ],
];

describe("VectorService refuses", () => {
  it.each(create)("to create %s", async (_name, request, refusal) => {
    await expectRefusal(server.client.vectors.create(request), refusal);
  });

  it("to get or delete what is not there", async () => {
    const refusal: Refusal = { code: "NOT_FOUND", resource: { type: "vector", name: "nope" } };
    await expectRefusal(server.client.vectors.get("nope"), refusal);
    await expectRefusal(server.client.vectors.delete("nope"), refusal);
    await expectRefusal(server.client.vectors.get("NOPE"), invalid("vector_id"));
  });

  it("a page that is none", async () => {
    const list = (request: object) => server.client.vectors.listPage(request);
    await expectRefusal(list({ pageSize: 1001 }), invalid("page_size"));
    await expectRefusal(list({ pageToken: "@@" }), invalid("page_token"));
  });
});

describe("ModelService refuses", () => {
  it("token ids outside the vocabulary, and more than the context", async () => {
    await expectRefusal(server.client.model.detokenize([1, 2000]), invalid("token_ids[1]"));
    await expectRefusal(server.client.model.detokenize(Array(513).fill(1)), invalid("token_ids"));
  });

  it("a conversation without messages", async () => {
    const call = server.client.model.renderChat({ messages: [] });
    await expectRefusal(call, invalid("chat.messages"));
  });
});

/** A unary call with bytes as they are. */
function sendBytes(method: string, bytes: Buffer): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    raw.makeUnaryRequest(
      `/llamasteer.v1.${method}`,
      (value: Buffer) => value,
      (value: Buffer) => value,
      bytes,
      new Metadata(),
      (error: ServiceError | null, response) =>
        error ? reject(error) : resolve(response as Buffer),
    );
  });
}

describe("bytes", () => {
  const GENERATE = "InferenceService/Generate";
  const broken: [name: string, bytes: number[]][] = [
    ["a cut length", [0x0a, 0x20, 0x61]],
    ["a cut varint", [0x20, 0xff]],
    ["a tag of 0", [0x00, 0x01]],
    ["a wire type that does not exist", [0x0f]],
    ["a lone surrogate", [0x0a, 0x03, 0xed, 0xa0, 0x80]],
    ["invalid UTF-8", [0x0a, 0x02, 0xc3, 0x28]],
    ["overlong UTF-8", [0x0a, 0x02, 0xc0, 0xaf]],
    ["deep nesting", Array(2000).fill(0x0b)],
  ];
  it.each(broken)("%s are INVALID_ARGUMENT", async (_name, bytes) => {
    const error: ServiceError = await sendBytes(GENERATE, Buffer.from(bytes)).then(
      () => Promise.reject(new Error("served")),
      (reason) => reason,
    );
    expect(status[error.code]).toBe("INVALID_ARGUMENT");
    expect(decodeStatusDetails(error.metadata).violations).toHaveLength(1);
    await server.client.generate(ok);
  });

  it("of unknown fields are accepted", async () => {
    const prompt = [0x0a, 0x01, 0x61];
    const onlyOneToken = [0x2a, 0x02, 0x08, 0x01];
    const unknown = [0xfa, 0x3f, 0x03, 0x01, 0x02, 0x03];
    const response = await sendBytes(
      GENERATE,
      Buffer.from([...prompt, ...onlyOneToken, ...unknown]),
    );
    expect(response.length).toBeGreaterThan(0);
  });

  it("beyond the message limit are RESOURCE_EXHAUSTED", async () => {
    const call = server.client.generate({ prompt: "x".repeat(1_100_000) });
    await expect(call).rejects.toMatchObject({ code: "RESOURCE_EXHAUSTED" });
    await server.client.generate(ok);
  });

  it("for a method that does not exist are UNIMPLEMENTED", async () => {
    const call = sendBytes("InferenceService/Nope", Buffer.alloc(0));
    await expect(call).rejects.toMatchObject({ code: status.UNIMPLEMENTED });
  });

  it("at random never stop the server", async () => {
    let state = 12345;
    const next = () => {
      state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff;
      return state >>> 8;
    };
    for (let round = 0; round < 300; round++) {
      const bytes = Buffer.from(Array.from({ length: next() % 60 }, () => next() & 0xff));
      await sendBytes(GENERATE, bytes).catch((error: ServiceError) => {
        expect(["INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED"]).toContain(status[error.code]);
      });
    }
    await server.client.generate(ok);
  });
});

describe("capture switched off", () => {
  it("is FAILED_PRECONDITION", async () => {
    const closed = await TestServer.start({ flags: ["--capture", "off"] });
    const call = collect(closed.client.captureActivations({ inputs, capture: spec }));
    await expect(call).rejects.toMatchObject({ code: "FAILED_PRECONDITION" });
    expect((await closed.client.model.get()).captureEnabled).toBe(false);
    await closed.stop();
  });
});

describe("a KV cache smaller than the context", () => {
  it("refuses with both numbers what it can never hold, and counts it", async () => {
    // Two blocks of 16 tokens: 2 (K, V) · 3 blocks · 2 heads · 32 values · 2 bytes a token.
    const small = await TestServer.start({ flags: ["--kv-cache-bytes", String(32 * 768)] });
    expect((await small.client.model.get()).limits?.kvCacheTokens).toBe("32");
    const call = small.client.generate({ ...tokens(30), sampling: { maxNewTokens: 10 } });
    await expect(call).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      message: expect.stringMatching(/30 \+ 10 new tokens.*32/),
    });
    expect(await small.metric('admission_rejections_total{reason="kv"}')).toBe(1);
    await small.client.generate({ ...tokens(20), sampling: { maxNewTokens: 10 } });
    await small.stop();
  });
});
