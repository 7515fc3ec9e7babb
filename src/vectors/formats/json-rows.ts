/**
 * Rows as JSON: `{"<L>": [numbers], …}`, and the `.svec` of IBM's activation-steering,
 * `{"model_type", "directions": {"<L>": [numbers]}, "explained_variances"}`.
 */
import { firstDuplicateKey, isObject, type JsonObject, reasonOf } from "../../model/json.js";
import { checkRows, decodeText, type FileRow, quote, rowNumber, VectorFileError } from "./file.js";

/** Throws a VectorFileError. */
export function decodeJsonRows(file: Uint8Array): FileRow[] {
  return rowsOf(parseObject(file));
}

/** Throws a VectorFileError. */
export function decodeSvec(file: Uint8Array): FileRow[] {
  const { directions } = parseObject(file);
  if (!isObject(directions)) throw new VectorFileError('has no object "directions"');
  return rowsOf(directions);
}

export function encodeJsonRows(rows: readonly FileRow[]): Uint8Array {
  return Buffer.from(JSON.stringify(objectOf(rows)));
}

/** No variances are told: they are those of CAST's own PCA. */
export function encodeSvec(rows: readonly FileRow[], modelType: string): Uint8Array {
  return Buffer.from(
    JSON.stringify({
      model_type: modelType,
      directions: objectOf(rows),
      explained_variances: {},
    }),
  );
}

/** Whether JSON text is an `.svec` rather than plain rows. */
export function isSvec(file: Uint8Array): boolean {
  return "directions" in parseObject(file);
}

function parseObject(file: Uint8Array): JsonObject {
  const text = decodeText(file, "the file");
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new VectorFileError(`not JSON (which has no NaN and no Infinity): ${reasonOf(error)}`);
  }
  if (!isObject(value)) throw new VectorFileError("not a JSON object");
  const twice = firstDuplicateKey(text);
  if (twice !== null) throw new VectorFileError(`names ${quote(twice)} twice`);
  return value;
}

function rowsOf(object: JsonObject): FileRow[] {
  const rows = Object.entries(object).map(([name, values]) => {
    if (!Array.isArray(values) || !values.every((value) => typeof value === "number")) {
      throw new VectorFileError(`${quote(name)} is not a list of numbers`);
    }
    return { number: rowNumber(name), values: Float32Array.from(values) };
  });
  return checkRows(rows);
}

function objectOf(rows: readonly FileRow[]): Record<string, number[]> {
  return Object.fromEntries(rows.map(({ number, values }) => [String(number), [...values]]));
}
