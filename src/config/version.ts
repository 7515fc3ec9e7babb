/** The version of the package. */
import { readFileSync } from "node:fs";

export function packageVersion(): string {
  const json: unknown = JSON.parse(
    readFileSync(new URL("../../package.json", import.meta.url), "utf8"),
  );
  if (typeof json === "object" && json !== null && "version" in json) return String(json.version);
  throw new Error("package.json has no version");
}
