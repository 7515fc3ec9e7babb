/** Texts that are looked for in prompts and completions. */
import type { Checker } from "./checker.js";
import type { RequestLimits } from "./limits.js";

/** Not empty, and not longer than the limit. */
export function readText(
  text: string | undefined,
  field: string,
  limits: RequestLimits,
  check: Checker,
): string {
  const known = text ?? "";
  if (known === "") check.add(field, "is empty");
  check.atMost(field, Buffer.byteLength(known), limits.maxAfterTextBytes, "bytes");
  return known;
}
