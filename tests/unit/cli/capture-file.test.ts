import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { CommandError, UsageError } from "../../../src/cli/exit.js";
import { CaptureFile } from "../../../src/cli/files/capture-file.js";
import { readNpy } from "../../../src/cli/files/npy.js";
import { readSafetensors } from "../../../src/cli/files/safetensors.js";
import { type ActivationChunk, floatsToBytes } from "../../../src/client/client.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "capture-file-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

function chunk(fields: Partial<ActivationChunk> & { values: number[] }): ActivationChunk {
  const { values, ...rest } = fields;
  return {
    inputIndex: 0,
    site: "SITE_RESID_POST",
    layer: 0,
    positions: [0],
    tokenIds: [0],
    dtype: "D_TYPE_FLOAT32",
    shape: [String(values.length / 2), "2"],
    data: floatsToBytes(values),
    lens: [],
    ...rest,
  };
}

function write(name: string, chunks: [chunk: ActivationChunk, input: number][]): Buffer {
  const file = new CaptureFile(path.join(folder, name));
  try {
    for (const [part, input] of chunks) file.add(part, input);
    file.finish({ note: "x" });
  } finally {
    file.close();
  }
  return readFileSync(path.join(folder, name));
}

describe("a file of activations", () => {
  test("chunks that arrive interleaved are put together by input, site and layer", () => {
    const bytes = write("a.safetensors", [
      [chunk({ layer: 1, values: [1, 2], positions: [0], tokenIds: [9] }), 0],
      [chunk({ layer: 1, values: [5, 6], positions: [0], tokenIds: [7] }), 1],
      [chunk({ layer: 0, values: [7, 8] }), 0],
      [chunk({ layer: 1, values: [3, 4], positions: [1], tokenIds: [8] }), 0],
    ]);
    const floats = readSafetensors(onlyFloats(bytes), "a.safetensors");
    expect(floats.map(({ name, shape, values }) => [name, shape, [...values]])).toEqual([
      ["input.0.resid_post.layer.0", [1, 2], [7, 8]],
      ["input.0.resid_post.layer.1", [2, 2], [1, 2, 3, 4]],
      ["input.1.resid_post.layer.1", [1, 2], [5, 6]],
    ]);
    const header = headerOf(bytes);
    expect(header["__metadata__"]).toEqual({ note: "x" });
    expect(header["input.0.positions"]).toMatchObject({ dtype: "U32", shape: [2] });
    expect(table(bytes, "input.0.token_ids")).toEqual([9, 8]);
    expect(table(bytes, "input.1.token_ids")).toEqual([7]);
  });

  test(".npy of one layer is [rows, hidden], inputs one after the other", () => {
    const bytes = write("a.npy", [
      [chunk({ values: [5, 6] }), 1],
      [chunk({ values: [1, 2, 3, 4], positions: [0, 1] }), 0],
    ]);
    const { shape, values } = readNpy(bytes, "a.npy");
    expect(shape).toEqual([3, 2]);
    expect([...values]).toEqual([1, 2, 3, 4, 5, 6]);
  });

  test(".npy of several layers is [layers, rows, hidden]", () => {
    const bytes = write("a.npy", [
      [chunk({ layer: 4, values: [5, 6] }), 0],
      [chunk({ layer: 2, values: [1, 2] }), 0],
    ]);
    expect(readNpy(bytes, "a.npy")).toEqual({
      shape: [2, 1, 2],
      values: Float32Array.of(1, 2, 5, 6),
    });
  });

  test(".npy widens bfloat16, which NumPy has not", () => {
    const data = Buffer.from([0x80, 0x3f, 0x00, 0xc0]);
    const bf16 = chunk({ values: [0, 0], dtype: "D_TYPE_BFLOAT16", data });
    expect([...readNpy(write("a.npy", [[bf16, 0]]), "a.npy").values]).toEqual([1, -2]);
  });

  test("the data begin on a boundary of 64 bytes in .npy and 8 in .safetensors", () => {
    const npy = write("a.npy", [[chunk({ values: [1, 2] }), 0]]);
    expect((npy.length - 8) % 64).toBe(0);
    const safetensors = write("a.safetensors", [[chunk({ values: [1, 2] }), 0]]);
    expect(Number(safetensors.readBigUInt64LE()) % 8).toBe(0);
  });

  test("several sites do not fit into .npy; no file is left behind", () => {
    const both: [ActivationChunk, number][] = [
      [chunk({ values: [1, 2] }), 0],
      [chunk({ values: [1, 2], site: "SITE_MLP_OUT" }), 0],
    ];
    expect(() => write("a.npy", both)).toThrow(UsageError);
    expect(existsSync(path.join(folder, "a.npy"))).toBe(false);
    expect(existsSync(path.join(folder, "a.npy.tmp"))).toBe(false);
    expect(existsSync(path.join(folder, "a.npy.partial"))).toBe(false);
  });

  test("nothing captured is an error, not an empty file", () => {
    expect(() => write("a.npy", [])).toThrow(CommandError);
  });

  test("only the two formats", () => {
    expect(() => new CaptureFile(path.join(folder, "a.pt"))).toThrow(/must end in/);
  });
});

type Header = Record<string, { data_offsets: [number, number]; dtype: string }>;

function headerOf(bytes: Buffer): Header {
  return JSON.parse(bytes.toString("utf8", 8, dataStart(bytes)));
}
const dataStart = (bytes: Buffer) => 8 + Number(bytes.readBigUInt64LE());

function table(bytes: Buffer, name: string): number[] {
  const [begin, end] = headerOf(bytes)[name]?.data_offsets ?? [0, 0];
  const data = bytes.subarray(dataStart(bytes) + begin, dataStart(bytes) + end);
  return Array.from({ length: data.length / 4 }, (_, i) => data.readUInt32LE(i * 4));
}

/** The same file without its uint32 tables, which the reader of vectors refuses. */
function onlyFloats(bytes: Buffer): Buffer {
  const kept = Object.entries(headerOf(bytes)).filter(([, { dtype }]) => dtype !== "U32");
  const json = Buffer.from(JSON.stringify(Object.fromEntries(kept)));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  return Buffer.concat([length, json, bytes.subarray(dataStart(bytes))]);
}
