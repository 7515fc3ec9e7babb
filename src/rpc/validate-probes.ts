/** Probes to score while generating. */
import type { ProbeUse__Output } from "../generated/llamasteer/v1/ProbeUse.js";
import type { ProbeRead, ProbeSpec } from "../generation/probes.js";
import type { Checker } from "./checker.js";
import type { RequestLimits } from "./limits.js";
import { readText } from "./validate-text.js";

const READS: ReadonlyMap<string, ProbeRead> = new Map([
  ["READ_UNSPECIFIED", "each_token"],
  ["READ_EACH_TOKEN", "each_token"],
  ["READ_PROMPT_LAST", "prompt_last"],
  ["READ_AFTER_TEXT", "after_text"],
]);

export function readProbes(
  probes: readonly ProbeUse__Output[],
  limits: RequestLimits,
  check: Checker,
): ProbeSpec[] {
  check.atMost("probes", probes.length, limits.maxProbes, "probes");
  return probes.slice(0, limits.maxProbes).map((probe, index) => {
    const field = `probes[${index}]`;
    const read = check.enumValue(`${field}.read`, probe.read, READS, "each_token");
    if (read !== "after_text" && probe.text !== "") {
      check.add(`${field}.text`, "is for READ_AFTER_TEXT only");
    }
    const text =
      read === "after_text" ? readText(probe.text, `${field}.text`, limits, check) : null;
    return { field, probeId: probe.probeId, read, text };
  });
}
