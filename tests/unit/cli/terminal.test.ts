import { describe, expect, test } from "vitest";
import { sideBySide, wrap } from "../../../src/cli/terminal/columns.js";
import { formatBytes } from "../../../src/cli/terminal/progress.js";
import { formatNumber, proofLine, speedLine } from "../../../src/cli/terminal/proof.js";

describe("columns", () => {
  const columns = [
    { title: "left", text: "one two three four five six seven" },
    { title: "right", text: "short" },
  ];

  test("stand beside each other where there is room", () => {
    const lines = sideBySide(columns, 60).split("\n");
    expect(lines[0]).toMatch(/^left +│ right$/);
    expect(lines[2]).toMatch(/^one two three .* │ short$/);
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(60);
  });

  test("stand one below the other where there is none", () => {
    const lines = sideBySide(columns, 30).split("\n");
    expect(lines[0]).toBe("left");
    expect(lines).toContain("right");
    expect(Math.max(...lines.map((line) => line.length))).toBeLessThanOrEqual(30);
  });

  test("wrapping loses no word and cuts those that are too long", () => {
    expect(wrap("aa bb cc", 5)).toEqual(["aa bb", "cc"]);
    expect(wrap("abcdefgh i", 3)).toEqual(["abc", "def", "gh", "i"]);
    expect(wrap("a\n\nb", 3)).toEqual(["a", "", "b"]);
  });
});

describe("the proof", () => {
  test("names content, operation, layers, tokens and strength", () => {
    const applied = {
      vectorId: "sentiment",
      digest: `sha256:${"0123456789abcdef".repeat(4)}`,
      layers: [3, 4, 5],
      operation: "OPERATION_PROJECT_OUT" as const,
      coefficient: 1,
      promptTokens: 12,
      generatedTokens: 48,
      meanDeltaRatio: 0.18349,
      steeredRows: "180",
      gateFired: 0,
      positionStart: 0,
      preserveNorm: true,
      gateEvaluations: 0,
      gateDigest: "",
      afterTextPositions: [],
    };
    const line =
      "sentiment@sha256:0123456789ab  PROJECT OUT × 1 keeping the norm  layers 3-5  " +
      "12 prompt + 48 generated tokens  mean ‖Δh‖/‖h‖ 0.183";
    expect(proofLine(applied)).toBe(line);
    const gated = { ...applied, gateDigest: "sha256:00", gateFired: 3, gateEvaluations: 60 };
    expect(proofLine(gated)).toBe(`${line}  gate open 3 of 60 times`);
    expect(proofLine({ ...applied, afterTextPositions: [14, -1] })).toBe(
      `${line}  text ended before position 14, never`,
    );
  });

  test("speed counts the tokens after the first over the decode time", () => {
    const seconds = (value: number) => ({ seconds: String(Math.floor(value)), nanos: 500_000_000 });
    const timings = {
      queue: null,
      prefill: null,
      decode: seconds(2.5),
      timeToFirstToken: seconds(0.5),
    };
    const usage = { promptTokens: 3, cachedPromptTokens: 0, completionTokens: 51 };
    expect(speedLine(usage, timings, "7")).toBe(
      "51 tokens  500 ms to the first  20 tokens/s  seed 7",
    );
  });

  test.each([
    [0, "0"],
    [1.23456, "1.23"],
    [1234.5, "1235"],
    [-4, "-4"],
    [0.000012345, "1.23e-5"],
    [Number.NaN, "NaN"],
  ])("%d is written %s", (value, text) => {
    expect(formatNumber(value)).toBe(text);
  });

  test("bytes", () => {
    expect([0, 1023, 1536, 1024 ** 3].map(formatBytes)).toEqual([
      "0 bytes",
      "1023 bytes",
      "1.5 KiB",
      "1.0 GiB",
    ]);
  });
});
