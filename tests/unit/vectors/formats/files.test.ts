import { crc32, deflateRawSync } from "node:zlib";
import { describe, expect, it } from "vitest";
import { digestOf } from "../../../../src/vectors/digest.js";
import { exportFile } from "../../../../src/vectors/formats/export.js";
import type { FileFormat, LayerConvention } from "../../../../src/vectors/formats/file.js";
import { type ImportTask, importFile } from "../../../../src/vectors/formats/import.js";
import { encodeNpy } from "../../../../src/vectors/formats/npy.js";
import { encodeVector } from "../../../../src/vectors/formats/safetensors.js";
import { writeZip } from "../../../../src/vectors/formats/zip.js";
import { seededNormals } from "../../../../src/vectors/random.js";
import type { VectorRecord } from "../../../../src/vectors/vector.js";
import { DERIVATION } from "../fixtures.js";

const FORMATS: FileFormat[] = ["safetensors", "gguf", "svec", "npy", "npz", "json"];
const MODEL_LAYERS = 40;

function read(file: Uint8Array, options: Partial<ImportTask> = {}) {
  return importFile({
    kind: "import",
    file,
    format: null,
    convention: null,
    layers: [],
    hiddenSize: 3,
    modelLayers: MODEL_LAYERS,
    maxBytes: 1 << 20,
    ...options,
  });
}

function problemOf(file: Uint8Array, options: Partial<ImportTask> = {}): string {
  const result = read(file, options);
  return "problem" in result ? result.problem : `no problem: ${result.rows.length} rows`;
}

function recordOf(layers: number[], hiddenSize: number, rows: Float32Array): VectorRecord {
  const content = { hiddenSize, layers: Int32Array.from(layers), rows };
  return {
    kind: "vector",
    id: "a",
    digest: digestOf(content),
    hiddenSize,
    layers,
    stats: [],
    labels: {},
    derivation: DERIVATION,
    probe: null,
    createTime: new Date(0),
    revision: 1n,
    content,
  };
}

/** The same for the same seed: a subset of the blocks, values of all magnitudes. */
function randomRecord(seed: number, firstLayer = 0): VectorRecord {
  const random = [...seededNormals(BigInt(seed), 0, MODEL_LAYERS + 2)];
  const layers = random.flatMap((value, layer) =>
    value > 0.5 && layer >= firstLayer && layer < MODEL_LAYERS ? [layer] : [],
  );
  if (layers.length === 0) layers.push(7);
  const hiddenSize = 1 + (seed % 37);
  const values = [...seededNormals(BigInt(seed), 1, layers.length * hiddenSize)];
  const rows = Float32Array.from(values, (value, at) => value * 10 ** ((at % 30) - 20));
  rows[0] = -0;
  return recordOf(layers, hiddenSize, rows);
}

