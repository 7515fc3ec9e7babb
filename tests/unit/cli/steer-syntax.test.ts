import { describe, expect, test } from "vitest";
import { parseSteer } from "../../../src/cli/arguments/steer-syntax.js";

const steering = (text: string) => parseSteer(text).steering;

describe("--steer", () => {
  test.each([
    ["sentiment", { vectorId: "sentiment" }],
    ["sentiment:4", { vectorId: "sentiment", coefficient: 4 }],
    ["a.b_c-d:-0.5e1", { vectorId: "a.b_c-d", coefficient: -5 }],
    [
      "sentiment@sha256:0123456789ab:2",
      { vectorId: "sentiment@sha256:0123456789ab", coefficient: 2 },
    ],
    ["x:1:3-5,7", { vectorId: "x", coefficient: 1, layers: [3, 4, 5, 7] }],
    ["x:1:7,3,3-4", { vectorId: "x", coefficient: 1, layers: [3, 4, 7] }],
    ["x:project-out", { vectorId: "x", operation: "OPERATION_PROJECT_OUT" }],
    ["x:2:scale", { vectorId: "x", coefficient: 2, operation: "OPERATION_SCALE_COMPONENT" }],
    [
      "x:1:clamp(-1.5,2)",
      { vectorId: "x", coefficient: 1, operation: "OPERATION_CLAMP", clampMin: -1.5, clampMax: 2 },
    ],
    ["x:clamp(,0)", { vectorId: "x", operation: "OPERATION_CLAMP", clampMax: 0 }],
    ["x:1:generated", { vectorId: "x", coefficient: 1, positions: { generated: {} } }],
    ["x:1:[-3..]", { vectorId: "x", coefficient: 1, positions: { range: { start: -3 } } }],
    ["x:1:[2..9]", { vectorId: "x", coefficient: 1, positions: { range: { start: 2, end: 9 } } }],
    ["x:1:[..]", { vectorId: "x", coefficient: 1, positions: { range: {} } }],
    [
      "x:1:preserve-norm:prompt:add:4",
      {
        vectorId: "x",
        coefficient: 1,
        layers: [4],
        operation: "OPERATION_ADD",
        positions: { prompt: {} },
        preserveNorm: true,
      },
    ],
  ])("%s", (text, expected) => {
    expect(steering(text)).toEqual(expected);
  });

  test("rows from a file", () => {
    expect(parseSteer("@dir/v.safetensors:4:3")).toEqual({
      steering: { coefficient: 4, layers: [3] },
      file: "dir/v.safetensors",
    });
  });

  test.each([
    ["", /begins with neither/],
    ["UPPER:1", /begins with neither/],
    ["../etc/passwd", /begins with neither/],
    ["x@sha256:0123:1", /begins with neither/],
    ["@rows.pt:1", /begins with neither/],
    ["x:", /ends with ":"/],
    ["x:1:", /ends with ":"/],
    ["x::4", /"" is neither/],
    ["x:3-5", /layers come after a coefficient, as in ID:1:3-5/],
    ["x:1:5-3", /"5-3" is neither/],
    ["x:1:0-4000000000", /is neither/],
    ["x:1:sideways", /"sideways" is neither layers/],
    ["x:1:add:project-out", /two parts give an operation/],
    ["x:1:3:4", /two parts give layers/],
    ["x:1:all:prompt", /two parts give tokens/],
    ["x:1:preserve-norm:preserve-norm", /two parts give preserve-norm/],
    ["x:1:clamp(,)", /clamp needs a bound/],
    ["x:1:clamp(a,1)", /"a" is not a number/],
    ["x:1e999", /"1e999" is not a number/],
    ["x:1:__proto__", /is neither/],
    ["x:1:constructor", /is neither/],
  ])("refuses %j", (text, message) => {
    expect(() => parseSteer(text)).toThrow(message);
  });
});
