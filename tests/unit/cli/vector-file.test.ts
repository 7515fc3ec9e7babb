import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { UsageError } from "../../../src/cli/exit.js";
import { npyHeader } from "../../../src/cli/files/npy.js";
import { safetensorsHeader } from "../../../src/cli/files/safetensors.js";
import { readVectorFile } from "../../../src/cli/files/vector-file.js";
import { bytesToFloats, floatsToBytes, type LayerRow } from "../../../src/client/client.js";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), "vector-file-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, ...parts: (Buffer | string)[]): string {
  const full = path.join(folder, name);
  writeFileSync(full, Buffer.concat(parts.map((part) => Buffer.from(part as Buffer))));
  return full;
}

const plain = (rows: readonly LayerRow[]) =>
  rows.map(({ layer, data }) => ({ layer, values: [...bytesToFloats(data as Buffer)] }));

describe("rows of a vector from a file", () => {
  test(".npy: one row for one layer", () => {
    const npy = file("one.npy", npyHeader("<f4", [3]), floatsToBytes([1, -2, 0.5]));
    expect(plain(readVectorFile(npy, [4]))).toEqual([{ layer: 4, values: [1, -2, 0.5] }]);
  });

  test(".npy: as many rows as layers, float64 rounded to float32", () => {
    const data = Buffer.alloc(32);
    [0.1, 2, 3, 4].forEach((value, i) => {
      data.writeDoubleLE(value, i * 8);
    });
    const npy = file("two.npy", npyHeader("<f8", [2, 2]), data);
    expect(plain(readVectorFile(npy, [1, 6]))).toEqual([
      { layer: 1, values: [Math.fround(0.1), 2] },
      { layer: 6, values: [3, 4] },
    ]);
    expect(() => readVectorFile(npy, [1])).toThrow("has 2 row(s); name as many layers");
    expect(() => readVectorFile(npy, undefined)).toThrow("has 2 row(s)");
  });

  test(".safetensors: layer.<L>, in the order of the layers, or a selection", () => {
    const header = safetensorsHeader(
      [
        { name: "layer.7", type: "F32", shape: [2], sizeBytes: 8 },
        { name: "layer.3", type: "BF16", shape: [1, 2], sizeBytes: 4 },
      ],
      { id: "x" },
    );
    // bfloat16 1.0 is 0x3f80, −2.0 is 0xc000.
    const rows = file("v.safetensors", header, floatsToBytes([5, 6]), "\x80\x3f\x00\xc0");
    const bf16 = Buffer.from([0x80, 0x3f, 0x00, 0xc0]);
    writeFileSync(rows, Buffer.concat([header, floatsToBytes([5, 6]), bf16]));
    expect(plain(readVectorFile(rows, undefined))).toEqual([
      { layer: 3, values: [1, -2] },
      { layer: 7, values: [5, 6] },
    ]);
    expect(plain(readVectorFile(rows, [7]))).toEqual([{ layer: 7, values: [5, 6] }]);
    expect(() => readVectorFile(rows, [4])).toThrow("holds no row for layer 4");
  });

  test(".json: an object of layers", () => {
    const json = file("v.json", JSON.stringify({ "4": [1, 2], "layer.2": [3, 4] }));
    expect(plain(readVectorFile(json, undefined))).toEqual([
      { layer: 2, values: [3, 4] },
      { layer: 4, values: [1, 2] },
    ]);
  });

  const badNpy = npyHeader("<f4", [2]);
  test.each<[name: string, content: (Buffer | string)[], message: RegExp]>([
    ["a.json", ["[1, 2]"], /must be an object of layers/],
    ["b.json", ["{"], /is not JSON/],
    ["c.json", ['{"x": [1]}'], /"x" names no layer/],
    ["d.json", ['{"1": ["a"]}'], /is not a list of numbers/],
    ["a.npy", ["hello world, no array"], /not a \.npy file/],
    ["b.npy", [badNpy, Buffer.alloc(7)], /has 7 bytes of data; its shape needs 8/],
    ["c.npy", [badNpy.toString("latin1").replace("<f4", "<i4")], /save it as float32/],
    ["d.npy", [badNpy.toString("latin1").replace("False", "True ")], /Fortran order/],
    ["a.safetensors", ["xx"], /not a safetensors file/],
    ["b.safetensors", [Buffer.from("ffffffffffffff7f", "hex"), "{}"], /or truncated/],
    ["c.safetensors", [Buffer.from("0200000000000000", "hex"), "[["], /not JSON/],
    ["a.pt", ["x"], /pickle files can run code/],
    ["a.txt", ["x"], /must end in/],
  ])("refuses %s", (name, content, message) => {
    const full = file(name, ...content.map((part) => Buffer.from(part as string, "latin1")));
    expect(() => readVectorFile(full, [0])).toThrow(message);
    expect(() => readVectorFile(full, [0])).toThrow(UsageError);
  });

  test.each([
    [[0, 4], [2], /do not fit/],
    [[0, 800], [200], /do not fit/],
    [[0, 8], [-2], /malformed/],
    [[0], [2], /malformed/],
  ])("refuses offsets %j with shape %j", (offsets, shape, message) => {
    const entry = { "layer.0": { dtype: "F32", shape, data_offsets: offsets } };
    const json = Buffer.from(JSON.stringify(entry));
    const length = Buffer.alloc(8);
    length.writeBigUInt64LE(BigInt(json.length));
    const full = file("offsets.safetensors", length, json, Buffer.alloc(8));
    expect(() => readVectorFile(full, undefined)).toThrow(message);
  });

  test("a missing file is named", () => {
    expect(() => readVectorFile(path.join(folder, "none.json"), undefined)).toThrow(/none\.json/);
  });
});
