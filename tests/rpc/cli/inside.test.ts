/** Captures while generating, and the logit lens. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CliTest } from "../../support/cli.js";

let cli: CliTest;
beforeAll(async () => {
  cli = await CliTest.start();
}, 60_000);
afterAll(() => cli.stop());

const generate = ["generate", "-p", "The hotel was", "-t", "0", "-m", "12", "--ignore-eos"];

describe("looking inside", { timeout: 30_000 }, () => {
  test("capture during generation holds prompt and answer, without the last token's row", async () => {
    const out = cli.path("acts.safetensors");
    const args = ["capture", "-p", "The hotel was", "-l", "4", "-o", out, "--during-generation"];
    const whole = await cli.json([...generate]);
    const { completions, shape } = await cli.json([...args, "-t", "0", "-m", "12", "--ignore-eos"]);
    expect(shape).toBe("1 tensor");
    expect(completions[0].completion.tokenIds).toEqual(whole.completions[0].tokenIds);
    const bytes = readFileSync(out);
    const header = JSON.parse(bytes.toString("utf8", 8, 8 + Number(bytes.readBigUInt64LE())));
    const rows = whole.usage.promptTokens + 12 - 1;
    expect(header["input.0.resid_post.layer.4"].shape).toEqual([rows, 256]);
    expect(JSON.parse(header.__metadata__.completions)).toEqual([whole.completions[0].text]);
  });

  test("the lens at the last block names the token that is generated", async () => {
    const { completions } = await cli.json([...generate]);
    const rows = (await cli.ok(["lens", "-p", "The hotel was", "-k", "3", "--json"]))
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
    expect(rows.map(({ layer }) => layer)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
    expect(rows[7].top[0].tokenId).toBe(completions[0].tokenIds[0]);
    const text = await cli.ok(["lens", "-p", "The hotel was", "-k", "3", "-l", "0,7"]);
    const lines = text.split("\n");
    expect(lines[0]).toMatch(/^position \d+, after " was"$/);
    expect(lines[1]).toMatch(/^layer {2}1 +2 +3$/);
    expect(lines[3]?.startsWith(`    7  ${JSON.stringify(rows[7].top[0].token)} `)).toBe(true);
  });

  test.each<[string[], RegExp]>([
    [["capture", "-p", "x", "-o", cliPath(), "-m", "5"], /need --during-generation/],
    [["lens"], /say what to continue/],
    [["lens", "-p", "x", "-k", "0"], /whole number of at least 1/],
    [["lens", "-p", "x", "--tokens", "some"], /neither all, last/],
    [["generate", "-p", "x", "--probe", "mood:never"], /neither each-token/],
  ])("%j is wrong usage", async (args, message) => {
    const { code, stderr } = await cli.run(args);
    expect(code).toBe(2);
    expect(stderr).toMatch(message);
  });

  test("an adapter that is not there is one line with advice", async () => {
    const { code, stderr } = await cli.run(["generate", "-p", "x", "--adapter", "nobody"]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/"nobody" does not exist: see `llama-steer adapters list`/);
  });
});

/** Named before the folder is there; nothing is written. */
function cliPath(): string {
  return path.join(path.sep, "nonexistent", "x.npy");
}
