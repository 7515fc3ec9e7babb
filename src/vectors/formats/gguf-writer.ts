/** The parts of GGUF, written one after the other; little-endian. */
const U32 = 4;
const TEXT = 8;

export class GgufWriter {
  private readonly parts: Uint8Array[] = [];
  private length = 0;

  header(version: number, tensors: number, keys: number): void {
    this.bytes(Buffer.from("GGUF"));
    this.bytes(u32(version));
    this.bytes(u64(tensors));
    this.bytes(u64(keys));
  }

  text(key: string, value: string): void {
    this.string(key);
    this.bytes(u32(TEXT));
    this.string(value);
  }

  u32(key: string, value: number): void {
    this.string(key);
    this.bytes(u32(U32));
    this.bytes(u32(value));
  }

  /** `offset`: from the start of the data. */
  tensor(name: string, shape: readonly number[], type: number, offset: number): void {
    this.string(name);
    this.bytes(u32(shape.length));
    for (const size of shape) this.bytes(u64(size));
    this.bytes(u32(type));
    this.bytes(u64(offset));
  }

  padTo(alignment: number): void {
    this.bytes(new Uint8Array((alignment - (this.length % alignment)) % alignment));
  }

  bytes(bytes: Uint8Array): void {
    this.parts.push(bytes);
    this.length += bytes.byteLength;
  }

  finish(): Uint8Array {
    return Buffer.concat(this.parts);
  }

  private string(text: string): void {
    const bytes = Buffer.from(text);
    this.bytes(u64(bytes.length));
    this.bytes(bytes);
  }
}

function u32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function u64(value: number): Uint8Array {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}