describe.each(FORMATS)("%s", (format) => {
  it.each(["block_output", "block_input"] as const)(
    "comes back bit for bit, by %s, and the same bytes again",
    (convention: LayerConvention) => {
      for (let seed = 1; seed <= 60; seed += 1) {
        // GGUF has no row 0.
        const record = randomRecord(
          seed,
          format === "gguf" && convention === "block_output" ? 1 : 0,
        );
        const { layers, hiddenSize } = record;
        const file = exportFile(record, format, convention, "llama");
        expect(exportFile(record, format, convention, "llama")).toEqual(file);
        const shift = convention === "block_input" ? 1 : 0;
        const result = read(file, {
          hiddenSize,
          convention,
          layers: format === "npy" ? layers.map((layer) => layer + shift) : [],
        });
        if ("problem" in result) throw new Error(result.problem);
        expect(result.rows.map(({ layer }) => layer)).toEqual(layers);
        const rows = Float32Array.from(result.rows.flatMap(({ values }) => [...values]));
        // JSON writes −0 as 0.
        const expected = Float32Array.from(record.content.rows);
        if (format === "json" || format === "svec") expected[0] = 0;
        expect(Buffer.from(rows.buffer)).toEqual(Buffer.from(expected.buffer));
      }
    },
  );

  it("cut anywhere it is refused", () => {
    const file = exportFile(randomRecord(5, 1), format, "block_output", "llama");
    const readSizes: number[] = [];
    for (let size = 0; size < file.byteLength; size += 1) {
      const options = { hiddenSize: 6, layers: [], format };
      // Padding behind the last GGUF tensor carries nothing.
      if (format === "gguf" && file.byteLength - size < 32) continue;
      const problem = problemOf(file.subarray(0, size), options);
      if (problem.startsWith("no problem")) readSizes.push(size);
    }
    expect(readSizes).toEqual([]);
  });

  it("with bytes behind its end it is refused", () => {
    const record = recordOf([1, 2], 3, Float32Array.of(1, 2, 3, 4, 5, 6));
    const file = exportFile(record, format, "block_output", "llama");
    const layers = format === "npy" ? [1, 2] : [];
    expect(problemOf(file, { layers })).toBe("no problem: 2 rows");
    const longer = Buffer.concat([file, Buffer.alloc(40, 1)]);
    expect(problemOf(new Uint8Array(longer), { layers })).not.toMatch(/^no problem/);
  });

  it("of another width, of other blocks, not finite or too long it is refused by row", () => {
    const export_ = (record: VectorRecord) => exportFile(record, format, "block_output", "llama");
    const ones = Float32Array.of(1, 1, 1, 1, 1, 1);
    const layers = format === "npy" ? [1, 2] : [];
    expect(problemOf(export_(recordOf([1, 2], 3, ones)), { hiddenSize: 4, layers })).toMatch(
      /^row 1 has 3 values; the hidden size is 4/,
    );
    expect(problemOf(export_(recordOf([1, 2], 3, ones)), { modelLayers: 2, layers })).toMatch(
      /^row 2 belongs to block 2; the model's last block is 1/,
    );
    const long = recordOf([1, 2], 3, Float32Array.of(1, 1, 1, 1, 2e18, 1));
    expect(problemOf(export_(long), { layers })).toMatch(/^row 2 its norm/);
    if (format === "json" || format === "svec") return;
    for (const value of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const bad = recordOf([1, 2], 3, Float32Array.of(1, 1, 1, 1, value, 1));
      expect(problemOf(export_(bad), { layers })).toMatch(/^row 2 value 1 is/);
    }
  });
});

it("block 0 has no row in GGUF, but one as the input of block 1", () => {
  const record = recordOf([0], 1, Float32Array.of(1));
  expect(() => exportFile(record, "gguf", "block_output", "llama")).toThrow(/^format: GGUF/);
  expect(
    read(exportFile(record, "gguf", "block_input", "llama"), {
      hiddenSize: 1,
      convention: "block_input",
    }),
  ).toEqual({
    rows: [{ layer: 0, values: Float32Array.of(1) }],
  });
});

describe("safetensors", () => {
  const record = recordOf([1], 3, Float32Array.of(1, 2, 3));

  it("says its convention itself, and is not read by another", () => {
    const file = exportFile(record, "safetensors", "block_input", "llama");
    expect(read(file)).toEqual({ rows: [{ layer: 1, values: Float32Array.of(1, 2, 3) }] });
    expect(problemOf(file, { convention: "block_output" })).toMatch(/convention is block_input/);
  });

  it("with rows that are not those of its digest is refused", () => {
    const file = exportFile(record, "safetensors", "block_output", "llama");
    file[file.byteLength - 1] = 0x41;
    expect(problemOf(file)).toMatch(/^damaged/);
  });

  it("is no pickle, however long its header", () => {
    const lengths = new Set<number>();
    for (let size = 0; size < 1600; size += 8) {
      const file = encodeVector(record.content, { note: "x".repeat(size) });
      lengths.add((file[0] ?? 0) + 256 * (file[1] ?? 0));
      expect(read(file)).toEqual({ rows: [{ layer: 1, values: Float32Array.of(1, 2, 3) }] });
    }
    // Headers of these lengths begin with 0x80 and a protocol of pickle.
    for (const length of [0x180, 0x280, 0x380, 0x480, 0x580]) expect(lengths).toContain(length);
  });

  it("with an unknown convention is refused", () => {
    const file = encodeVector(record.content, { convention: "sideways" });
    expect(problemOf(file)).toMatch(/unknown convention/);
  });
});

