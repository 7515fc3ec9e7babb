/** Probes from the command line: fitted, calibrated, scored, listed, shown, deleted. */
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { CliTest } from "../../support/cli.js";
import { CHECKPOINT } from "../../support/live-server.js";

let cli: CliTest;
beforeAll(async () => {
  cli = await CliTest.start();
}, 60_000);
afterAll(() => cli.stop());

const pairs = path.join(CHECKPOINT, "pairs/sentiment.jsonl");
const fitArgs = (id: string, ...options: string[]) => [
  ...["probes", "fit", id, "--pairs", pairs, "--token", "all-mean", "-l", "4", ...options],
];

describe("probes", { timeout: 30_000 }, () => {
  test("are fitted, shown, listed and deleted", async () => {
    const text = await cli.ok(fitArgs("mood", "--label", "a=b", "--random-directions", "20"));
    const [head, how, own] = text.split("\n");
    expect(head).toMatch(/^mood@sha256:[0-9a-f]{12} {2}layer 4 {2}not calibrated {2}a=b$/);
    expect(how).toMatch(/^ {2}MEAN DIFFERENCE {2}ALL MEAN {2}\d+ pairs {2}on sha256:.* ‖d‖ \d/);
    expect(own).toMatch(/^ {2}on its own pairs: AUROC [01]\.\d{3} .*; 20 random directions: mean/);
    expect(await cli.ok(["probes", "show", "mood"])).toBe(text);
    expect(await cli.ok(["probes", "list", "--label", "a=b"])).toBe(`${head}\n`);
    expect(await cli.ok(["probes", "delete", "mood"])).toBe("deleted mood\n");
    const { code, stderr } = await cli.run(["probes", "show", "mood"]);
    expect(code).toBe(1);
    expect(stderr).toMatch(/see `llama-steer probes list`/);
  });

  test("calibrated they fire above the threshold, and at most at the rate on benign texts", async () => {
    await cli.ok(fitArgs("cal"));
    const benign = Array.from({ length: 20 }, (_, i) => `The room number ${i} was plain.`);
    const file = cli.file("benign.txt", benign.join("\n"));
    const text = await cli.ok(["probes", "calibrate", "cal", "--benign", file, "--fpr", "0.1"]);
    expect(text).toMatch(/layer 4 {2}threshold -?\d\S* at 10% false positives/);
    expect(text).toMatch(/calibrated on 20 benign texts, (0|5|10)% of which fire/);
    const response = await cli.json(["probes", "score", "cal", "-f", file]);
    const { threshold } = response.probe.calibration;
    expect(response.fired).toEqual(response.scores.map((score: number) => score > threshold));
    expect(response.fired.filter(Boolean).length).toBeLessThanOrEqual(2);
  });

  test("labelled texts give an AUROC beside random directions", async () => {
    await cli.ok(fitArgs("auroc"));
    const good = cli.file("good.txt", "I was happy. It was superb.\nA wonderful, tasty meal.\n");
    const bad = cli.file(
      "bad.jsonl",
      '"I was sad. It was faulty."\n{"prompt": "An awful meal."}\n',
    );
    const args = ["probes", "score", "auroc", "--positive", good, "--negative", bad];
    const text = await cli.ok([...args, "-p", "Plain."]);
    const lines = text.trim().split("\n");
    expect(lines[1]).toMatch(/^ *score +text$/);
    expect(lines.slice(2, 7).map((line) => line.trim().split(/ {2,}/).slice(1))).toEqual([
      ['"Plain."'],
      ["positive", '"I was happy. It was superb."'],
      ["positive", '"A wonderful, tasty meal."'],
      ["negative", '"I was sad. It was faulty."'],
      ["negative", '"An awful meal."'],
    ]);
    expect(lines[7]).toMatch(/^AUROC [01]\.\d{3} \(2 positive, 2 negative texts\); 100 random/);
    const { discrimination } = await cli.json([...args, "--random-directions", "7"]);
    expect(discrimination.randomAuroc).toHaveLength(7);
  });

  test.each<[string[], number, RegExp]>([
    [["fit", "p"], 2, /required option '--pairs <FILE>'/],
    [["fit", "p", "--pairs", "x", "--token", "last", "--at-text", "y"], 2, /cannot be used with/],
    [["calibrate", "p", "--benign", "x"], 2, /required option '--fpr <X>'/],
    [["score", "p"], 2, /say what to score/],
    [["score", "nobody", "-p", "x"], 1, /see `llama-steer probes list`/],
  ])("%j exits with %i", async (args, code, message) => {
    const result = await cli.run(["probes", ...args]);
    expect(result.stderr).toMatch(message);
    expect(result.code).toBe(code);
  });
});
