/** Vector files that other libraries wrote; see tests/unit/vectors/formats/record_files.py. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { REPOSITORY } from "./tiny-checkpoint.js";

interface Recorded {
  good: Record<string, string>;
  bad: Record<string, string>;
}

const recorded: Recorded = JSON.parse(
  readFileSync(path.join(REPOSITORY, "tests/unit/vectors/formats/recorded.json"), "utf8"),
);

function decoded(files: Record<string, string>): Map<string, Uint8Array> {
  return new Map(
    Object.entries(files).map(([name, text]) => [
      name,
      new Uint8Array(Buffer.from(text, "base64")),
    ]),
  );
}

/** Rows 1 and 3 of width 5, whatever the format. */
export const GOOD_FILES = decoded(recorded.good);
/** Files that are refused. */
export const BAD_FILES = decoded(recorded.bad);

export const RECORDED_ROWS = [
  { layer: 1, values: Float32Array.of(0.5, -1.25, 3, 0, 1024) },
  { layer: 3, values: Float32Array.of(-0, 2, 6.103515625e-5, 7.5, -8) },
];
export const RECORDED_MODEL = { hiddenSize: 5, modelLayers: 4 };
