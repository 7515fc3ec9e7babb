/** ProbeService against what CaptureActivations shows of the same texts. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { decodeFloats, type FitProbeRequest } from "../../src/client/client.js";
import { digestOf } from "../../src/vectors/digest.js";
import { collect, TestServer } from "../support/server.js";
import { TINY } from "../support/tiny-checkpoint.js";

let server: TestServer;
beforeAll(async () => {
  server = await TestServer.start({
    flags: ["--max-probe-inputs", "40", "--max-random-directions", "200"],
  });
});
afterAll(() => server.stop());

const YES = { prompt: "Human: Are you a helpful AI? Assistant: no" };
const NO = { prompt: "Human: Are you a helpful AI? Assistant: yes" };
const PAIRS = [{ positive: YES, negative: NO }];
const LAYER = 1;

async function lastRow(prompt: string, layer = LAYER): Promise<Float32Array> {
  const messages = await collect(
    server.client.captureActivations({
      inputs: [{ prompt }],
      capture: { sites: ["SITE_RESID_POST"], layers: [layer], tokens: { last: {} } },
    }),
  );
  const chunk = messages.find(({ activations }) => activations)?.activations;
  return decodeFloats(chunk?.data ?? Buffer.alloc(0), "D_TYPE_FLOAT32");
}

async function direction(layer = LAYER): Promise<Float32Array> {
  const [yes, no] = [await lastRow(YES.prompt, layer), await lastRow(NO.prompt, layer)];
  return yes.map((value, i) => value - (no[i] ?? 0));
}

function dot(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, value, i) => sum + value * (b[i] ?? 0), 0);
}

const texts = (count: number, word: string) =>
  Array.from({ length: count }, (_, i) => ({ prompt: `${word} number ${i}` }));

describe("FitProbe", () => {
  it("is the difference of the captured rows at one layer, the middle one by default", async () => {
    const probe = await server.client.probes.fit({
      probeId: "defection",
      pairs: PAIRS,
      labels: { of: "tests" },
    });
    const rows = await direction();
    const content = { hiddenSize: TINY.hiddenSize, layers: Int32Array.of(LAYER), rows };
    expect(probe).toMatchObject({
      probeId: "defection",
      digest: digestOf(content),
      layer: LAYER,
      hiddenSize: TINY.hiddenSize,
      calibration: null,
      labels: { of: "tests" },
      fit: { auroc: 1, positives: 1, negatives: 1, randomSeed: "0" },
      derivation: {
        method: "METHOD_MEAN_DIFFERENCE",
        tokenRule: "TOKEN_RULE_LAST",
        normalized: false,
        pairs: 1,
        diagnostics: [{ layer: LAYER, separatedShare: 1 }],
      },
    });
    expect(probe.l2Norm).toBeCloseTo(Math.sqrt(dot(rows, rows)), 6);
    expect(probe.fit?.randomAuroc).toEqual(new Array(100).fill(1));
    expect(await server.client.probes.get("defection")).toEqual(probe);
    expect(await server.client.probes.get(`defection@${probe.digest}`)).toEqual(probe);
  });

  it("by logistic regression has unit length; the control is as long as asked for", async () => {
    const pairs = texts(6, "good").map((positive, i) => ({
      positive,
      negative: { prompt: `bad number ${i}` },
    }));
    const probe = await server.client.probes.fit({
      probeId: "logistic",
      pairs,
      method: "METHOD_LOGISTIC",
      layer: 2,
      randomDirections: 7,
      randomSeed: "18446744073709551615",
    });
    expect(probe.l2Norm).toBeCloseTo(1, 6);
    expect(probe).toMatchObject({ layer: 2, derivation: { normalized: true, pairs: 6 } });
    const control = probe.fit?.randomAuroc ?? [];
    expect(control).toHaveLength(7);
    expect(control).toEqual([...control].sort((a, b) => a - b));
    expect(probe.fit).toMatchObject({
      positives: 6,
      negatives: 6,
      randomSeed: "18446744073709551615",
    });
    expect(probe.derivation?.diagnostics[0]?.randomSeed).toBe("18446744073709551615");
  });

  const fields: [string, FitProbeRequest, string][] = [
    ["a bad id", { probeId: "A", pairs: PAIRS }, "probe_id"],
    ["no pairs", { probeId: "a" }, "pairs"],
    ["PCA", { probeId: "a", pairs: PAIRS, method: "METHOD_PCA_PAIRWISE" }, "method"],
    ["a layer outside", { probeId: "a", pairs: PAIRS, layer: 3 }, "layer"],
    [
      "too long a control",
      { probeId: "a", pairs: PAIRS, randomDirections: 201 },
      "random_directions",
    ],
    [
      "sides that read the same",
      { probeId: "a", pairs: [{ positive: YES, negative: YES }] },
      "pairs",
    ],
  ];
  it.each(fields)("refuses %s with the field", async (_, request, field) => {
    await expect(server.client.probes.fit(request)).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      violations: [expect.objectContaining({ field })],
    });
  });

  it("refuses other content under a known id", async () => {
    await server.client.probes.fit({ probeId: "known", pairs: PAIRS });
    await server.client.probes.fit({ probeId: "known", pairs: PAIRS });
    await expect(
      server.client.probes.fit({ probeId: "known", pairs: PAIRS, layer: 0 }),
    ).rejects.toMatchObject({ code: "ALREADY_EXISTS", resource: { type: "probe", name: "known" } });
  });
});

describe("ScoreProbe and CalibrateProbe", () => {
  beforeAll(async () => {
    await server.client.probes.fit({ probeId: "scored", pairs: PAIRS });
  });

  it("scores are dot products of the captured rows", async () => {
    const inputs = texts(5, "some text").map((input) => ({ input }));
    const { scores, fired, discrimination } = await server.client.probes.score({
      probeId: "scored",
      inputs,
    });
    const d = await direction();
    for (const [i, { input }] of inputs.entries()) {
      expect(scores[i]).toBeCloseTo(dot(await lastRow(input.prompt), d), 4);
    }
    expect(fired).toEqual([]);
    expect(discrimination).toBeNull();
  });

  it("labelled texts give an AUROC beside that of random directions", async () => {
    const inputs = [...texts(8, "good"), ...texts(9, "bad")].map((input, i) => ({
      input,
      ...(i === 3 ? {} : { positive: i < 8 }),
    }));
    const answer = await server.client.probes.score({
      probeId: "scored",
      inputs,
      randomDirections: 60,
      randomSeed: "3",
    });
    expect(answer.discrimination).toMatchObject({ positives: 7, negatives: 9, randomSeed: "3" });
    let wins = 0;
    for (const [i, { positive }] of inputs.entries()) {
      for (const [j, other] of inputs.entries()) {
        if (positive !== true || other.positive !== false) continue;
        const [a = 0, b = 0] = [answer.scores[i], answer.scores[j]];
        wins += a > b ? 1 : a === b ? 0.5 : 0;
      }
    }
    expect(answer.discrimination?.auroc).toBeCloseTo(wins / 63, 12);
    expect(answer.discrimination?.randomAuroc).toHaveLength(60);
    expect(answer.probe?.probeId).toBe("scored");
  });

  it("the threshold holds the rate on the benign texts, and decides what fires", async () => {
    const benign = texts(20, "benign");
    const before = await server.client.probes.get("scored");
    const probe = await server.client.probes.calibrate({
      probeId: "scored",
      benign,
      falsePositiveRate: 0.1,
    });
    expect(probe).toMatchObject({ digest: before.digest, fit: before.fit });
    expect(BigInt(probe.revision)).toBeGreaterThan(BigInt(before.revision));
    const { scores, fired } = await server.client.probes.score({
      probeId: "scored",
      inputs: benign.map((input) => ({ input })),
    });
    const threshold = probe.calibration?.threshold ?? Number.NaN;
    const falling = [...scores].sort((a, b) => b - a);
    expect(threshold).toBe(falling[2]);
    expect(fired).toEqual(scores.map((score) => score > threshold));
    expect(probe.calibration).toMatchObject({
      falsePositiveRate: 0.1,
      measuredFalsePositiveRate: 0.1,
      benignInputs: 20,
    });
    expect(await server.client.probes.get("scored")).toEqual(probe);
    // A later one replaces it; fitting the same again does not undo it.
    const strict = await server.client.probes.calibrate({
      probeId: "scored",
      benign,
      falsePositiveRate: 0,
    });
    expect(strict.calibration?.threshold).toBe(falling[0]);
    expect(strict.calibration?.benignDigest).toBe(probe.calibration?.benignDigest);
    expect(await server.client.probes.fit({ probeId: "scored", pairs: PAIRS })).toEqual(strict);
  });

  it("reads later texts as it was fitted", async () => {
    const pairs = [
      { positive: { prompt: "yes END a" }, negative: { prompt: "no, no END b" } },
      { positive: { prompt: "good END" }, negative: { prompt: "bad END" } },
    ];
    await server.client.probes.fit({
      probeId: "at-text",
      pairs,
      tokenRule: "TOKEN_RULE_AT_TEXT",
      tokenText: "END",
    });
    const score = async (prompt: string) =>
      (await server.client.probes.score({ probeId: "at-text", inputs: [{ input: { prompt } }] }))
        .scores;
    expect(await score("what END and more")).toEqual(await score("what END and less, much less"));
    await expect(score("without it")).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      violations: [expect.objectContaining({ field: "inputs[0].input" })],
    });
  });

  it.each([
    ["no texts", { benign: [], falsePositiveRate: 0.1 }, "benign"],
    ["no rate", { benign: [YES] }, "false_positive_rate"],
    ["a rate of 1", { benign: [YES], falsePositiveRate: 1 }, "false_positive_rate"],
    [
      "a rate that is no number",
      { benign: [YES], falsePositiveRate: Number.NaN },
      "false_positive_rate",
    ],
    ["too many texts", { benign: new Array(41).fill(YES), falsePositiveRate: 0 }, "benign"],
    ["an empty text", { benign: [{ prompt: "" }], falsePositiveRate: 0 }, "benign[0].prompt"],
  ])("calibration refuses %s with the field", async (_, request, field) => {
    await expect(
      server.client.probes.calibrate({ probeId: "scored", ...request }),
    ).rejects.toMatchObject({
      code: "INVALID_ARGUMENT",
      violations: [expect.objectContaining({ field })],
    });
  });

  it("unknown probes and adapters are NOT_FOUND", async () => {
    const inputs = [{ input: YES }];
    await expect(server.client.probes.score({ probeId: "none", inputs })).rejects.toMatchObject({
      code: "NOT_FOUND",
      resource: { type: "probe", name: "none" },
    });
    await expect(
      server.client.probes.score({ probeId: "scored", inputs, adapterId: "none" }),
    ).rejects.toMatchObject({ code: "NOT_FOUND", resource: { type: "adapter", name: "none" } });
  });
});

describe("the registry of probes", () => {
  it("lists by id, in pages, by label, apart from vectors", async () => {
    for (const index of [0, 1, 2, 3]) {
      const labels = { parity: index % 2 === 0 ? "even" : "odd" };
      await server.client.probes.fit({ probeId: `list-${index}`, pairs: PAIRS, labels });
    }
    const even = await collect(server.client.probes.list({ parity: "even" }));
    expect(even.map(({ probeId }) => probeId)).toEqual(["list-0", "list-2"]);
    const page = await server.client.probes.listPage({ pageSize: 1, filter: { parity: "odd" } });
    expect(page.probes.map(({ probeId }) => probeId)).toEqual(["list-1"]);
    expect(page.nextPageToken).not.toBe("");
    await expect(server.client.vectors.get("list-0")).rejects.toMatchObject({ code: "NOT_FOUND" });
    const { revision } = await server.client.probes.delete("list-0");
    expect(BigInt(revision)).toBeGreaterThan(BigInt(page.revision));
    await expect(server.client.probes.get("list-0")).rejects.toMatchObject({
      code: "NOT_FOUND",
      resource: { type: "probe", name: "list-0" },
    });
  });
});
