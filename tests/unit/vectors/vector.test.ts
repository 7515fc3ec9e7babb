import { describe, expect, test } from "vitest";
import { InvalidArgumentError } from "../../../src/errors.js";
import {
  checkLabels,
  checkVectorId,
  floatBytes,
  floatsOf,
  packRows,
  rowsFromWire,
  statsOf,
} from "../../../src/vectors/vector.js";
import { LIMITS, MODEL, row } from "./fixtures.js";

function violationsOf(body: () => unknown): string[] {
  try {
    body();
  } catch (error) {
    if (error instanceof InvalidArgumentError) return error.violations.map(({ field }) => field);
    throw error;
  }
  throw new Error("nothing was refused");
}

describe("ids", () => {
  test.each(["a", "0", "sentiment", "a.b_c-d", `a${"b".repeat(62)}`])("%s is an id", (id) => {
    expect(() => checkVectorId(id, "vector_id")).not.toThrow();
  });

  test.each([
    "",
    "A",
    ".a",
    "-a",
    "_a",
    "a/b",
    "..",
    "a b",
    "a\n",
    "a\0",
    "ä",
    "a@b",
    `a${"b".repeat(63)}`,
  ])("%j is none", (id) => {
    expect(violationsOf(() => checkVectorId(id, "vector_id"))).toEqual(["vector_id"]);
  });
});

describe("rows", () => {
  test("are packed by rising layer", () => {
    const content = packRows([row(5, 5, 6, 7, 8), row(2, 1, 2, 3, 4)], MODEL, "rows");
    expect([...content.layers]).toEqual([2, 5]);
    expect([...content.rows]).toEqual([1, 2, 3, 4, 5, 6, 7, 8]);
    expect(content.hiddenSize).toBe(4);
  });

  test("own their numbers: later changes of the request do not show", () => {
    const mine = row(0, 1, 2, 3, 4);
    const content = packRows([mine], MODEL, "rows");
    mine.values[0] = 9;
    expect(content.rows[0]).toBe(1);
  });

  test.each([
    ["none", [], "rows"],
    ["a layer outside the model", [row(8, 1, 2, 3, 4)], "rows[0].layer"],
    ["a negative layer", [row(-1, 1, 2, 3, 4)], "rows[0].layer"],
    ["a layer that is no integer", [row(1.5, 1, 2, 3, 4)], "rows[0].layer"],
    ["a layer twice", [row(1, 1, 2, 3, 4), row(1, 1, 2, 3, 4)], "rows[1].layer"],
    ["too few values", [row(1, 1, 2, 3)], "rows[0].data"],
    ["too many values", [row(1, 1, 2, 3, 4, 5)], "rows[0].data"],
    ["no values", [row(1)], "rows[0].data"],
    ["NaN", [row(0, 1, 2, 3, 4), row(1, 1, Number.NaN, 3, 4)], "rows[1].data"],
    ["infinity", [row(1, 1, 2, Number.NEGATIVE_INFINITY, 4)], "rows[0].data"],
    ["a norm whose square overflows", [row(1, 3e38, 0, 0, 0)], "rows[0].data"],
    ["more rows than layers", Array.from({ length: 9 }, () => row(1, 1, 2, 3, 4)), "rows"],
  ])("with %s are refused", (_, rows, field) => {
    expect(violationsOf(() => packRows(rows, MODEL, "rows"))).toEqual([field]);
  });

  test("every bad one is named at once", () => {
    const rows = [row(9, 1), row(1, 1, 2, 3, 4), row(1, Number.NaN, 2, 3, 4)];
    expect(violationsOf(() => packRows(rows, MODEL, "a.rows"))).toEqual([
      "a.rows[0].layer",
      "a.rows[0].data",
      "a.rows[2].layer",
      "a.rows[2].data",
    ]);
  });

  test("from the wire keep every bit, also from an odd address", () => {
    const values = Float32Array.from([1.5, -0, 1e-45, 3.4e38]);
    const shifted = new Uint8Array(17);
    shifted.set(floatBytes(values), 1);
    const [decoded] = rowsFromWire([{ layer: 3, data: shifted.subarray(1) }], "rows");
    expect(decoded?.layer).toBe(3);
    expect(floatBytes(decoded?.values ?? new Float32Array())).toEqual(floatBytes(values));
    expect([...floatsOf(Uint8Array.from([0, 0, 128, 63]))]).toEqual([1]);
  });

  test("from the wire with half a number are refused", () => {
    const rows = [{ layer: 1, data: new Uint8Array(15) }];
    expect(violationsOf(() => rowsFromWire(rows, "rows"))).toEqual(["rows[0].data"]);
  });

  test("have their l2 norms as stats", () => {
    const content = packRows([row(1, 3, 4, 0, 0), row(6, 0, 0, 0, 0)], MODEL, "rows");
    expect(statsOf(content)).toEqual([
      { layer: 1, l2Norm: 5, meanResidualNorm: 0 },
      { layer: 6, l2Norm: 0, meanResidualNorm: 0 },
    ]);
  });
});

describe("labels", () => {
  test("within the limits pass", () => {
    const labels = { a: "1", b: "", c: "äöü", "0123456789abcdef": "0123456789abcdef" };
    expect(() => checkLabels(labels, LIMITS, "labels")).not.toThrow();
  });

  test.each<[string, Record<string, string>]>([
    ["too many", { a: "", b: "", c: "", d: "", e: "" }],
    ["a long key", { "0123456789abcdefg": "" }],
    ["a value long in bytes, not in characters", { a: "äöüäöüäöü" }],
    ["an empty key", { "": "x" }],
    ["a lone surrogate", { a: "\ud800" }],
  ])("with %s are refused", (_, labels) => {
    expect(violationsOf(() => checkLabels(labels, LIMITS, "labels"))).toEqual(["labels"]);
  });
});
