/** Files that numpy, gguf, safetensors and json wrote. */
import { describe, expect, it } from "vitest";
import { type ImportTask, importFile } from "../../../../src/vectors/formats/import.js";
import {
  BAD_FILES,
  GOOD_FILES,
  RECORDED_MODEL,
  RECORDED_ROWS,
} from "../../../support/recorded-files.js";

function read(file: Uint8Array | undefined, options: Partial<ImportTask> = {}) {
  return importFile({
    kind: "import",
    file: file ?? new Uint8Array(),
    format: null,
    convention: null,
    layers: [],
    ...RECORDED_MODEL,
    maxBytes: 10_000,
    ...options,
  });
}

describe("files of others", () => {
  it.each([...GOOD_FILES])("%s has the rows that were written", (name, file) => {
    const layers = name.endsWith(".npy") ? [1, 3] : [];
    expect(read(file, { layers })).toEqual({ rows: RECORDED_ROWS });
  });

  it.each([...GOOD_FILES])("%s can belong to the blocks below", (name, file) => {
    const layers = name.endsWith(".npy") ? [1, 3] : [];
    expect(read(file, { layers, convention: "block_input" })).toEqual({
      rows: RECORDED_ROWS.map(({ layer, values }) => ({ layer: layer - 1, values })),
    });
  });

  it("a .npy with a row for every block needs no layers", () => {
    const file = GOOD_FILES.get("f4.npy");
    expect(read(file, { modelLayers: 2 })).toEqual({
      rows: RECORDED_ROWS.map(({ values }, layer) => ({ layer, values })),
    });
    expect(read(file)).toEqual({ problem: expect.stringContaining("name the layers of the rows") });
  });

  it.each([
    ["protocol-2.pkl", /pickle file: .*save_file/],
    ["protocol-5.pkl", /pickle file: .*save_file/],
    ["torch.pt", /pickle file: .*save_file/],
    ["object.npy", /type "\|O" \(an array of Python objects, which is a pickle\)/],
    ["big-endian.npy", /type ">f4"; <f2, <f4, <f8 can be read/],
    ["integers.npy", /type "<i4"/],
    ["scalar.npy", /shape \(\) is not/],
    ["cube.npy", /shape \(1,2,5\) is not/],
    ["f16.gguf", /tensor "direction.1" is not F32 \(ggml type 1\)/],
    ["matrix.gguf", /tensor "direction.1" has 2 dimensions, not 1/],
    ["other.gguf", /general.architecture is "llama", not "controlvector"/],
    ["nan.json", /not JSON \(which has no NaN and no Infinity\)/],
  ])("%s is refused", (name, problem) => {
    expect(read(BAD_FILES.get(name), { layers: name.endsWith(".npy") ? [1, 3] : [] })).toEqual({
      problem: expect.stringMatching(problem),
    });
  });

  it("a pickle is refused whatever it is called", () => {
    for (const format of ["safetensors", "npz", "npy", "json", "gguf", "svec"] as const) {
      for (const name of ["torch.pt", "protocol-5.pkl"]) {
        expect(read(BAD_FILES.get(name), { format })).toEqual({
          problem: expect.stringContaining("a pickle can run code"),
        });
      }
    }
  });
});
