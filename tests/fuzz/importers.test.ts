/**
 * Every importer under mutated files: it gives rows that fit the model, or says what is wrong; it
 * never throws, never gives anything else, and takes no more memory than its limit. Longer runs:
 * node tests/fuzz/run.mjs --minutes 10 [--target gguf] [--seed 7]
 */
import { describe, expect, it } from "vitest";
import { digestOf } from "../../src/vectors/digest.js";
import { exportFile } from "../../src/vectors/formats/export.js";
import type { FileFormat } from "../../src/vectors/formats/file.js";
import { type ImportTask, importFile } from "../../src/vectors/formats/import.js";
import { packRows, type VectorRecord } from "../../src/vectors/vector.js";
import { BAD_FILES, GOOD_FILES, RECORDED_MODEL, RECORDED_ROWS } from "../support/recorded-files.js";
import { report, runsOf, seedOf, timeoutMs } from "./length.js";
import { mutate, pick, type Random, randomOf } from "./mutate.js";

const FORMATS: FileFormat[] = ["safetensors", "gguf", "svec", "npy", "npz", "json"];
const RUNS = 4000;
const MODEL = { hiddenSize: RECORDED_MODEL.hiddenSize, layers: RECORDED_MODEL.modelLayers };
const MAX_BYTES = 1 << 16;

function record(): VectorRecord {
  const content = packRows(RECORDED_ROWS, MODEL, "rows");
  return {
    kind: "vector",
    id: "a",
    digest: digestOf(content),
    hiddenSize: content.hiddenSize,
    layers: [...content.layers],
    stats: [],
    labels: {},
    derivation: null,
    probe: null,
    createTime: new Date(0),
    revision: 1n,
    content,
  };
}

const OTHERS = [...GOOD_FILES.values(), ...BAD_FILES.values()];

function corpusOf(format: FileFormat): Uint8Array[] {
  const own = [...GOOD_FILES, ...BAD_FILES].filter(([name]) => name.endsWith(`.${format}`));
  const exported = (["block_output", "block_input"] as const).map((convention) =>
    exportFile(record(), format, convention, "llama"),
  );
  return [...own.map(([, file]) => file), ...exported];
}

function optionsOf(random: Random, format: FileFormat): Omit<ImportTask, "kind" | "file"> {
  return {
    format: pick(random, [format, format, null, null, null, pick(random, FORMATS)]),
    convention: pick(random, [null, "block_output", "block_input"] as const),
    layers: format === "npy" ? pick(random, [[1, 3], [1, 3], [1, 3], [1], []]) : [],
    ...RECORDED_MODEL,
    maxBytes: MAX_BYTES,
  };
}

/** How often rows came out. */
function fuzz(format: FileFormat, seed: number, corpus: readonly Uint8Array[]): boolean {
  const random = randomOf(seed);
  const file = mutate(pick(random, corpus), random, OTHERS);
  const options = optionsOf(random, format);
  const given = new Uint8Array(file);
  try {
    const result = importFile({ kind: "import", file, ...options });
    // Plain comparisons: a matcher costs more than an import.
    if (Buffer.compare(file, given) !== 0) throw new Error("the file was changed");
    if ("problem" in result) {
      const { length } = result.problem.trim();
      if (length === 0 || length > 1000) throw new Error(`a problem of ${length} characters`);
      return false;
    }
    // Throws for anything that must not reach the engine.
    packRows(result.rows, MODEL, "rows");
    return true;
  } catch (error) {
    const base64 = Buffer.from(given).toString("base64");
    throw new Error(`seed ${seed}, ${JSON.stringify(options)}, file ${base64}`, { cause: error });
  }
}

describe.each(FORMATS)("%s", (format) => {
  it("survives every mutation", { timeout: timeoutMs }, () => {
    const corpus = corpusOf(format);
    const isDue = runsOf(RUNS);
    let runs = 0;
    let read = 0;
    for (; isDue(runs); runs += 1) {
      if (fuzz(format, seedOf(runs), corpus)) read += 1;
    }
    // Both ways are walked: mutations that only break the first byte would show nothing.
    expect(read).toBeGreaterThan(runs / 200);
    expect(read).toBeLessThan(runs);
    report(format, runs, `${read} files were read, the others refused`);
  });
});
