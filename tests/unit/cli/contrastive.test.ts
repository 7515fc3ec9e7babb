import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { readPairs, readTexts, tokenRuleOf } from "../../../src/cli/arguments/contrastive.js";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), "contrastive-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

function file(name: string, ...lines: unknown[]): string {
  const full = path.join(folder, name);
  const text = lines.map((line) => (typeof line === "string" ? line : JSON.stringify(line)));
  writeFileSync(full, text.join("\n"));
  return full;
}

const user = (content: string) => ({ messages: [{ role: "user", content }] });

describe("pairs of a file", () => {
  test("are texts, prompts and conversations, with completions", () => {
    const pairs = file(
      "p.jsonl",
      { positive: "good", negative: { prompt: "bad", completion: "" } },
      "",
      { positive: { ...user("a"), completion: " yes" }, negative: user("b") },
    );
    expect(readPairs(pairs)).toEqual([
      { positive: { prompt: "good" }, negative: { prompt: "bad", completion: "" } },
      { positive: { chat: user("a"), completion: " yes" }, negative: { chat: user("b") } },
    ]);
  });

  test("are messages of a user where that is asked for; conversations stay what they are", () => {
    const system = { messages: [{ role: "system", content: "s" }] };
    const pairs = file("c.jsonl", { positive: { prompt: "x", completion: "y" }, negative: system });
    expect(readPairs(pairs, true)).toEqual([
      { positive: { chat: user("x"), completion: "y" }, negative: { chat: system } },
    ]);
  });

  test.each([
    [{ positive: "x" }, /1: needs "positive" and "negative"/],
    [{ positive: "x", negative: 3 }, /1: negative: is neither a text/],
    [{ positive: { messages: [] }, negative: "x" }, /1: positive: is neither a text/],
    [
      { positive: "x", negative: { prompt: "y", completion: 3 } },
      /negative: "completion" is no text/,
    ],
    ["{", /1: is not JSON/],
    ["null", /1: needs "positive" and "negative"/],
    ["", /: is empty/],
  ])("%j is refused", (line, message) => {
    expect(() => readPairs(file("bad.jsonl", line))).toThrow(message);
  });
});

describe("texts of a file", () => {
  test("are lines, or JSON a line in a .jsonl", () => {
    expect(readTexts(file("t.txt", '"a"', "b"))).toEqual([{ prompt: '"a"' }, { prompt: "b" }]);
    expect(readTexts(file("t.jsonl", '"a"', { prompt: "b" }), true)).toEqual([
      { chat: user("a") },
      { chat: user("b") },
    ]);
  });
});

test("the token rule is left to the server unless it is given", () => {
  expect(tokenRuleOf({})).toEqual({});
  expect(tokenRuleOf({ token: "all-mean" })).toEqual({ tokenRule: "TOKEN_RULE_ALL_MEAN" });
  expect(tokenRuleOf({ atText: "x" })).toEqual({ tokenRule: "TOKEN_RULE_AT_TEXT", tokenText: "x" });
});
