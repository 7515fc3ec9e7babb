/** The parts of GGUF, read one after the other; every length is checked before it is used. */
import { decodeText, quote, VectorFileError } from "./file.js";

export interface GgufValue {
  type: string;
  /** Arrays are passed over: null. */
  value: number | bigint | boolean | string | null;
}

/** By the number of the type. Sizes in bytes. */
const SCALARS: readonly ({ name: string; bytes: number } | null)[] = [
  { name: "u8", bytes: 1 },
  { name: "i8", bytes: 1 },
  { name: "u16", bytes: 2 },
  { name: "i16", bytes: 2 },
  { name: "u32", bytes: 4 },
  { name: "i32", bytes: 4 },
  { name: "f32", bytes: 4 },
  { name: "bool", bytes: 1 },
  null,
  null,
  { name: "u64", bytes: 8 },
  { name: "i64", bytes: 8 },
  { name: "f64", bytes: 8 },
];
const TEXT = 8;
const ARRAY = 9;
/** Texts inside arrays are passed over one by one. */
const MAX_ARRAY_TEXTS = 1 << 20;

export class GgufReader {
  private readonly view: DataView;
  /** From the start of the file. */
  offset = 0;

  constructor(private readonly file: Uint8Array) {
    this.view = new DataView(file.buffer, file.byteOffset, file.byteLength);
  }

  skip(bytes: number): void {
    this.take(bytes, "header");
  }

  u32(what: string): number {
    return this.view.getUint32(this.take(4, what), true);
  }

  /** A u64 that counts or measures something of this file. */
  size(what: string): number {
    const size = this.view.getBigUint64(this.take(8, what), true);
    if (size > BigInt(this.file.byteLength)) {
      throw new VectorFileError(`${what}: ${size}, but the file has ${this.file.byteLength} bytes`);
    }
    return Number(size);
  }

  count(what: string, limit: number): number {
    const count = this.size(what);
    if (count > limit) throw new VectorFileError(`${count} ${what}; the limit is ${limit}`);
    return count;
  }

  text(what: string): string {
    const bytes = this.size(`length of the ${what}`);
    const begin = this.take(bytes, what);
    return decodeText(this.file.subarray(begin, begin + bytes), `a ${what}`);
  }

  value(key: string): GgufValue {
    const type = this.u32("value type");
    if (type === TEXT) return { type: "text", value: this.text("value") };
    if (type === ARRAY) return this.passArray(key);
    const scalar = SCALARS[type];
    if (!scalar) throw new VectorFileError(`the value of ${quote(key)} has unknown type ${type}`);
    return { type: scalar.name, value: this.scalar(scalar.name, this.take(scalar.bytes, "value")) };
  }

  private scalar(name: string, at: number): number | bigint | boolean {
    const { view } = this;
    switch (name) {
      case "u8":
        return view.getUint8(at);
      case "i8":
        return view.getInt8(at);
      case "u16":
        return view.getUint16(at, true);
      case "i16":
        return view.getInt16(at, true);
      case "u32":
        return view.getUint32(at, true);
      case "i32":
        return view.getInt32(at, true);
      case "f32":
        return view.getFloat32(at, true);
      case "u64":
        return view.getBigUint64(at, true);
      case "i64":
        return view.getBigInt64(at, true);
      case "f64":
        return view.getFloat64(at, true);
      default:
        return view.getUint8(at) !== 0;
    }
  }

  /** Control vectors use none; arrays of arrays are refused. */
  private passArray(key: string): GgufValue {
    const type = this.u32("array type");
    const length = this.size("array length");
    const scalar = SCALARS[type];
    if (scalar) {
      this.take(length * scalar.bytes, "array");
    } else if (type === TEXT && length <= MAX_ARRAY_TEXTS) {
      for (let i = 0; i < length; i += 1) this.text("array");
    } else {
      throw new VectorFileError(`the array ${quote(key)} is not one of numbers or texts`);
    }
    return { type: "array", value: null };
  }

  /** Where the next `bytes` begin. */
  private take(bytes: number, what: string): number {
    const begin = this.offset;
    if (bytes > this.file.byteLength - begin) {
      throw new VectorFileError(`truncated: the ${what} does not end within the file`);
    }
    this.offset += bytes;
    return begin;
  }
}
