/**
 * Zip files as numpy writes them: stored or deflated entries, no encryption, no ZIP64. Names,
 * sizes and checksums are those of the central directory; an entry that gives anything else is refused.
 * Format: https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT
 */
import { crc32, inflateRawSync } from "node:zlib";
import { MAX_ROWS, quote, VectorFileError } from "./file.js";

const LOCAL = 0x04034b50;
const CENTRAL = 0x02014b50;
const END = 0x06054b50;
const LOCAL_BYTES = 30;
const CENTRAL_BYTES = 46;
const END_BYTES = 22;
const STORED = 0;
const DEFLATED = 8;
const ENCRYPTED = 1;
/** 1 January 1980, 00:00: the first date there is. */
const DOS_DATE = 0x21;
const VERSION = 20;

interface Entry {
  name: string;
  method: number;
  crc: number;
  packedBytes: number;
  bytes: number;
  localOffset: number;
}

/** `maxBytes`: of all entries together, inflated. Throws a VectorFileError. */
export function readZip(file: Uint8Array, maxBytes: number): Map<string, Uint8Array> {
  const entries = readDirectory(file);
  const total = entries.reduce((sum, { bytes }) => sum + bytes, 0);
  if (total > maxBytes) throw new VectorFileError(`inflates to more than ${maxBytes} bytes`);
  const contents = new Map<string, Uint8Array>();
  for (const entry of entries) {
    const { name } = entry;
    if (contents.has(name)) throw new VectorFileError(`holds ${quote(name)} twice`);
    contents.set(name, readEntry(file, entry));
  }
  return contents;
}

/** Names inside, without inflating anything. Throws a VectorFileError. */
export function zipNames(file: Uint8Array): string[] {
  return readDirectory(file).map(({ name }) => name);
}

/** Stored entries; the same contents give the same bytes. */
export function writeZip(contents: ReadonlyMap<string, Uint8Array>): Uint8Array {
  const parts: Uint8Array[] = [];
  const directory: Uint8Array[] = [];
  let offset = 0;
  for (const [name, bytes] of contents) {
    const common = commonFields(name, bytes);
    const local = Buffer.concat([u32(LOCAL), u16(VERSION), common, u16(0), Buffer.from(name)]);
    const ends = [u16(0), u16(0), u16(0), u16(0), u32(0), u32(offset), Buffer.from(name)];
    directory.push(u32(CENTRAL), u16(VERSION), u16(VERSION), common, ...ends);
    parts.push(local, bytes);
    offset += local.byteLength + bytes.byteLength;
  }
  const central = Buffer.concat(directory);
  const counts = [u16(contents.size), u16(contents.size), u32(central.byteLength), u32(offset)];
  return Buffer.concat([...parts, central, u32(END), u16(0), u16(0), ...counts, u16(0)]);
}

function readDirectory(file: Uint8Array): Entry[] {
  const view = viewOf(file);
  const end = findEnd(view);
  const count = view.getUint16(end + 10, true);
  if (count > MAX_ROWS) throw new VectorFileError(`${count} entries; the limit is ${MAX_ROWS}`);
  let at = view.getUint32(end + 16, true);
  return Array.from({ length: count }, () => {
    const isWhole = at + CENTRAL_BYTES <= end && view.getUint32(at, true) === CENTRAL;
    if (!isWhole) throw new VectorFileError("not a whole zip file: its directory is damaged");
    const nameBytes = view.getUint16(at + 28, true);
    const start = at + CENTRAL_BYTES;
    const entry: Entry = {
      name: Buffer.from(file.subarray(start, start + nameBytes)).toString("latin1"),
      method: view.getUint16(at + 10, true),
      crc: view.getUint32(at + 16, true),
      packedBytes: view.getUint32(at + 20, true),
      bytes: view.getUint32(at + 24, true),
      localOffset: view.getUint32(at + 42, true),
    };
    if (view.getUint16(at + 8, true) & ENCRYPTED) {
      throw new VectorFileError(`${quote(entry.name)} is encrypted`);
    }
    at = start + nameBytes + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
    return entry;
  });
}

/** The end record, which says how long the comment behind it is; nothing may follow that. */
function findEnd(view: DataView): number {
  const first = Math.max(0, view.byteLength - END_BYTES - 0xffff);
  for (let at = view.byteLength - END_BYTES; at >= first; at -= 1) {
    const isEnd = view.getUint32(at, true) === END;
    if (isEnd && at + END_BYTES + view.getUint16(at + 20, true) === view.byteLength) return at;
  }
  throw new VectorFileError("not a whole zip file: its end is missing");
}

function readEntry(file: Uint8Array, entry: Entry): Uint8Array {
  const { name, method, packedBytes, bytes, localOffset } = entry;
  const damaged = (what: string) => new VectorFileError(`${quote(name)} is damaged: ${what}`);
  const view = viewOf(file);
  if (localOffset + LOCAL_BYTES > file.byteLength || view.getUint32(localOffset, true) !== LOCAL) {
    throw damaged("it is not where the directory says");
  }
  const names = view.getUint16(localOffset + 26, true) + view.getUint16(localOffset + 28, true);
  const start = localOffset + LOCAL_BYTES + names;
  if (start + packedBytes > file.byteLength) throw damaged("it ends behind the file");
  const packed = file.subarray(start, start + packedBytes);
  const content = unpack(packed, method, bytes);
  if (content === null) throw damaged(`it cannot be unpacked (method ${method})`);
  if (content.byteLength !== bytes || crc32(content) !== entry.crc) {
    throw damaged("its length or checksum does not fit");
  }
  return content;
}

/** Null: it cannot be. At most one byte more than `bytes`. */
function unpack(packed: Uint8Array, method: number, bytes: number): Uint8Array | null {
  if (method === STORED) return packed;
  if (method !== DEFLATED) return null;
  try {
    return inflateRawSync(packed, { maxOutputLength: bytes + 1 });
  } catch {
    return null;
  }
}

/** Flags to the length of the name: what local and central headers share. */
function commonFields(name: string, bytes: Uint8Array): Uint8Array {
  const size = u32(bytes.byteLength);
  const time = [u16(0), u16(DOS_DATE)];
  const nameBytes = u16(Buffer.byteLength(name));
  return Buffer.concat([u16(0), u16(STORED), ...time, u32(crc32(bytes)), size, size, nameBytes]);
}

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function u16(value: number): Uint8Array {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16LE(value);
  return bytes;
}

function u32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