describe("JSON", () => {
  const json = (text: string) => new Uint8Array(Buffer.from(text));

  it.each([
    ["a key twice", '{"1": [1, 2, 3], "\\u0031": [4, 5, 6]}', /names "1" twice/],
    ["a row by two names", '{"1": [1, 2, 3], "layer.1": [4, 5, 6]}', /holds row 1 twice/],
    ["a number over float32", '{"1": [1, 2, 1e39]}', /row 1 value 2 is Infinity/],
    ["a text among the numbers", '{"1": [1, 2, "3"]}', /"1" is not a list of numbers/],
    ["null", '{"1": [1, 2, null]}', /"1" is not a list of numbers/],
    ["a nested list", '{"1": [[1, 2, 3]]}', /"1" is not a list of numbers/],
    ["another name", '{"norm": [1, 2, 3]}', /"norm" names no row/],
    ["a negative number", '{"-1": [1, 2, 3]}', /"-1" names no row/],
    ["no rows", "{}", /holds no row/],
    ["a list", "[1, 2, 3]", /no format that can be read/],
    ["directions that are none", '{"directions": [1]}', /no object "directions"/],
    ["an end too early", '{"1": [1, 2', /not JSON/],
    ["deep nesting", `{"1": ${"[".repeat(100_000)}`, /not JSON/],
  ])("with %s is refused", (_, text, problem) => {
    expect(problemOf(json(text))).toMatch(problem);
  });

  it("with bytes that are not UTF-8 is refused", () => {
    expect(problemOf(new Uint8Array(Buffer.from('{"\xff": 1}', "latin1")))).toMatch(/not UTF-8/);
  });
});

