/** The Python that judges code in tests. */
import { execFileSync } from "node:child_process";
import { fileURLToPath } from "node:url";

const SCRIPT = fileURLToPath(new URL("../../scripts/study-python.sh", import.meta.url));

/** Installs it at its first call on a machine: give the hook that calls this minutes. */
export function studyPython(): string {
  return execFileSync(SCRIPT, { encoding: "utf8" }).trim();
}
