/** GGUF version 3: a header of typed keys, tensor descriptions, then aligned data. */
import { closeSync, openSync, writeSync } from "node:fs";

const MAGIC = 0x46554747;
const VERSION = 3;
const ALIGNMENT = 32;

/** ggml's numbers of the types used here, and bytes for `values` values. */
export const GGML_TYPES = {
  f32: { id: 0, bytes: (values) => values * 4 },
  f16: { id: 1, bytes: (values) => values * 2 },
  q8_0: { id: 8, bytes: (values) => (values / 32) * 34 },
  bf16: { id: 30, bytes: (values) => values * 2 },
};

const VALUE_TYPES = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9, u64: 10 };

class ByteSink {
  parts = [];

  number(bytes, write) {
    const buffer = Buffer.alloc(bytes);
    write(buffer);
    this.parts.push(buffer);
  }
  u32(value) {
    this.number(4, (buffer) => buffer.writeUInt32LE(value));
  }
  u64(value) {
    this.number(8, (buffer) => buffer.writeBigUInt64LE(BigInt(value)));
  }
  string(text) {
    const bytes = Buffer.from(text);
    this.u64(bytes.length);
    this.parts.push(bytes);
  }
  scalar(type, value) {
    if (type === "u32") this.u32(value);
    else if (type === "i32") this.number(4, (buffer) => buffer.writeInt32LE(value));
    else if (type === "f32") this.number(4, (buffer) => buffer.writeFloatLE(value));
    else if (type === "bool") this.number(1, (buffer) => buffer.writeUInt8(value ? 1 : 0));
    else this.string(value);
  }
  value({ type, of, value }) {
    this.u32(VALUE_TYPES[type]);
    if (type !== "array") return this.scalar(type, value);
    this.u32(VALUE_TYPES[of]);
    this.u64(value.length);
    for (const element of value) this.scalar(of, element);
  }
  bytes() {
    return Buffer.concat(this.parts);
  }
}

const aligned = (bytes) => Math.ceil(bytes / ALIGNMENT) * ALIGNMENT;
const valuesOf = (tensor) => tensor.shape.reduce((product, size) => product * size, 1);

function headerOf(keys, tensors) {
  const sink = new ByteSink();
  sink.u32(MAGIC);
  sink.u32(VERSION);
  sink.u64(tensors.length);
  sink.u64(Object.keys(keys).length);
  for (const [name, value] of Object.entries(keys)) {
    sink.string(name);
    sink.value(value);
  }
  let offset = 0;
  for (const tensor of tensors) {
    sink.string(tensor.name);
    sink.u32(tensor.shape.length);
    // ggml counts dimensions from the one that is contiguous.
    for (const size of [...tensor.shape].reverse()) sink.u64(size);
    sink.u32(GGML_TYPES[tensor.type].id);
    sink.u64(offset);
    offset += aligned(GGML_TYPES[tensor.type].bytes(valuesOf(tensor)));
  }
  return sink.bytes();
}

function writeAll(descriptor, bytes) {
  let written = 0;
  while (written < bytes.length) written += writeSync(descriptor, bytes, written);
}

/**
 * `keys`: name -> { type, value } (arrays: { type: "array", of, value }).
 * `tensors`: [{ name, shape, type, chunks(): Iterable<Buffer> }], shapes as in PyTorch.
 */
export function writeGguf(file, keys, tensors) {
  const descriptor = openSync(file, "w");
  try {
    const header = headerOf(keys, tensors);
    writeAll(descriptor, header);
    writeAll(descriptor, Buffer.alloc(aligned(header.length) - header.length));
    for (const tensor of tensors) {
      const wanted = GGML_TYPES[tensor.type].bytes(valuesOf(tensor));
      let written = 0;
      for (const chunk of tensor.chunks()) {
        writeAll(descriptor, chunk);
        written += chunk.length;
      }
      if (written !== wanted) {
        throw new Error(`${tensor.name}: ${written} bytes written, ${wanted} described`);
      }
      writeAll(descriptor, Buffer.alloc(aligned(wanted) - wanted));
    }
  } finally {
    closeSync(descriptor);
  }
}
