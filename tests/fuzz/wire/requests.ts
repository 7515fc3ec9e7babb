/** Good requests of every method, as messages on the wire: what fuzzing of the service starts from. */
import type { ServiceDefinition } from "@grpc/proto-loader";
import { loadContract } from "../../../src/rpc/contract.js";
import { GOOD_FILES } from "../../support/recorded-files.js";
import { TINY } from "../../support/tiny-checkpoint.js";
import { randomRow } from "../../support/vectors.js";

export interface WireCall {
  /** "/package.Service/Method". */
  path: string;
  messages: Buffer[];
}

const row = (layer: number) => ({ layer, data: randomRow(layer + 1, 0.1) });
const short = { maxNewTokens: 3, temperature: 0 };
const pairs = [1, 2, 3].map((index) => ({
  positive: { prompt: `the first ${index}` },
  negative: { prompt: `the last ${index}` },
}));

/** Characters of four bytes, two UTF-16 units each: any cut in the middle of one is wrong. */
const WIDE = "\u{1f600}\u{1f9ed}".repeat(40);

const STEERING = [
  { inline: { rows: [row(0), row(2)] }, coefficient: 0.5, layers: [0] },
  {
    vectorId: "a",
    operation: "OPERATION_CLAMP",
    clampMin: -1,
    clampMax: 1,
    positions: { range: { start: -2 }, afterText: "the" },
    preserveNorm: true,
  },
  {
    vectorId: "a",
    gate: { vectorId: "a", layer: 1, comparator: "COMPARATOR_ABOVE", threshold: 0.5 },
  },
];
const GENERATE = [
  { prompt: "the last", sampling: short },
  {
    chat: { messages: [{ role: "user", content: "the" }], date: "2024-01-01" },
    sampling: {
      ...{ maxNewTokens: 4, topP: 0.9, topK: 5, minP: 0.01, repetitionPenalty: 1.1, seed: "7" },
      ...{ n: 2, stop: ["x", "yy"], stopTokenIds: [5], logprobs: 2, logitBias: { 9: 1.5 } },
    },
  },
  { tokens: { ids: [1, 2, 3] }, sampling: short, steering: STEERING, compareUnsteered: true },
  { prompt: "a", sampling: short, minRegistryRevision: "1", probes: [{ probeId: "p" }] },
  { prompt: WIDE, sampling: { ...short, stop: [WIDE] }, adapterId: WIDE },
];
const CAPTURE = { sites: ["SITE_RESID_POST", "SITE_ATTN_OUT"], layers: [1], lensTopK: 2 };

/** By method; requests of streams of requests are lists. */
const REQUESTS: Record<string, Record<string, object[]>> = {
  InferenceService: {
    Generate: GENERATE,
    GenerateStream: [...GENERATE, { prompt: "a", sampling: short, capture: CAPTURE }],
    Score: [
      { prompt: "the", continuations: [{ text: " last" }, { tokens: { ids: [4] } }], logprobs: 1 },
    ],
    CaptureActivations: [
      { inputs: [{ prompt: "the" }, { tokens: { ids: [7, 8] } }], capture: CAPTURE },
      {
        inputs: [{ prompt: "the" }],
        capture: { ...CAPTURE, tokens: { last: {} } },
        sampling: short,
      },
    ],
  },
  VectorService: {
    CreateVector: [{ vectorId: "c", rows: [row(1)], labels: { lab: "x" } }],
    ImportVector: [...GOOD_FILES].map(([name, file]) => [
      { start: { vectorId: `i-${name.replace(/[^a-z0-9]/g, "-")}` } },
      { chunk: file.subarray(0, 40) },
      { chunk: file.subarray(40) },
    ]),
    ExportVector: [{ vectorId: "a" }],
    DeriveVector: [{ vectorId: "d", pairs, layers: [1] }],
    GetVector: [{ vectorId: "a" }, { vectorId: WIDE }],
    ListVectors: [{ pageSize: 2, filter: { lab: "x" } }],
    DeleteVector: [{ vectorId: "gone" }],
  },
  ProbeService: {
    FitProbe: [{ probeId: "q", pairs, layer: 1 }],
    CalibrateProbe: [{ probeId: "p", benign: [{ prompt: "the" }], falsePositiveRate: 0.1 }],
    ScoreProbe: [{ probeId: "p", inputs: [{ input: { prompt: "the" }, positive: true }] }],
    GetProbe: [{ probeId: "p" }],
    ListProbes: [{ pageSize: 1 }],
    DeleteProbe: [{ probeId: "gone" }],
  },
  ModelService: {
    GetModel: [{}],
    Tokenize: [{ text: "the last" }],
    Detokenize: [{ tokenIds: [1, 2, TINY.vocabSize - 1] }],
    RenderChat: [{ chat: { messages: [{ role: "user", content: "the" }] } }],
    LoadAdapter: [{ adapterId: "x" }],
    UnloadAdapter: [{ adapterId: "x" }],
  },
};

/** Not ours, but on the same port. */
const OTHERS: WireCall[] = [
  { path: "/grpc.health.v1.Health/Check", messages: [Buffer.from("0a00", "hex")] },
  {
    path: "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    messages: [
      Buffer.from("3a00", "hex"),
      Buffer.from("\x22\x1cllamasteer.v1.VectorService", "latin1"),
    ],
  },
  { path: "/llamasteer.v1.InferenceService/Nothing", messages: [Buffer.alloc(0)] },
];

export function goodCalls(): WireCall[] {
  const { services } = loadContract();
  const calls = Object.entries(REQUESTS).flatMap(([service, methods]) => {
    const definition = services.get(`llamasteer.v1.${service}`) ?? {};
    return Object.entries(methods).flatMap(([method, requests]) =>
      requests.map((request) => wireCall(definition, method, request)),
    );
  });
  return [...calls, ...OTHERS];
}

function wireCall(definition: ServiceDefinition, name: string, request: object): WireCall {
  const method = definition[name];
  if (!method) throw new Error(`the contract has no ${name}`);
  const messages = Array.isArray(request) ? request : [request];
  return { path: method.path, messages: messages.map((each) => method.requestSerialize(each)) };
}

/** Every method of the contract has requests here. */
export function missingMethods(): string[] {
  const covered = new Set(goodCalls().map(({ path }) => path.slice(1)));
  return loadContract().methods.filter((method) => !covered.has(method));
}
