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

let tiny: string | null = null;

/** The same bytes every time; written once, removed when the process ends. */
export function tinyCheckpoint(): string {
  if (tiny !== null) return tiny;
  const folder = new TemporaryFolder();
  process.once("exit", () => folder.remove());
  const script = path.join(REPOSITORY, "bench/make-checkpoint.mjs");
  const target = folder.join("model");
  execFileSync(process.execPath, [script, "--shape", "tiny", "--out", target], { stdio: "pipe" });
  tiny = target;
  return target;
}
