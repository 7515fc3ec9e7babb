/**
 * The name of a vector's content. sha256 over, all little-endian:
 *
 *   "llama-steer vector 1\0"   ASCII, 21 bytes
 *   u32 hidden size
 *   u32 number of layers
 *   for each layer, ascending: u32 layer, then hidden size float32 values
 *
 * Bits count, not values: −0 and 0 differ. Ids, labels and file formats do not enter.
 */
import { createHash } from "node:crypto";
import { floatBytes, rowOf, type VectorContent } from "./vector.js";

const DOMAIN = "llama-steer vector 1\0";
const PREFIX = "sha256:";
const DIGEST = /^sha256:[0-9a-f]{64}$/;

export function digestOf(content: VectorContent): string {
  const hash = createHash("sha256");
  hash.update(DOMAIN, "ascii").update(u32(content.hiddenSize)).update(u32(content.layers.length));
  for (const [slot, layer] of content.layers.entries()) {
    hash.update(u32(layer)).update(floatBytes(rowOf(content, slot)));
  }
  return PREFIX + hash.digest("hex");
}

export function isDigest(text: string): boolean {
  return DIGEST.test(text);
}

/** The 32 bytes of a digest. */
export function digestBytes(digest: string): Uint8Array {
  return new Uint8Array(Buffer.from(digest.slice(PREFIX.length), "hex"));
}

function u32(value: number): Uint8Array {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
