/** Positions of a request, absolute. */
import { describe, expect, it } from "vitest";
import { type PositionScope, resolvePositions } from "../../../src/generation/positions.js";
import { OPEN_END } from "../../../src/native/binding.js";

const range = (start: number | null, end: number | null): PositionScope => ({
  kind: "range",
  start,
  end,
});

describe("resolvePositions, prompt of 10 tokens", () => {
  it.each<[string, PositionScope, number, number]>([
    ["all", { kind: "all" }, 0, OPEN_END],
    ["prompt", { kind: "prompt" }, 0, 10],
    ["generated", { kind: "generated" }, 10, OPEN_END],
    ["an open range", range(4, null), 4, OPEN_END],
    ["an open range from the last prompt token", range(-1, null), 9, OPEN_END],
    ["a range without a start", range(null, 3), 0, 3],
    ["a range up to before the last prompt token", range(2, -1), 2, 9],
    ["a range across the end of the prompt", range(-3, 14), 7, 14],
    ["a range of generated tokens", range(12, 20), 12, 20],
    ["the whole prompt, counted from its end", range(-10, null), 0, OPEN_END],
  ])("%s", (_name, scope, begin, end) => {
    expect(resolvePositions(scope, 10, "p")).toEqual({ begin, end });
  });

  it.each<[string, PositionScope, string]>([
    ["before the prompt", range(-11, null), "p.range.start"],
    ["an end before the prompt", range(0, -11), "p.range.end"],
    ["empty", range(3, 3), "p.range"],
    ["the wrong way round", range(5, 2), "p.range"],
    ["the wrong way round with mixed signs", range(9, -2), "p.range"],
  ])("refuses a range %s", (_name, scope, field) => {
    expect(() => resolvePositions(scope, 10, "p")).toThrow(field);
  });
});
