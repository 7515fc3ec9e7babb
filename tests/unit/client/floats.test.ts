import { describe, expect, test } from "vitest";
import { bytesToFloats, decodeFloats, floatsToBytes } from "../../../src/client/floats.js";

describe("floats as bytes", () => {
  test("float32 survives the round trip bit for bit, from any offset", () => {
    const values = Float32Array.of(0, -0, 1.5, Math.fround(Math.PI), 1e-45, 3.4e38);
    const bytes = floatsToBytes(values);
    expect(bytesToFloats(bytes)).toEqual(values);
    const shifted = Buffer.concat([Buffer.alloc(1), bytes]).subarray(1);
    expect(bytesToFloats(shifted)).toEqual(values);
  });

  test("float32 is little-endian", () => {
    expect([...floatsToBytes([1])]).toEqual([0, 0, 0x80, 0x3f]);
  });

  test.each([
    [0x3f80, 1],
    [0xc000, -2],
    [0x0000, 0],
    [0x7f80, Number.POSITIVE_INFINITY],
    [0x7fc0, Number.NaN],
    [0x0001, 2 ** -133],
  ])("bfloat16 %i is %d", (bits, value) => {
    expect(decodeFloats(uint16(bits), "D_TYPE_BFLOAT16")[0]).toBe(value);
  });

  test.each([
    [0x3c00, 1],
    [0xc000, -2],
    [0x8000, -0],
    [0x7bff, 65504],
    [0x0400, 2 ** -14],
    [0x0001, 2 ** -24],
    [0x03ff, 1023 * 2 ** -24],
    [0x3555, 1365 / 4096],
    [0xfc00, Number.NEGATIVE_INFINITY],
    [0x7e00, Number.NaN],
  ])("float16 %i is %d", (bits, value) => {
    expect(decodeFloats(uint16(bits), "D_TYPE_FLOAT16")[0]).toBe(value);
  });

  test("a cut value is refused", () => {
    expect(() => bytesToFloats(Buffer.alloc(5))).toThrow(RangeError);
    expect(() => decodeFloats(Buffer.alloc(3), "D_TYPE_FLOAT16")).toThrow(RangeError);
  });
});

function uint16(bits: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(bits);
  return bytes;
}
