/** Gates. What depends on the vector is checked in generation/. */
import type { Gate__Output } from "../generated/llamasteer/v1/Gate.js";
import type { GateSpec } from "../generation/gate.js";
import type { NativeGateComparator, NativeGateMetric, NativeGateScope } from "../native/binding.js";
import { type Checker, FINITE_FLOAT32 } from "./checker.js";
import type { RequestLimits } from "./limits.js";

const METRICS: ReadonlyMap<string, NativeGateMetric> = new Map([
  ["METRIC_UNSPECIFIED", "dot"],
  ["METRIC_DOT", "dot"],
  ["METRIC_COSINE", "cosine"],
]);

const COMPARATORS: ReadonlyMap<string, NativeGateComparator> = new Map([
  ["COMPARATOR_UNSPECIFIED", "above"],
  ["COMPARATOR_ABOVE", "above"],
  ["COMPARATOR_BELOW", "below"],
]);

const SCOPES: ReadonlyMap<string, NativeGateScope> = new Map([
  ["SCOPE_UNSPECIFIED", "each_token"],
  ["SCOPE_EACH_TOKEN", "each_token"],
  ["SCOPE_PROMPT_LAST_TOKEN", "prompt_last_token"],
  ["SCOPE_PROMPT_MEAN", "prompt_mean"],
]);

export function readGate(
  gate: Gate__Output,
  field: string,
  limits: RequestLimits,
  check: Checker,
): GateSpec {
  if (gate.vectorId === "") check.add(`${field}.vector_id`, "is missing");
  if (gate.layer >= limits.layers) {
    check.add(`${field}.layer`, `${gate.layer}: the model has ${limits.layers} blocks`);
  }
  return {
    field,
    vectorId: gate.vectorId,
    layer: gate.layer,
    metric: check.enumValue(`${field}.metric`, gate.metric, METRICS, "dot"),
    comparator: check.enumValue(`${field}.comparator`, gate.comparator, COMPARATORS, "above"),
    threshold: check.number(`${field}.threshold`, gate.threshold, 0, FINITE_FLOAT32),
    scope: check.enumValue(`${field}.scope`, gate.scope, SCOPES, "each_token"),
  };
}