describe("npz", () => {
  const array = encodeNpy([3], Float32Array.of(1, 2, 3));
  const zip = (files: Record<string, Uint8Array>) => writeZip(new Map(Object.entries(files)));

  /** Changes a field of every entry of the directory; offsets and sizes as in the format. */
  function patched(file: Uint8Array, offset: number, bytes: 2 | 4, value: number): Uint8Array {
    const copy = Buffer.from(file);
    for (let at = 0; at + 46 <= copy.length; at += 1) {
      if (copy.readUInt32LE(at) === 0x02014b50) copy.writeUIntLE(value, at + offset, bytes);
    }
    return new Uint8Array(copy);
  }

  function deflated(content: Uint8Array): Uint8Array {
    const file = patched(zip({ "1.npy": deflateRawSync(content) }), 10, 2, 8);
    return patched(patched(file, 24, 4, content.byteLength), 16, 4, crc32(content));
  }

  it("may be deflated", () => {
    expect(read(deflated(array))).toEqual({
      rows: [{ layer: 1, values: Float32Array.of(1, 2, 3) }],
    });
  });

  it("that inflates to more than its limit is refused before it is inflated", () => {
    const bomb = deflated(encodeNpy([1 << 20], new Float32Array(1 << 20)));
    expect(bomb.byteLength).toBeLessThan(10_000);
    expect(problemOf(bomb)).toBe("inflates to more than 1048576 bytes");
  });

  it.each([
    ["less than it inflates to", 24, 4, 128, /cannot be unpacked|does not fit/],
    ["more than it inflates to", 24, 4, 200, /does not fit/],
    ["another checksum", 16, 4, 7, /does not fit/],
    ["an unknown method", 10, 2, 12, /cannot be unpacked \(method 12\)/],
    ["that it is encrypted", 8, 2, 1, /is encrypted/],
    ["another place", 42, 4, 1, /not where the directory says/],
    ["a place behind the file", 42, 4, 0xffffffff, /not where the directory says/],
    ["more packed bytes than there are", 20, 4, 0xffffffff, /ends behind the file/],
    ["a name that runs on", 28, 2, 0xffff, /directory is damaged|names no row/],
  ] as const)("that says %s is refused", (_, offset, bytes, value, problem) => {
    expect(problemOf(patched(deflated(array), offset, bytes, value))).toMatch(problem);
  });

  it.each([
    ["two names of one row", { "1.npy": array, "layer_1.npy": array }, /holds row 1 twice/],
    [
      "an array that is a matrix",
      { "1.npy": encodeNpy([3, 1], Float32Array.of(1, 2, 3)) },
      /shape \(3,1\)/,
    ],
    ["something else inside", { "1.npy": array, "readme.txt": array }, /"readme.txt" names no row/],
    ["a path", { "../1.npy": array }, /names no row/],
    ["nothing inside", {}, /no format that can be read/],
  ])("with %s is refused", (_, files, problem) => {
    expect(problemOf(zip(files as Record<string, Uint8Array>))).toMatch(problem);
  });

  it("with an entry twice is refused", () => {
    const file = zip({ "1.npy": array, "2.npy": array });
    for (let at = 0; at < file.byteLength - 5; at += 1) {
      if (Buffer.from(file.subarray(at, at + 5)).toString() === "2.npy") file[at] = 0x31;
    }
    expect(problemOf(file)).toMatch(/holds "1.npy" twice/);
  });

  it("with a comment is read, and refused when something follows it", () => {
    const file = Buffer.from(zip({ "1.npy": array }));
    file.writeUInt16LE(5, file.length - 2);
    const commented = Buffer.concat([file, Buffer.from("hello")]);
    expect(problemOf(new Uint8Array(commented))).toBe("no problem: 1 rows");
    const longer = Buffer.concat([commented, Buffer.from("!")]);
    expect(problemOf(new Uint8Array(longer))).toMatch(/its end is missing/);
  });
});

describe("npy", () => {
  const withHeader = (text: string) => {
    const header = Buffer.from(text);
    const length = Buffer.alloc(2);
    length.writeUInt16LE(header.length);
    const parts = [Buffer.from("\x93NUMPY\x01\x00", "latin1"), length, header, Buffer.alloc(12)];
    return new Uint8Array(Buffer.concat(parts));
  };

  it("takes the dict in any order and quoting", () => {
    const file = withHeader(`{"shape": (3,), "fortran_order": True, "descr": "<f4"}`);
    expect(read(file, { layers: [2] })).toEqual({
      rows: [{ layer: 2, values: Float32Array.of(0, 0, 0) }],
    });
  });

  it.each([
    ["a key too few", "{'descr': '<f4', 'shape': (3,)}"],
    ["a key twice", "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (3,)}"],
    ["a key too many", "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'x': (1,)}"],
    ["code", "{'descr': __import__('os'), 'fortran_order': False, 'shape': (3,)}"],
    ["a huge shape", "{'descr': '<f4', 'fortran_order': False, 'shape': (999999999, 999999999)}"],
    ["a negative size", "{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}"],
    ["values of the wrong kind", "{'descr': True, 'fortran_order': '<f4', 'shape': (3,)}"],
    ["no dict", "3"],
  ])("with %s in its header is refused", (_, text) => {
    expect(problemOf(withHeader(text), { layers: [2] })).toMatch(/header|bytes/);
  });
});

it("layers are refused for files that name their rows", () => {
  const file = new Uint8Array(Buffer.from('{"1": [1, 2, 3]}'));
  expect(problemOf(file, { layers: [1] })).toMatch(/layers are for .npy only/);
});
