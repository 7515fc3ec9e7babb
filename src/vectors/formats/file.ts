/** What the parsers of vector files have in common. They trust nothing and never run anything. */

/** What is wrong with the bytes of a file, in words for who sent it. */
export class VectorFileError extends Error {
  override readonly name = "VectorFileError";
}

export type FileFormat = "safetensors" | "gguf" | "svec" | "npy" | "npz" | "json";

/**
 * What the number N of a row means: the stream after block N, or the one before it, which is that
 * after block N − 1.
 */
export type LayerConvention = "block_output" | "block_input";

/** A row as a file has it. */
export interface FileRow {
  /** In the file's convention. */
  number: number;
  /** [hidden size], any values. */
  values: Float32Array;
}

/** More rows than any model has blocks. */
export const MAX_ROWS = 4096;

const ROW_NAME = /^(?:layer[._])?(0|[1-9][0-9]{0,3})$/;

/** The number in "14", "layer.14" or "layer_14". */
export function rowNumber(name: string): number {
  const digits = ROW_NAME.exec(name)?.[1];
  if (digits === undefined) {
    throw new VectorFileError(`${quote(name)} names no row; "14", "layer.14" and "layer_14" do`);
  }
  return Number(digits);
}

/** Throws for a number that is there twice, for too many rows and for none. */
export function checkRows(rows: readonly FileRow[]): FileRow[] {
  if (rows.length === 0) throw new VectorFileError("holds no row");
  if (rows.length > MAX_ROWS) {
    throw new VectorFileError(`holds ${rows.length} rows; the limit is ${MAX_ROWS}`);
  }
  const seen = new Set<number>();
  for (const { number } of rows) {
    if (seen.has(number)) throw new VectorFileError(`holds row ${number} twice`);
    seen.add(number);
  }
  return [...rows].sort((a, b) => a.number - b.number);
}

const MAX_QUOTED_CHARACTERS = 64;

/** A text of the file, cut short. */
export function quote(text: string): string {
  const short = text.length > MAX_QUOTED_CHARACTERS;
  return JSON.stringify(short ? `${text.slice(0, MAX_QUOTED_CHARACTERS)}…` : text);
}

/** Throws for bytes that are not UTF-8. */
export function decodeText(bytes: Uint8Array, what: string): string {
  try {
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new VectorFileError(`${what} is not UTF-8`);
  }
}
