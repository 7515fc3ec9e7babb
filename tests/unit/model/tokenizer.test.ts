import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, describe, expect, test } from "vitest";
import { InvalidArgumentError, StartupError } from "../../../src/errors.js";
import { Tokenizer } from "../../../src/model/tokenizer.js";
import { FIXTURES, RECORDED } from "./recorded.js";

const scratch = mkdtempSync(path.join(tmpdir(), "tokenizer-"));
afterAll(() => rmSync(scratch, { recursive: true }));

/** A copy of a fixture whose tokenizer.json was changed. */
function changed(name: string, change: (json: Record<string, unknown>) => void): string {
  const folder = mkdtempSync(path.join(scratch, "changed-"));
  const json = JSON.parse(readFileSync(path.join(FIXTURES, name, "tokenizer.json"), "utf8"));
  change(json);
  writeFileSync(path.join(folder, "tokenizer.json"), JSON.stringify(json));
  return folder;
}

describe.each(RECORDED.tokenizers)("the $name tokenizer", ({ name, vocab_size, encoded }) => {
  const tokenizer = Tokenizer.open(path.join(FIXTURES, name), vocab_size);

  test.each(encoded)("does with $text what transformers does", async (recorded) => {
    expect(await tokenizer.encode(recorded.text, true)).toEqual(recorded.ids);
    expect(await tokenizer.encode(recorded.text, false)).toEqual(recorded.plain_ids);
    expect(tokenizer.decode(recorded.ids, false)).toBe(recorded.decoded);
    expect(tokenizer.decode(recorded.ids, true)).toBe(recorded.decoded_plain);
  });

  test.each(["\ud800", "a\udc00b", "\udc00\ud800"])(
    "refuses %j, which is no text",
    async (text) => {
      await expect(tokenizer.encode(text, true, "prompt")).rejects.toThrow(InvalidArgumentError);
      await expect(tokenizer.encode(text, true, "prompt")).rejects.toThrow(/^prompt: /);
    },
  );

  test("has no text for ids that the model has and the tokenizer has not", () => {
    const larger = Tokenizer.open(path.join(FIXTURES, name), vocab_size + 64);
    expect(larger.vocabSize).toBe(vocab_size + 64);
    expect(larger.piece(vocab_size + 3)).toBe("");
    expect(larger.decode([vocab_size, vocab_size + 63], false)).toBe("");
  });

  test("is refused for a model with fewer ids", () => {
    const open = () => Tokenizer.open(path.join(FIXTURES, name), vocab_size - 1);
    expect(open).toThrow(StartupError);
    expect(open).toThrow(new RegExp(`token id ${vocab_size - 1}, but the model has`));
  });
});

test("truncation and padding of a tokenizer.json are switched off", async () => {
  const folder = changed("byte-level", (json) => {
    json["truncation"] = { direction: "Right", max_length: 3, strategy: "LongestFirst", stride: 0 };
    json["padding"] = {
      strategy: { Fixed: 64 },
      direction: "Right",
      pad_to_multiple_of: null,
      pad_id: 0,
      pad_type_id: 0,
      pad_token: "!",
    };
  });
  const plain = Tokenizer.open(path.join(FIXTURES, "byte-level"), 1000);
  const text = "a text of more than three tokens";
  expect(await Tokenizer.open(folder, 1000).encode(text, true)).toEqual(
    await plain.encode(text, true),
  );
});

describe("special tokens in a text", () => {
  const tokenizer = Tokenizer.open(path.join(FIXTURES, "byte-level"), 1000);

  test.each([
    ["<|eot_id|>", "<|eot_id|>"],
    ["say <|eot_id|> now", "<|eot_id|>"],
    ["<|<|end_header_id|>|>", "<|end_header_id|>"],
    ["nothing", null],
    ["", null],
    ["<|eot_id |>", null],
    ["<|EOT_ID|>", null],
    ["a <note> is an added token, but no special one", null],
  ])("%j holds %j", (text, special) => {
    expect(tokenizer.findSpecialToken(text)).toBe(special);
  });

  test("are found exactly where encoding finds them", async () => {
    const special = tokenizer.specialTokens.map(({ id }) => id);
    for (const text of ["<|eot_id|>", "x<|start_header_id|>y", "<|eot_id", "|>", "<|eot_id |>"]) {
      const ids = await tokenizer.encode(text, false);
      expect(tokenizer.findSpecialToken(text) !== null).toBe(
        ids.some((id) => special.includes(id)),
      );
    }
  });

  test("are found behind a normaliser, where the tokenizer looks for them there", async () => {
    const folder = changed("byte-level", (json) => {
      json["normalizer"] = { type: "NFKC" };
      const added = json["added_tokens"] as { content: string; normalized: boolean }[];
      for (const token of added) token.normalized = token.content === "<|eot_id|>";
    });
    const normalising = Tokenizer.open(folder, 1000);
    const wide = "＜｜ｅｏｔ＿ｉｄ｜＞";
    const ids = await normalising.encode(wide, false);
    expect(ids.map((id) => normalising.isSpecial(id))).toEqual([true]);
    expect(normalising.findSpecialToken(wide)).toBe("<|eot_id|>");
    expect(normalising.findSpecialToken("＜｜ｅｎｄ＿ｏｆ＿ｔｅｘｔ｜＞")).toBeNull();
  });
});

describe("a folder is refused", () => {
  test.each<[string, string | null, RegExp]>([
    ["without a tokenizer.json", null, /tokenizer\.json is missing/],
    ["with an empty one", "", /tokenizer\.json: not a tokenizer/],
    ["with one that is no JSON", "{", /tokenizer\.json: not a tokenizer/],
    ["with one that is no tokenizer", "{}", /tokenizer\.json: not a tokenizer/],
  ])("%s", (_, text, message) => {
    const folder = mkdtempSync(path.join(scratch, "bad-"));
    if (text !== null) writeFileSync(path.join(folder, "tokenizer.json"), text);
    expect(() => Tokenizer.open(folder, 100)).toThrow(message);
    expect(() => Tokenizer.open(folder, 100)).toThrow(StartupError);
  });

  test("when tokenizer.json is a folder", () => {
    const folder = mkdtempSync(path.join(scratch, "bad-"));
    mkdirSync(path.join(folder, "tokenizer.json"));
    expect(() => Tokenizer.open(folder, 100)).toThrow(StartupError);
  });
});

test("encoding does not hold up the event loop", async () => {
  const folder = mkdtempSync(path.join(scratch, "long-"));
  cpSync(path.join(FIXTURES, "byte-level"), folder, { recursive: true });
  const tokenizer = Tokenizer.open(folder, 1000);
  let turns = 0;
  const ticking = setInterval(() => {
    turns += 1;
  }, 1);
  await tokenizer.encode("some words and then some more ".repeat(8000), true);
  clearInterval(ticking);
  expect(turns).toBeGreaterThan(5);
});
