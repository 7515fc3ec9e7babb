import { describe, expect, test } from "vitest";
import { digestOf } from "../../../src/vectors/digest.js";
import { decodeVector, encodeVector } from "../../../src/vectors/formats/safetensors.js";
import { contentOf } from "./fixtures.js";

const content = contentOf([0, 11], [1, -2.5, 1e-40, 4, 5, 6, 7, -0]);

function file(header: unknown, data: Uint8Array = new Uint8Array()): Uint8Array {
  const json = Buffer.from(typeof header === "string" ? header : JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, data]);
}

const floats = (...values: number[]) => new Uint8Array(Float32Array.from(values).buffer);
const tensor = (begin: number, end: number, more: object = {}) => ({
  dtype: "F32",
  shape: [(end - begin) / 4],
  data_offsets: [begin, end],
  ...more,
});

test("what was written is read again, bit for bit", () => {
  const metadata = { id: "a", note: 'quotes " and ü' };
  const decoded = decodeVector(encodeVector(content, metadata));
  expect(digestOf(decoded.content)).toBe(digestOf(content));
  expect(decoded.metadata).toEqual(metadata);
});

test("the same content and texts give the same bytes, in any order of the texts", () => {
  const one = encodeVector(content, { a: "1", b: "2" });
  expect(Buffer.from(encodeVector(content, { b: "2", a: "1" })).equals(Buffer.from(one))).toBe(
    true,
  );
});

test("the data are aligned to 8 bytes", () => {
  for (let length = 0; length < 8; length += 1) {
    const bytes = Buffer.from(encodeVector(content, { x: "y".repeat(length) }));
    expect(Number(bytes.readBigUInt64LE(0)) % 8).toBe(0);
    expect(digestOf(decodeVector(bytes).content)).toBe(digestOf(content));
  }
});

test("layers may stand in any order in a file", () => {
  const header = { "layer.7": tensor(0, 8), "layer.2": tensor(8, 16) };
  const decoded = decodeVector(file(header, floats(1, 2, 3, 4)));
  expect([...decoded.content.layers]).toEqual([2, 7]);
  expect([...decoded.content.rows]).toEqual([3, 4, 1, 2]);
});

describe("a file is refused", () => {
  const good = floats(1, 2, 3, 4);
  test.each<[string, Uint8Array, RegExp]>([
    ["that is empty", new Uint8Array(), /truncated: 0 bytes/],
    ["shorter than its length", new Uint8Array(7), /truncated/],
    ["whose header is longer than the file", file("{}").subarray(0, 9), /claims 2 bytes/],
    ["with a huge header", Uint8Array.from([255, 255, 255, 255, 255, 255, 255, 255]), /claims/],
    ["whose header is no JSON", file("{"), /not JSON/],
    ["whose header is a list", file("[]"), /not a JSON object/],
    ["whose header is not UTF-8", file("{}").fill(0xff, 8), /not UTF-8/],
    ["without layers", file({}), /no layer/],
    ["with a foreign name", file({ "layer.x": tensor(0, 16) }, good), /not named layer/],
    ["with a signed layer", file({ "layer.-1": tensor(0, 16) }, good), /not named layer/],
    ["with a padded layer", file({ "layer.01": tensor(0, 16) }, good), /not named layer/],
    ["with F16", file({ "layer.1": { ...tensor(0, 16), dtype: "F16", shape: [8] } }, good), /F32/],
    ["with F64", file({ "layer.1": { ...tensor(0, 16), dtype: "F64", shape: [2] } }, good), /F64/],
    ["with a matrix", file({ "layer.1": tensor(0, 16, { shape: [2, 2] }) }, good), /one row/],
    ["with NaN", file({ "layer.1": tensor(0, 8) }, floats(Number.NaN, 1)), /value 0 is NaN/],
    [
      "with rows of two sizes",
      file({ "layer.1": tensor(0, 8), "layer.2": tensor(8, 12) }, floats(1, 2, 3)),
      /has 1 values; the hidden size is 2/,
    ],
    [
      "with a layer twice",
      file(
        `{"layer.1":${JSON.stringify(tensor(0, 8))},"layer.1":${JSON.stringify(tensor(8, 16))}}`,
        good,
      ),
      /"layer.1" twice/,
    ],
    ["with bytes behind", file({ "layer.1": tensor(0, 12) }, good), /4 bytes behind/],
    ["with a hole", file({ "layer.1": tensor(4, 16) }, good), /belong to none/],
  ])("%s", (_, bytes, message) => {
    expect(() => decodeVector(bytes)).toThrow(message);
  });
});
