/** Content digest of a vector, as docs/steering.md defines it: what the registry would call it. */
import { createHash } from "node:crypto";
import type { VectorRows } from "./vector-file.js";

const DOMAIN = "llama-steer vector 1\0";

/** `rows`: by rising layer, at least one, all of one width. */
export function vectorDigest(rows: VectorRows): string {
  const hash = createHash("sha256").update(DOMAIN, "ascii");
  hash.update(uint32((rows[0]?.data.length ?? 0) / 4)).update(uint32(rows.length));
  for (const { layer, data } of rows) hash.update(uint32(layer)).update(data);
  return `sha256:${hash.digest("hex")}`;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}
