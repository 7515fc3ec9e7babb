import { describe, expect, test } from "vitest";
import { describeLens } from "../../../src/cli/lens.js";
import { klLine, Observations, probeLine } from "../../../src/cli/terminal/observations.js";
import { percent, table } from "../../../src/cli/terminal/table.js";
import { compareVectors } from "../../../src/cli/vectors-compare.js";
import { floatsToBytes } from "../../../src/client/client.js";

describe("tables", () => {
  test("line numbers up to the right, texts to the left, by characters", () => {
    const text = table(
      [{ title: "layer" }, { title: "‖v‖" }, { title: "text", align: "left" }],
      [
        ["4", "12.5", "ab"],
        ["10", "1", "c"],
      ],
    );
    expect(text).toBe("layer   ‖v‖  text\n    4  12.5  ab\n   10     1  c\n");
  });

  test("shares have three digits", () => {
    expect([1, 0.5, 0.98765, 0.000123, 0].map(percent)).toEqual([
      "100%",
      "50%",
      "98.8%",
      "0.0123%",
      "0%",
    ]);
  });
});

describe("comparing vectors", () => {
  const vector = (rows: Record<number, number[]>) => ({
    name: "v",
    digest: "sha256:00",
    rows: Object.entries(rows).map(([layer, values]) => ({
      layer: Number(layer),
      data: floatsToBytes(values),
    })),
  });

  test("gives norms and cosines, and says what only one has", () => {
    const a = vector({ 1: [3, 4], 2: [1, 0], 3: [1, 1] });
    const b = vector({ 2: [-2, 0], 3: [0, 0], 5: [0, 1] });
    expect(compareVectors(a, b)).toEqual([
      { layer: 1, normA: 5, normB: null, cosine: null },
      { layer: 2, normA: 1, normB: 2, cosine: -1 },
      { layer: 3, normA: Math.SQRT2, normB: 0, cosine: null },
      { layer: 5, normA: null, normB: 1, cosine: null },
    ]);
  });

  test("of two models is refused", () => {
    expect(() => compareVectors(vector({ 1: [1, 2] }), vector({ 1: [1, 2, 3] }))).toThrow(
      "v has rows of 2 values, v of 3: not of one model",
    );
  });
});

describe("observations", () => {
  const probe = (probeId: string, threshold?: number) => ({
    probeId,
    digest: `sha256:${"0123456789abcdef".repeat(4)}`,
    layer: 4,
    read: "READ_EACH_TOKEN" as const,
    ...(threshold !== undefined && { threshold }),
  });

  test("come in parts and are summed up", () => {
    const observations = new Observations([probe("p", 0.5), probe("q")]);
    const scores = (values: number[], positions: number[]) => [
      { probeIndex: 0, probeId: "p", scores: values, positions },
    ];
    observations.add({ klToUnsteered: [0.5], probeScores: scores([1, -1], [7, 8]) });
    observations.add({ klToUnsteered: [1.5, 1], probeScores: scores([3], [9]) });
    expect(observations.lines()).toEqual([
      "KL(steered ‖ unsteered)  mean 1 nats  largest 1.5 at generated token 2",
      "probe p@sha256:0123456789ab  layer 4  3 scores  mean 1  largest 3 at position 9  2 above the threshold 0.5",
      "probe q@sha256:0123456789ab  layer 4  no score: its text did not appear",
    ]);
    expect(new Observations([]).lines()).toEqual([]);
  });

  test("one score, none, no divergence", () => {
    expect(probeLine(probe("p"), [0.25], [12])).toMatch(/layer 4 {2}0\.25 at position 12$/);
    expect(probeLine(probe("p", 1), [], [])).toMatch(/no score: its text did not appear$/);
    expect(klLine([0, 0])).toBe(
      "KL(steered ‖ unsteered)  mean 0 nats  largest 0 at generated token 1",
    );
  });
});

describe("the lens", () => {
  test("has a table for each position, a line for each layer", () => {
    const read = (position: number, layer: number) => ({
      site: "SITE_RESID_POST",
      layer,
      position,
      token: " was",
      top: [
        { tokenId: 1, token: " good", logprob: Math.log(0.5) },
        { tokenId: 2, token: "\n", logprob: Math.log(0.25) },
      ],
    });
    expect(describeLens([read(3, 0), read(3, 11), read(4, 0)])).toBe(
      'position 3, after " was"\nlayer  1            2\n    0  " good" 50%  "\\n" 25%\n' +
        '   11  " good" 50%  "\\n" 25%\n\n' +
        'position 4, after " was"\nlayer  1            2\n    0  " good" 50%  "\\n" 25%\n',
    );
  });
});
