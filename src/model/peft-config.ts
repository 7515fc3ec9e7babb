/** adapter_config.json of PEFT: which LoRA adapters can be served, and their ranks and scales. */
import { StartupError } from "../errors.js";
import { isObject, type JsonObject } from "./json.js";

/** What the configuration says about one module, such as `model.layers.0.self_attn.q_proj`. */
export interface LoraRule {
  rank: number;
  /** alpha / rank, or alpha / sqrt(rank) with rsLoRA. */
  scale: number;
}

export interface PeftConfig {
  ruleFor(module: string): LoraRule;
  /** Whether the module must have an adapter; null: the configuration does not tell. */
  targets(module: string): boolean | null;
}

const MAX_RANK = 4096;
/** Python regular expressions of a configuration are run here: keep them cheap. */
const MAX_PATTERN_LENGTH = 200;
const MAX_QUANTIFIERS = 4;

/** Not empty: something that is not a plain LoRA term beside a projection. */
const UNSUPPORTED = [
  "alora_invocation_tokens",
  "fan_in_fan_out",
  "layer_replication",
  "lora_bias",
  "modules_to_save",
  "target_parameters",
  "trainable_token_indices",
];
/** Variants are switched on by `use_…` and `…_config`; these change nothing that is served. */
const HARMLESS = new Set([
  "use_rslora",
  "loftq_config",
  "eva_config",
  "corda_config",
  "lora_ga_config",
  "runtime_config",
  "megatron_config",
]);
/** Other ways to start an adapter also change the base model's weights. */
const PLAIN_STARTS: readonly unknown[] = [
  undefined,
  null,
  true,
  false,
  "gaussian",
  "eva",
  "orthogonal",
];

/** Throws a StartupError that names the file and the field. */
export function parsePeftConfig(file: string, json: JsonObject): PeftConfig {
  const fail = (field: string, text: string): never => {
    throw new StartupError(`${file}: ${field}: ${text}`);
  };
  checkVariant(json, fail);
  const rank = rankOf(json["r"], "r", fail);
  const alpha = alphaOf(json["lora_alpha"], "lora_alpha", fail);
  const rslora = json["use_rslora"] ?? false;
  if (typeof rslora !== "boolean") fail("use_rslora", "is not true or false");
  const ranks = patternsOf(json, "rank_pattern", rankOf, fail);
  const alphas = patternsOf(json, "alpha_pattern", alphaOf, fail);
  return {
    ruleFor: (module) => {
      const moduleRank = firstMatch(ranks, module) ?? rank;
      const moduleAlpha = firstMatch(alphas, module) ?? alpha;
      return {
        rank: moduleRank,
        scale: moduleAlpha / (rslora ? Math.sqrt(moduleRank) : moduleRank),
      };
    },
    targets: targetsOf(json, fail),
  };
}

type Fail = (field: string, text: string) => never;

function checkVariant(json: JsonObject, fail: Fail): void {
  if (json["peft_type"] !== "LORA") {
    fail("peft_type", `${JSON.stringify(json["peft_type"] ?? null)} is not supported; "LORA" is`);
  }
  const bias = json["bias"] ?? "none";
  if (bias !== "none") fail("bias", `${JSON.stringify(bias)} is not supported; "none" is`);
  if (!isEmpty(json["use_dora"])) fail("use_dora", "DoRA is not supported; plain LoRA is");
  if (!isEmpty(json["modules_to_save"])) {
    fail("modules_to_save", "whole modules in an adapter are not supported; LoRA terms are");
  }
  for (const [key, value] of Object.entries(json)) {
    const variant = (key.startsWith("use_") || key.endsWith("_config")) && !HARMLESS.has(key);
    if ((variant || UNSUPPORTED.includes(key)) && !isEmpty(value)) {
      fail(key, `${JSON.stringify(value)} is not supported`);
    }
  }
  const start = json["init_lora_weights"];
  if (!PLAIN_STARTS.includes(start)) {
    fail(
      "init_lora_weights",
      `${JSON.stringify(start)} changes the base model too; save the adapter converted to plain LoRA`,
    );
  }
}

function isEmpty(value: unknown): boolean {
  if (value === undefined || value === null || value === false || value === "") return true;
  return typeof value === "object" && Object.keys(value).length === 0;
}

function rankOf(value: unknown, field: string, fail: Fail): number {
  if (typeof value === "number" && Number.isInteger(value) && value >= 1 && value <= MAX_RANK) {
    return value;
  }
  return fail(field, `${JSON.stringify(value ?? null)} is not a rank from 1 to ${MAX_RANK}`);
}

function alphaOf(value: unknown, field: string, fail: Fail): number {
  if (typeof value === "number" && Math.abs(value) <= 1e6) return value;
  return fail(field, `${JSON.stringify(value ?? null)} is not a number of at most 1e6`);
}

interface Pattern {
  matches: RegExp;
  value: number;
}

/** As PEFT: the first key that matches the end of the module's name, from a dot on. */
function patternsOf(
  json: JsonObject,
  field: string,
  read: (value: unknown, field: string, fail: Fail) => number,
  fail: Fail,
): Pattern[] {
  const patterns = json[field] ?? {};
  if (!isObject(patterns)) return fail(field, "is not an object");
  return Object.entries(patterns).map(([key, value]) => {
    const name = `${field}[${JSON.stringify(key)}]`;
    return {
      matches: regExp(`^(?:.*\\.)?(?:${key})$`, key, name, fail),
      value: read(value, name, fail),
    };
  });
}

function firstMatch(patterns: readonly Pattern[], module: string): number | null {
  return patterns.find(({ matches }) => matches.test(module))?.value ?? null;
}

/** A repeated group could take exponential time. */
function regExp(source: string, key: string, field: string, fail: Fail): RegExp {
  const quantifiers = key.match(/[*+?{]/g)?.length ?? 0;
  if (key.length > MAX_PATTERN_LENGTH || quantifiers > MAX_QUANTIFIERS || /\)[*+?{]/.test(key)) {
    return fail(field, "the pattern is longer or repeats more than is supported");
  }
  try {
    return new RegExp(source);
  } catch {
    return fail(field, "is not a regular expression");
  }
}

function targetsOf(json: JsonObject, fail: Fail): (module: string) => boolean | null {
  const targets = json["target_modules"];
  const excluded = json["exclude_modules"] ?? [];
  if (targets === "all-linear") return () => true;
  // Regular expressions in Python's dialect: the tensors say what they matched.
  if (typeof targets === "string" || typeof excluded === "string") return () => null;
  if (!isNames(targets)) return fail("target_modules", "is not a list of module names");
  if (!isNames(excluded)) return fail("exclude_modules", "is not a list of module names");
  const layers = layersOf(json, fail);
  const names = (list: readonly string[], module: string) =>
    list.some((name) => module === name || module.endsWith(`.${name}`));
  return (module) => {
    if (!names(targets, module) || names(excluded, module)) return false;
    return (
      layers === null ||
      layers.has(Number(/\.layers\.(\d+)\./.exec(module)?.[1])) ||
      targets.includes(module)
    );
  };
}

function layersOf(json: JsonObject, fail: Fail): Set<number> | null {
  const value = json["layers_to_transform"];
  if (isEmpty(value)) return null;
  const layers: unknown[] = Array.isArray(value) ? value : [value];
  if (!layers.every((layer) => Number.isSafeInteger(layer))) {
    fail("layers_to_transform", "is not a list of layer numbers");
  }
  return new Set(layers.map(Number));
}

function isNames(value: unknown): value is string[] {
  return Array.isArray(value) && value.every((name) => typeof name === "string");
}
