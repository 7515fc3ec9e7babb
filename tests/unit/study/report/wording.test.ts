import { describe, expect, it } from "vitest";
import {
  blocksText,
  fixed,
  perplexityText,
  points,
  pValue,
  signedSize,
} from "../../../../src/study/report/wording.js";

describe("what the report writes", () => {
  it("keeps every digit of a magnitude that was given with more than two", () => {
    expect([0.5, -1, 0.125, -0.0625].map(signedSize)).toEqual([
      "+0.50",
      "−1.00",
      "+0.125",
      "−0.0625",
    ]);
  });

  it("has no sign where a rounded number is zero, and a true minus elsewhere", () => {
    expect(points(-0.0001)).toBe("0.0");
    expect(points(-0.125)).toBe("−12.5");
    expect(fixed(-0.25, 2)).toBe("−0.25");
  });

  it("joins neighbouring blocks", () => {
    expect(blocksText([4])).toBe("4");
    expect(blocksText([0, 1, 2, 5, 7, 8])).toBe("0–2, 5, 7–8");
  });

  it("shortens p values and perplexities that say no more in full", () => {
    expect([0.0004, 0.0123, 1].map(pValue)).toEqual(["< 0.001", "0.012", "1.000"]);
    expect([1.234, 120.4, 104_520.2, null].map(perplexityText)).toEqual([
      "1.23",
      "120",
      "1.0e5",
      "–",
    ]);
  });
});
