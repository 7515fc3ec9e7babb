import { expect, test } from "vitest";
import {
  type Entry,
  encodeEntry,
  FIRST_LINE,
  parseManifest,
} from "../../../src/vectors/directory/manifest.js";

const put = (revision: number, id: string): Entry => ({
  op: "put",
  revision,
  id,
  digest: `sha256:${"ab".repeat(32)}`,
  labels: { note: 'a "quoted" text\nin two lines, ü' },
  derivation: null,
  createTime: "2026-01-02T03:04:05.000Z",
});
const ENTRIES: Entry[] = [put(1, "a"), { op: "remove", revision: 2, id: "a" }, put(3, "b")];
const WHOLE = Buffer.concat([FIRST_LINE, ...ENTRIES.map(encodeEntry)]);

test("what was written is read again", () => {
  expect(parseManifest(WHOLE)).toEqual({ entries: ENTRIES, goodBytes: WHOLE.length });
});

test("cut anywhere behind its first line, it holds the writes that are whole", () => {
  for (let size = FIRST_LINE.byteLength; size <= WHOLE.length; size += 1) {
    const { entries, goodBytes } = parseManifest(WHOLE.subarray(0, size));
    expect(entries).toEqual(ENTRIES.slice(0, entries.length));
    expect(goodBytes).toBeLessThanOrEqual(size);
    expect(WHOLE.subarray(0, goodBytes).at(-1)).toBe(0x0a);
  }
});

test("with any bit flipped it is refused, or holds all writes but the last", () => {
  let refused = 0;
  for (let at = 0; at < WHOLE.length; at += 1) {
    for (let bit = 0; bit < 8; bit += 1) {
      const damaged = Buffer.from(WHOLE);
      damaged[at] = (damaged[at] ?? 0) ^ (1 << bit);
      try {
        expect(parseManifest(damaged).entries).toEqual(ENTRIES.slice(0, -1));
      } catch (error) {
        if (!(error instanceof Error) || error.name !== "ManifestError") throw error;
        refused += 1;
      }
    }
  }
  // Only the last line's end, and a byte that becomes NUL, look like a torn write.
  expect(refused).toBeGreaterThan(WHOLE.length * 8 - 64);
});
