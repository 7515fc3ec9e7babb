/** What a generation can be asked beside its text: gates, texts to wait for, divergence, probes. */
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CliTest } from "../../support/cli.js";
import { CHECKPOINT } from "../../support/live-server.js";

let cli: CliTest;
beforeAll(async () => {
  cli = await CliTest.start();
  await cli.ok(["vectors", "random", "dir", "-l", "3-4", "--norm", "40"]);
  const pairs = path.join(CHECKPOINT, "pairs/sentiment.jsonl");
  await cli.ok(["probes", "fit", "mood", "--pairs", pairs, "-l", "4"]);
}, 60_000);
afterAll(() => cli.stop());

const generate = ["generate", "-p", "The hotel was", "-t", "0", "-m", "12", "--ignore-eos"];
const figures = async (...options: string[]) => {
  const { code, stdout, stderr } = await cli.run([...generate, ...options]);
  expect(code, stderr).toBe(0);
  return { text: stdout, lines: stderr.trim().split("\n") };
};

describe("conditions", { timeout: 30_000 }, () => {
  test("a gate that opens is the steering, one that stays shut is none", async () => {
    const plain = await figures();
    const steered = await figures("-s", "dir:2");
    expect(steered.text).not.toBe(plain.text);
    const open = await figures("-s", "dir:2", "--gate", "dir:3:above=-1e30");
    expect(open.text).toBe(steered.text);
    expect(open.lines[0]).toMatch(/gate open (\d+) of \1 times$/);
    const shut = await figures("-s", "dir:2", "--gate", "dir:3:above=1e30:prompt-last");
    expect(shut.text).toBe(plain.text);
    expect(shut.lines[0]).toMatch(/0 prompt \+ 0 generated tokens.*gate open 0 of 1 times$/);
  });

  test("after-text acts behind the text only, and says where it ended", async () => {
    const steered = await cli.json([...generate, "-s", "dir:2", "--after-text", "hotel"]);
    const [applied] = steered.applied;
    expect(applied.afterTextPositions).toHaveLength(1);
    expect(applied.promptTokens).toBeLessThan(steered.usage.promptTokens);
    const never = await figures("-s", "dir:2", "--after-text", "no such text");
    expect(never.text).toBe((await figures()).text);
    expect(never.lines[0]).toMatch(/text ended before position never$/);
  });
});

describe("observations", { timeout: 30_000 }, () => {
  test("divergence is 0 unsteered and not 0 steered", async () => {
    const plain = await figures("--compare-unsteered");
    expect(plain.lines[0]).toMatch(/^KL\(steered ‖ unsteered\) {2}mean 0 nats {2}largest 0 at/);
    const steered = await figures("-s", "dir:2", "--compare-unsteered");
    expect(steered.lines[1]).toMatch(
      /^KL\(steered ‖ unsteered\) {2}mean (?!0 )\d\S* nats {2}largest/,
    );
    const { completions } = await cli.json([...generate, "-s", "dir:2", "--compare-unsteered"]);
    expect(completions[0].klToUnsteered).toHaveLength(12);
  });

  test("one probe is read in several ways", async () => {
    const probes = ["mood", "mood:prompt-last", "mood:after=hotel", "mood:after=never to be seen"];
    const { lines } = await figures(...probes.flatMap((probe) => ["--probe", probe]));
    const head = "^probe mood@sha256:[0-9a-f]{12}  layer 4  ";
    expect(lines[0]).toMatch(new RegExp(`${head}12 scores  mean \\S+  largest \\S+ at position`));
    expect(lines[1]).toMatch(new RegExp(`${head}\\S+ at position \\d+$`));
    expect(lines[2]).toMatch(new RegExp(`${head}\\S+ at position \\d+$`));
    expect(lines[3]).toMatch(new RegExp(`${head}no score: its text did not appear$`));
    const first = await cli.json([...generate, "--probe", "mood", "--probe", "mood:prompt-last"]);
    const [each, last] = first.completions[0].probeScores;
    // The first token is drawn from the last row of the prompt.
    expect(each.scores[0]).toBe(last.scores[0]);
  });
});
