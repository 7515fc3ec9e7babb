/**
 * The argument of `--gate`: VECTOR:LAYER:above=X|below=X[:PART]...
 *
 *   VECTOR, LAYER   the direction of the condition, and the block after which it is read
 *   above=X, below=X   the steering acts where the value is above, or below, X
 *   PART            each kind at most once, in any order:
 *     dot | cosine                              what is compared; default dot
 *     each-token | prompt-last | prompt-mean    where it is read; default each-token
 */
import type { Gate } from "../../client/client.js";
import { UsageError } from "../exit.js";
import { parseInteger, parseNumber } from "./numbers.js";
import { matchVectorId } from "./steer-syntax.js";

export const GATE_HELP =
  "the --steer before it acts only where a condition holds: VECTOR:LAYER:above=X or :below=X, then " +
  "dot or cosine, and each-token, prompt-last or prompt-mean";

const METRICS = new Map<string, NonNullable<Gate["metric"]>>([
  ["dot", "METRIC_DOT"],
  ["cosine", "METRIC_COSINE"],
]);
const SCOPES = new Map<string, NonNullable<Gate["scope"]>>([
  ["each-token", "SCOPE_EACH_TOKEN"],
  ["prompt-last", "SCOPE_PROMPT_LAST_TOKEN"],
  ["prompt-mean", "SCOPE_PROMPT_MEAN"],
]);
const THRESHOLD = /^(above|below)=(.*)$/;

/** Throws a UsageError that names the part that is wrong. */
export function parseGate(text: string): Gate {
  const vectorId = matchVectorId(text);
  if (vectorId === null) throw new UsageError("begins with no vector id");
  const [layer, ...parts] = text.slice(vectorId.length + 1).split(":");
  if (!layer) throw new UsageError(`needs a layer after the vector, as in ${vectorId}:4:above=0`);
  const gate: Gate = { vectorId, layer: parseInteger(layer) };
  for (const part of parts) readPart(part, gate);
  if (!gate.comparator) throw new UsageError("needs a threshold: above=X or below=X");
  return gate;
}

function readPart(part: string, gate: Gate): void {
  const [, comparator, value] = THRESHOLD.exec(part) ?? [];
  const metric = METRICS.get(part);
  const scope = SCOPES.get(part);
  if (value !== undefined) {
    if (gate.comparator) throw new UsageError("two parts give a threshold");
    gate.comparator = comparator === "above" ? "COMPARATOR_ABOVE" : "COMPARATOR_BELOW";
    gate.threshold = parseNumber(value);
  } else if (metric) {
    if (gate.metric) throw new UsageError("two parts give a metric");
    gate.metric = metric;
  } else if (scope) {
    if (gate.scope) throw new UsageError("two parts give a scope");
    gate.scope = scope;
  } else {
    throw new UsageError(
      `"${part}" is neither above=X, below=X, dot, cosine, each-token, prompt-last nor prompt-mean`,
    );
  }
}
