import { describe, expect, test } from "vitest";
import {
  formatLayers,
  matchTokenRange,
  parseInteger,
  parseLayers,
  parseNumber,
  parseSeed,
} from "../../../src/cli/arguments/numbers.js";
import { UsageError } from "../../../src/cli/exit.js";

describe("numbers of the command line", () => {
  test.each(["", " ", "0x10", "NaN", "Infinity", "1,5", "1e400"])("%j is no number", (text) => {
    expect(() => parseNumber(text)).toThrow(UsageError);
  });

  test.each(["-1", "1.5", "4294967296", "", "1e3"])("%j is no whole number", (text) => {
    expect(() => parseInteger(text)).toThrow(UsageError);
  });

  test("a least value holds", () => {
    expect(parseInteger("1", 1)).toBe(1);
    expect(() => parseInteger("0", 1)).toThrow("at least 1");
  });

  test("seeds have 64 bits", () => {
    expect(parseSeed("18446744073709551615")).toBe("18446744073709551615");
    expect(() => parseSeed("18446744073709551616")).toThrow(UsageError);
    expect(() => parseSeed("-1")).toThrow(UsageError);
  });

  test.each(["0", "3-5,7", "0-2,4-6", "1,3,5"])("layers %s survive a round trip", (text) => {
    expect(formatLayers(parseLayers(text))).toBe(text);
  });

  test("neighbours are joined", () => {
    expect(formatLayers([1, 2, 4])).toBe("1-2,4");
    expect(formatLayers([])).toBe("");
  });

  test.each(["", "a", "-1", "5-3", "1,,2", "1-2-3"])("%j is no list of layers", (text) => {
    expect(() => parseLayers(text)).toThrow("is not a list of layers");
  });

  test.each(["3..5", "[3-5]", "[a..b]", "[1..2", "[..", "[]"])("%j is no range", (text) => {
    expect(matchTokenRange(text)).toBeNull();
  });
});
