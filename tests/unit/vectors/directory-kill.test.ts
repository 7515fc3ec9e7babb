/**
 * The process is killed before every single step of a write, for real, and halfway through writes of
 * bytes. Simulated losses of power: directory-crash.test.ts. More rounds: bench/registry-kill.mjs
 */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { ROOT, run } from "../../support/live-server.js";
import { TemporaryFolder } from "../../support/tiny-checkpoint.js";

test("SIGKILL at any step of a write leaves the state before or after it", {
  timeout: 240_000,
}, async () => {
  const folder = new TemporaryFolder();
  const report = folder.join("report.md");
  const script = "bench/registry-kill.mjs";
  const args = [script, "--rounds", "1", "--server-rounds", "2", "--out", report];
  const { code, stderr } = await run(process.execPath, args, { cwd: ROOT });
  expect(code, stderr).toBe(0);
  const text = readFileSync(report, "utf8");
  // The steps by which a vector gets into the registry, each of them a failpoint.
  expect(text).toContain(
    "put of a vector: open ….safetensors.tmp → write → sync → rename ….safetensors.tmp → sync → " +
      "open manifest.jsonl → write → sync → acknowledge",
  );
  folder.remove();
});
