/**
 * NumPy .npy files, format version 1.0: magic, version, header length (uint16), a Python dictionary
 * padded with spaces to a multiple of 64 bytes, then the data in C order.
 * https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 */
import { UsageError } from "../exit.js";

const MAGIC = Buffer.from("\x93NUMPY\x01\x00", "latin1");
const ALIGNMENT_BYTES = 64;

/** `<f4` float32, `<f2` float16, `<f8` float64; all little-endian. */
export type NpyType = "<f4" | "<f2" | "<f8";

/** The bytes before the data of an array. */
export function npyHeader(type: NpyType, shape: readonly number[]): Buffer {
  const dimensions = shape.length === 1 ? `${shape[0]},` : shape.join(", ");
  const dictionary = `{'descr': '${type}', 'fortran_order': False, 'shape': (${dimensions}), }`;
  const fixedBytes = MAGIC.length + 2;
  const padding =
    ALIGNMENT_BYTES - ((fixedBytes + dictionary.length + 1) % ALIGNMENT_BYTES || ALIGNMENT_BYTES);
  const text = `${dictionary}${" ".repeat(padding)}\n`;
  const length = Buffer.alloc(2);
  length.writeUInt16LE(text.length);
  return Buffer.concat([MAGIC, length, Buffer.from(text, "latin1")]);
}

export interface NpyArray {
  shape: number[];
  values: Float32Array;
}

/** Reads a float array; float64 is rounded to float32. Throws a UsageError that names `file`. */
export function readNpy(bytes: Buffer, file: string): NpyArray {
  if (bytes.length < 12 || bytes.toString("latin1", 0, 6) !== MAGIC.toString("latin1", 0, 6)) {
    throw new UsageError(`${file}: not a .npy file`);
  }
  // Version 1 has a 16-bit header length, versions 2 and 3 a 32-bit one.
  const headerStart = bytes[6] === 1 ? 10 : 12;
  const headerBytes = bytes[6] === 1 ? bytes.readUInt16LE(8) : bytes.readUInt32LE(8);
  const header = bytes.toString("latin1", headerStart, headerStart + headerBytes);
  const type = /'descr':\s*'([^']*)'/.exec(header)?.[1];
  const shapeText = /'shape':\s*\(([\d,\s]*)\)/.exec(header)?.[1];
  if (type === undefined || shapeText === undefined) {
    throw new UsageError(`${file}: the .npy header cannot be read`);
  }
  if (/'fortran_order':\s*True/.test(header)) {
    throw new UsageError(`${file}: is in Fortran order; save it with numpy.ascontiguousarray`);
  }
  const shape = shapeText.split(",").flatMap((part) => (part.trim() ? [Number(part)] : []));
  const data = bytes.subarray(headerStart + headerBytes);
  const count = shape.reduce((product, size) => product * size, 1);
  return { shape, values: readValues(data, type, count, file) };
}

function readValues(data: Buffer, type: string, count: number, file: string): Float32Array {
  const width = type === "<f4" ? 4 : type === "<f8" ? 8 : 0;
  if (width === 0) {
    throw new UsageError(`${file}: holds ${type}; save it as float32 (array.astype("<f4"))`);
  }
  if (data.length !== count * width) {
    throw new UsageError(
      `${file}: has ${data.length} bytes of data; its shape needs ${count * width}`,
    );
  }
  return Float32Array.from({ length: count }, (_, i) =>
    width === 4 ? data.readFloatLE(i * 4) : data.readDoubleLE(i * 8),
  );
}
