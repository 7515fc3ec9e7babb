/** The argument of `--probe`: PROBE[:each-token | :prompt-last | :after=TEXT]. */
import type { ProbeUse } from "../../client/client.js";
import { UsageError } from "../exit.js";
import { matchVectorId } from "./steer-syntax.js";

export const PROBE_HELP =
  "score a probe while generating, may be repeated: PROBE, then :each-token (default), :prompt-last " +
  "or :after=TEXT (at the token that completes TEXT)";

/** Throws a UsageError that names the part that is wrong. */
export function parseProbe(text: string): ProbeUse {
  const probeId = matchVectorId(text);
  if (probeId === null) throw new UsageError("begins with no probe id");
  const read = text.slice(probeId.length + 1);
  if (read === "" && text.length === probeId.length) return { probeId };
  if (read === "each-token") return { probeId, read: "READ_EACH_TOKEN" };
  if (read === "prompt-last") return { probeId, read: "READ_PROMPT_LAST" };
  if (/^after=./s.test(read)) {
    return { probeId, read: "READ_AFTER_TEXT", text: read.slice("after=".length) };
  }
  throw new UsageError(`"${read}" is neither each-token, prompt-last nor after=TEXT`);
}
