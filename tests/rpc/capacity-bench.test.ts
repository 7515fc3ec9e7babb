/** bench/capacity.mjs: one short round, and what it says. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { ROOT, run } from "../support/live-server.js";
import { TemporaryFolder, tinyCheckpoint } from "../support/tiny-checkpoint.js";

const SCRIPT = path.join(ROOT, "bench/capacity.mjs");

let folder: TemporaryFolder;
beforeAll(() => {
  folder = new TemporaryFolder();
});
afterAll(() => folder.remove());

async function measure(...options: string[]): Promise<{ code: number | null; report: string }> {
  const out = folder.join("capacity.md");
  const request = ["--prompt-tokens", "8", "--new-tokens", "4", "--seconds", "0.2"];
  const model = ["--model", tinyCheckpoint(), "--streams", "1,2", "--out", out];
  const { code } = await run(process.execPath, [SCRIPT, ...model, ...request, ...options]);
  return { code, report: readFileSync(out, "utf8") };
}

it("names what a replica carries within the targets", async () => {
  const loose = ["--first-token-ms", "60000", "--inter-token-ms", "60000", "--steered"];
  const { code, report } = await measure(...loose);
  expect(code).toBe(0);
  expect(
    report.match(/^\| [12] \| \d+\.\d+ \| \d+ \| \d+\.\d \| \d+\.\d \| 0 \| yes \|$/gm),
  ).toHaveLength(2);
  expect(report).toMatch(
    /\*\*One replica: \d+\.\d requests\/s, \d+ tokens\/s\*\*, with\s[12] requests/,
  );
});

it("says so when nothing holds them, and exits with 1", async () => {
  const { code, report } = await measure("--first-token-ms", "0.001");
  expect(code).toBe(1);
  expect(report).toContain("**No number of streams holds the targets**");
});
