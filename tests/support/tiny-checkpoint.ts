/** A random checkpoint with tokenizer and chat template, small enough for tests of the service. */
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import os from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

export const REPOSITORY = fileURLToPath(new URL("../..", import.meta.url));

export const TINY = { layers: 3, hiddenSize: 64, vocabSize: 1024, contextTokens: 512 };

export class TemporaryFolder {
  readonly path = mkdtempSync(path.join(os.tmpdir(), "llama-steer-test-"));

  join(...names: string[]): string {
    return path.join(this.path, ...names);
  }

  remove(): void {
    rmSync(this.path, { recursive: true, force: true });
  }
}

/** The same bytes every time. */
export function writeTinyCheckpoint(folder: string): string {
  const script = path.join(REPOSITORY, "bench/make-checkpoint.mjs");
  execFileSync(process.execPath, [script, "--shape", "tiny", "--out", folder], { stdio: "pipe" });
  return folder;
}
