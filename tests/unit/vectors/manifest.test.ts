import { expect, test } from "vitest";
import { encodeEntry, FIRST_LINE, parseManifest } from "../../../src/vectors/directory/manifest.js";
import type { Entry, PutEntry } from "../../../src/vectors/entry.js";
import { CALIBRATION, DERIVATION, FIT } from "./fixtures.js";

const put = (revision: number, id: string): PutEntry => ({
  op: "put",
  revision,
  kind: "vector",
  id,
  digest: `sha256:${"ab".repeat(32)}`,
  labels: { note: 'a "quoted" text\nin two lines, ü', ["__proto__"]: "x" },
  derivation: null,
  meanResidualNorms: [],
  probe: null,
  createTime: "2026-01-02T03:04:05.000Z",
});
const ENTRIES: Entry[] = [
  put(1, "a"),
  { op: "remove", revision: 2, kind: "vector", id: "a" },
  {
    ...put(3, "p"),
    kind: "probe",
    derivation: DERIVATION,
    meanResidualNorms: [2.5],
    probe: { fit: FIT, calibration: CALIBRATION },
  },
  put(4, "b"),
];
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

test("an entry of a version that knew no probes is a vector's", () => {
  const { kind, meanResidualNorms, probe, ...old } = put(1, "a");
  const derivation = { method: "m", pairsDigest: "p", tokenRule: "t", modelFingerprint: "f" };
  const text = { ...old, derivation } as unknown as Entry;
  const [entry] = parseManifest(Buffer.concat([FIRST_LINE, encodeEntry(text)])).entries;
  const added = {
    tokenText: "",
    adapterId: "",
    adapterDigest: "",
    normalized: false,
    pairs: 0,
    diagnostics: [],
  };
  expect(entry).toEqual({
    ...old,
    kind: "vector",
    meanResidualNorms: [],
    probe: null,
    derivation: { ...derivation, ...added },
  });
});

test.each([
  ["another kind", { kind: "gate" }],
  ["a threshold that is no number", { probe: { fit: FIT, calibration: { threshold: "1" } } }],
  ["an id that is none", { id: "../a" }],
  ["a label that is no text", { labels: { a: 1 } }],
  ["something more", { more: 1 }],
])("an entry with %s is refused with its line", (_, change) => {
  const entry = { ...put(1, "a"), ...change } as unknown as Entry;
  expect(() => parseManifest(Buffer.concat([FIRST_LINE, encodeEntry(entry)]))).toThrow(
    /^line 2: not an entry of this version/,
  );
});
