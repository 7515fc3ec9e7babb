/**
 * Decoding that refuses what protobuf forbids. protobufjs replaces invalid UTF-8 (a lone surrogate,
 * say) by U+FFFD; a prompt would silently become another one.
 */
import protobuf from "protobufjs/minimal.js";

class StrictReader extends protobuf.BufferReader {
  private readonly utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

  override string(): string {
    return this.utf8.decode(this.bytes());
  }
}

/** Stands in for a request whose bytes are no message of its type. */
export class MalformedRequest {
  constructor(readonly reason: string) {}
}

/** Wraps the deserializer of proto-loader: a broken message becomes a value, not INTERNAL. */
export function strictDeserializer<T>(deserialize: (bytes: Buffer) => T) {
  return (bytes: Buffer): T | MalformedRequest => {
    try {
      // proto-loader hands its argument to `Type.decode`, which takes a reader as well as bytes.
      return deserialize(new StrictReader(bytes) as unknown as Buffer);
    } catch (error) {
      const utf8 = error instanceof TypeError;
      return new MalformedRequest(
        utf8 ? "a string is not valid UTF-8" : "the bytes are not a message of this type",
      );
    }
  };
}
