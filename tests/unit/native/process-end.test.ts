/** How a process or worker with a running engine ends: cleanly, and when it should. */
import { execFile } from "node:child_process";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { engineOptions } from "../../parity/native-run.js";
import { TINY_MODEL, writeSyntheticCheckpoint } from "../../parity/synthetic-checkpoint.js";

const folder = mkdtempSync(path.join(os.tmpdir(), "llama-steer-end-"));
const optionsFile = path.join(folder, "options.json");
const TIMEOUT_MS = 60_000;
const WORKERS_THAT_EXIT = "exiting\nclosed\ndone after 20 tokens\nsurvived\n";

beforeAll(() => {
  writeSyntheticCheckpoint(folder, TINY_MODEL, 1);
  writeFileSync(optionsFile, JSON.stringify(engineOptions(folder)));
});
afterAll(() => rmSync(folder, { recursive: true }));

interface Ending {
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

function runChild(scenario: string): Promise<Ending> {
  const args = ["--expose-gc", path.join(import.meta.dirname, "child.mjs"), scenario, optionsFile];
  return new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      args,
      { timeout: TIMEOUT_MS - 5000 },
      (_error, stdout, stderr) =>
        resolve({ code: child.exitCode, signal: child.signalCode, stdout, stderr }),
    );
  });
}

describe("a process with an engine", { timeout: TIMEOUT_MS }, () => {
  it.each([
    ["ends by itself once its requests have ended", "idle", "done after 20 tokens\n"],
    ["exits in the middle of streams", "exitWhileStreaming", "exiting\n"],
    ["exits while the weights are loaded", "exitWhileLoading", ""],
    ["closes while the weights are loaded", "closeWhileLoading", "closed\n"],
    ["goes on when a handler throws", "throwingHandler", "caught: the handler broke\ndone\n"],
    ["survives workers terminated in mid-stream", "terminateWorkers", "survived\n"],
    ["survives workers that exit", "workersThatExit", WORKERS_THAT_EXIT],
    ["frees an engine that nobody holds", "collect", "collected\n"],
    ["opens and closes engines again and again", "reopen", "no thread left\n"],
  ])("%s", async (_behaviour, scenario, stdout) => {
    expect(await runChild(scenario)).toEqual({ code: 0, signal: null, stdout, stderr: "" });
  });

  it("dies of an uncaught error as any process does", async () => {
    const ending = await runChild("uncaughtErrorWhileStreaming");
    expect(ending).toMatchObject({ signal: null, stdout: "" });
    expect(ending.code).toBeGreaterThan(0);
    expect(ending.stderr).toContain("the handler broke");
  });
});
