/** Contrastive pairs, and how they are read and turned into a direction. */

import type { ContrastiveInput__Output } from "../generated/llamasteer/v1/ContrastiveInput.js";
import type { ContrastivePair__Output } from "../generated/llamasteer/v1/ContrastivePair.js";
import type { ReadInput, ReadRule } from "../generation/residuals.js";
import type { DeriveMethod } from "../vectors/derive/directions.js";
import type { Checker } from "./checker.js";
import type { RequestLimits } from "./limits.js";
import { readInput } from "./validate-input.js";

export const METHODS: ReadonlyMap<string, DeriveMethod> = new Map([
  ["METHOD_UNSPECIFIED", "mean_difference"],
  ["METHOD_MEAN_DIFFERENCE", "mean_difference"],
  ["METHOD_PCA_PAIRWISE", "pca_pairwise"],
  ["METHOD_PCA_CENTERED", "pca_centered"],
  ["METHOD_LOGISTIC", "logistic"],
]);

/** What a probe may be fitted by. */
export const PROBE_METHODS: ReadonlyMap<string, DeriveMethod> = new Map([
  ["METHOD_UNSPECIFIED", "mean_difference"],
  ["METHOD_MEAN_DIFFERENCE", "mean_difference"],
  ["METHOD_LOGISTIC", "logistic"],
]);

const RULES: ReadonlyMap<string, ReadRule["kind"]> = new Map([
  ["TOKEN_RULE_UNSPECIFIED", "last"],
  ["TOKEN_RULE_LAST", "last"],
  ["TOKEN_RULE_ALL_MEAN", "all_mean"],
  ["TOKEN_RULE_AT_TEXT", "at_text"],
  ["TOKEN_RULE_COMPLETION_MEAN", "completion_mean"],
]);

/** The contract's name of a method or a rule; never the one for "default". */
export function methodName(method: DeriveMethod): string {
  return nameOf(METHODS, method);
}

export function ruleName(rule: ReadRule["kind"]): string {
  return nameOf(RULES, rule);
}

/** Of a stored record; null for a name of another version. */
export function ruleOfName(name: string): ReadRule["kind"] | null {
  return RULES.get(name) ?? null;
}

function nameOf<T>(names: ReadonlyMap<string, T>, meaning: T): string {
  return [...names].findLast(([, each]) => each === meaning)?.[0] ?? "";
}

export interface PairInputs {
  positive: ReadInput;
  negative: ReadInput;
}

export function readPairInputs(
  pairs: readonly ContrastivePair__Output[],
  limits: RequestLimits,
  check: Checker,
): PairInputs[] {
  if (pairs.length === 0) check.add("pairs", "is empty");
  check.atMost("pairs", pairs.length, limits.maxPairs, "pairs");
  if (pairs.length > limits.maxPairs) return [];
  return pairs.map(({ positive, negative }, index) => ({
    positive: readContrastive(positive, `pairs[${index}].positive`, limits, check),
    negative: readContrastive(negative, `pairs[${index}].negative`, limits, check),
  }));
}

export function readContrastive(
  side: ContrastiveInput__Output | null,
  field: string,
  limits: RequestLimits,
  check: Checker,
): ReadInput {
  const { completion } = side ?? {};
  if (completion === "") check.add(`${field}.completion`, "is empty");
  const bytes = Buffer.byteLength(completion ?? "");
  check.atMost(`${field}.completion`, bytes, limits.maxPromptBytes, "bytes");
  return {
    input: readInput(side ?? {}, `${field}.`, limits, check),
    completion: completion ?? null,
    field,
  };
}

export function readRule(
  rule: string | number,
  text: string | undefined,
  limits: RequestLimits,
  check: Checker,
): ReadRule {
  const kind = check.enumValue("token_rule", rule, RULES, "last");
  const field = "token_text";
  if (kind === "at_text") {
    if (!text) check.add(field, "is missing: TOKEN_RULE_AT_TEXT reads where this text ends");
  } else if (text !== undefined) {
    check.add(field, "is for TOKEN_RULE_AT_TEXT only");
  }
  check.atMost(field, Buffer.byteLength(text ?? ""), limits.maxStopTextBytes, "bytes");
  return { kind, text: text ?? "" };
}

/** Ascending; empty: all. */
export function readLayers(
  layers: readonly number[],
  limits: RequestLimits,
  check: Checker,
): number[] {
  if (layers.length === 0) return Array.from({ length: limits.layers }, (_, layer) => layer);
  check.atMost("layers", layers.length, limits.layers, "blocks");
  const seen = new Set<number>();
  for (const [index, layer] of layers.slice(0, limits.layers).entries()) {
    if (layer >= limits.layers) {
      check.add(`layers[${index}]`, `${layer}: the model has ${limits.layers} blocks`);
    }
    if (seen.has(layer)) check.add(`layers[${index}]`, `${layer} appears twice`);
    seen.add(layer);
  }
  return [...seen].sort((a, b) => a - b);
}
