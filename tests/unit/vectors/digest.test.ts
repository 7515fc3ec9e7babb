import { createHash } from "node:crypto";
import { expect, test } from "vitest";
import { digestBytes, digestOf } from "../../../src/vectors/digest.js";
import { contentOf } from "./fixtures.js";

const content = contentOf([1, 3], [1, -2, 0.5, 3.25, 0, 1e-30, 7, -0.125]);

/** Never to change: clients pin digests. */
const GOLDEN = "sha256:10caa8f94cca7b5bf3584ff4fb2221710a9cbe58951faf770a69353c0789f1b1";

test("the digest of a content never changes", () => {
  expect(digestOf(content)).toBe(GOLDEN);
});

test("the digest is sha256 over the documented bytes", () => {
  const bytes = Buffer.alloc(21 + 4 + 4 + 2 * (4 + 4 * 4));
  bytes.write("llama-steer vector 1\0", "ascii");
  bytes.writeUInt32LE(4, 21);
  bytes.writeUInt32LE(2, 25);
  bytes.writeUInt32LE(1, 29);
  for (const [i, value] of [1, -2, 0.5, 3.25].entries()) bytes.writeFloatLE(value, 33 + 4 * i);
  bytes.writeUInt32LE(3, 49);
  for (const [i, value] of [0, 1e-30, 7, -0.125].entries()) bytes.writeFloatLE(value, 53 + 4 * i);
  expect(digestOf(content)).toBe(`sha256:${createHash("sha256").update(bytes).digest("hex")}`);
});

test.each([
  ["another value", contentOf([1, 3], [1, -2, 0.5, 3.25, 0, 1e-30, 7, -0.126])],
  ["another layer", contentOf([1, 4], [1, -2, 0.5, 3.25, 0, 1e-30, 7, -0.125])],
  ["minus zero", contentOf([1, 3], [1, -2, 0.5, 3.25, -0, 1e-30, 7, -0.125])],
  ["the same numbers cut otherwise", contentOf([1], [1, -2, 0.5, 3.25, 0, 1e-30, 7, -0.125])],
])("%s gives another digest", (_, other) => {
  expect(digestOf(other)).not.toBe(digestOf(content));
});

test("the engine gets the digest as 32 bytes", () => {
  const bytes = digestBytes(digestOf(content));
  expect(bytes).toHaveLength(32);
  expect(`sha256:${Buffer.from(bytes).toString("hex")}`).toBe(digestOf(content));
});
