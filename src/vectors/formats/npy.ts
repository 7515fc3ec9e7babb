/**
 * NumPy arrays of float16, float32 or float64: `.npy`, and zips of them, `.npz`.
 * Format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 */
import { floatBytes, floatsOf } from "../vector.js";
import { checkRows, decodeText, type FileRow, quote, rowNumber, VectorFileError } from "./file.js";
import { fromFloat16, fromFloat64 } from "./floats.js";
import { readZip, writeZip } from "./zip.js";

const MAGIC = Buffer.from("\x93NUMPY", "latin1");
const MAX_HEADER_BYTES = 65_536;
/** The header ends on a multiple of this. */
const ALIGNMENT_BYTES = 64;

const TYPES = new Map([
  ["<f2", { bytes: 2, decode: fromFloat16 }],
  ["<f4", { bytes: 4, decode: floatsOf }],
  ["<f8", { bytes: 8, decode: fromFloat64 }],
]);

export interface NpyArray {
  shape: number[];
  /** Row-major. */
  values: Float32Array;
}

/** Throws a VectorFileError. */
export function decodeNpy(file: Uint8Array): NpyArray {
  if (!MAGIC.equals(file.subarray(0, MAGIC.length))) throw new VectorFileError("not a .npy file");
  const [major = 0] = file.subarray(MAGIC.length);
  const lengthBytes = major === 1 ? 2 : 4;
  const start = MAGIC.length + 2 + lengthBytes;
  if (major < 1 || major > 3) throw new VectorFileError(`.npy version ${major} is not known`);
  if (file.byteLength < start) throw new VectorFileError("truncated: no .npy header");
  const view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  const length = major === 1 ? view.getUint16(start - 2, true) : view.getUint32(start - 4, true);
  const end = start + length;
  if (length > MAX_HEADER_BYTES || end > file.byteLength) {
    throw new VectorFileError(`the .npy header claims ${length} bytes`);
  }
  const header = parseHeader(decodeText(file.subarray(start, end), "the .npy header"));
  return decodeData(header, file.subarray(end));
}

export function encodeNpy(shape: readonly number[], values: Float32Array): Uint8Array {
  const size = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const text = `{'descr': '<f4', 'fortran_order': False, 'shape': (${size}), }`;
  const start = MAGIC.length + 4;
  const padded = Math.ceil((start + text.length + 1) / ALIGNMENT_BYTES) * ALIGNMENT_BYTES - start;
  const length = Buffer.alloc(2);
  length.writeUInt16LE(padded);
  const header = Buffer.from(`${text.padEnd(padded - 1)}\n`, "latin1");
  return Buffer.concat([MAGIC, Buffer.of(1, 0), length, header, floatBytes(values)]);
}

/** `maxBytes`: of all arrays together, inflated. Throws a VectorFileError. */
export function decodeNpz(file: Uint8Array, maxBytes: number): FileRow[] {
  const rows = [...readZip(file, maxBytes)].map(([name, content]) => {
    const row = name.replace(/\.npy$/, "");
    const { shape, values } = decodeNpy(content);
    if (shape.length !== 1 && !(shape.length === 2 && shape[0] === 1)) {
      throw new VectorFileError(`${quote(name)} has shape (${shape}), not (hidden size,)`);
    }
    return { number: rowNumber(row), values };
  });
  return checkRows(rows);
}

/** The same rows give the same bytes. */
export function encodeNpz(rows: readonly FileRow[]): Uint8Array {
  const files = rows.map(({ number, values }): [string, Uint8Array] => [
    `layer.${number}.npy`,
    encodeNpy([values.length], values),
  ]);
  return writeZip(new Map(files));
}

interface NpyHeader {
  descr: string;
  fortranOrder: boolean;
  shape: number[];
}

const ENTRY =
  /\s*(['"])(descr|fortran_order|shape)\1\s*:\s*(?:(['"])([^'"\\]{1,16})\3|(True|False)|\(([\d,\s]*)\))\s*(?:,|$)/y;

/** A Python dict literal with just these three keys. */
function parseHeader(text: string): NpyHeader {
  const inner = /^\s*\{(.*)\}\s*$/s.exec(text)?.[1]?.trimEnd();
  if (inner === undefined) throw new VectorFileError("the .npy header is not a dict");
  const found = new Map<string, string>();
  ENTRY.lastIndex = 0;
  let end = 0;
  for (let match = ENTRY.exec(inner); match; match = ENTRY.exec(inner)) {
    const [, , key = "", , word, flag, sizes] = match;
    if (found.has(key)) throw new VectorFileError(`the .npy header names ${key} twice`);
    const kinds: Record<string, string | undefined> = {
      descr: word,
      fortran_order: flag,
      shape: sizes,
    };
    const value = kinds[key];
    if (value === undefined) throw new VectorFileError(`the .npy header's ${key} is not one`);
    found.set(key, value);
    end = ENTRY.lastIndex;
  }
  if (inner.slice(end).trim() !== "" || found.size !== 3) {
    throw new VectorFileError("the .npy header is not {'descr', 'fortran_order', 'shape'}");
  }
  const sizes = (found.get("shape") ?? "").split(",").map((size) => size.trim());
  if (sizes.at(-1) === "") sizes.pop();
  if (sizes.some((size) => !/^(0|[1-9][0-9]{0,8})$/.test(size))) {
    throw new VectorFileError("the .npy header's shape is not one");
  }
  return {
    descr: found.get("descr") ?? "",
    fortranOrder: found.get("fortran_order") === "True",
    shape: sizes.map(Number),
  };
}

function decodeData({ descr, fortranOrder, shape }: NpyHeader, data: Uint8Array): NpyArray {
  const type = TYPES.get(descr);
  if (!type) {
    const pickled = descr.includes("O") ? " (an array of Python objects, which is a pickle)" : "";
    throw new VectorFileError(
      `type ${quote(descr)}${pickled}; ${[...TYPES.keys()].join(", ")} can be read`,
    );
  }
  if (shape.length < 1 || shape.length > 2 || shape.includes(0)) {
    throw new VectorFileError(`shape (${shape}) is not (hidden size,) or (rows, hidden size)`);
  }
  const wanted = shape.reduce((product, size) => product * size, type.bytes);
  if (data.byteLength !== wanted) {
    throw new VectorFileError(`has ${data.byteLength} bytes; shape (${shape}) takes ${wanted}`);
  }
  const values = type.decode(data);
  const [rows = 1, columns = 1] = shape;
  if (!fortranOrder || shape.length === 1) return { shape, values };
  const turned = values.map(
    (_, at) => values[(at % columns) * rows + Math.floor(at / columns)] ?? 0,
  );
  return { shape, values: turned };
}
