/** What is captured. */
import type { CaptureSpec__Output } from "../generated/llamasteer/v1/CaptureSpec.js";
import type { TokenSelector__Output } from "../generated/llamasteer/v1/TokenSelector.js";
import type { CaptureSpec } from "../generation/capture-spec.js";
import type { DTypeName, NativeCaptureSite } from "../native/binding.js";
import type { Checker } from "./checker.js";
import type { RequestLimits } from "./limits.js";
import { readRange } from "./validate-steering.js";
import { readText } from "./validate-text.js";

const SITES: ReadonlyMap<string, NativeCaptureSite> = new Map([
  ["SITE_RESID_PRE", "resid_pre"],
  ["SITE_ATTN_OUT", "attn_out"],
  ["SITE_MLP_OUT", "mlp_out"],
  ["SITE_RESID_POST", "resid_post"],
  ["SITE_FINAL_NORM", "final_norm"],
]);

const DTYPES: ReadonlyMap<string, DTypeName> = new Map([
  ["D_TYPE_UNSPECIFIED", "f32"],
  ["D_TYPE_FLOAT32", "f32"],
  ["D_TYPE_BFLOAT16", "bf16"],
  ["D_TYPE_FLOAT16", "f16"],
]);

export function readCapture(
  capture: CaptureSpec__Output | null,
  limits: RequestLimits,
  check: Checker,
): CaptureSpec {
  if (!capture) check.add("capture", "is missing");
  const sites = capture?.sites ?? [];
  const layers = capture?.layers ?? [];
  if (capture && sites.length === 0) check.add("capture.sites", "is empty");
  check.atMost("capture.sites", sites.length, SITES.size, "sites");
  check.atMost("capture.layers", layers.length, limits.layers, "blocks");
  const outside = layers.findIndex((layer) => layer >= limits.layers);
  if (outside >= 0) {
    check.add(
      `capture.layers[${outside}]`,
      `${layers[outside]}: the model has ${limits.layers} blocks`,
    );
  }
  const known = sites
    .slice(0, SITES.size)
    .map((site, index) => check.enumValue(`capture.sites[${index}]`, site, SITES, "resid_post"));
  return {
    sites: [...new Set(known)],
    layers: layers.slice(0, limits.layers),
    tokens: readSelector(capture?.tokens ?? null, limits, check),
    mean: capture?.tokens?.mean ?? false,
    beforeSteering: capture?.beforeSteering ?? false,
    dtype: check.enumValue("capture.dtype", capture?.dtype ?? "D_TYPE_UNSPECIFIED", DTYPES, "f32"),
    lensTopK: readLens(capture, limits, check),
  };
}

function readLens(
  capture: CaptureSpec__Output | null,
  limits: RequestLimits,
  check: Checker,
): number {
  const field = "capture.lens_top_k";
  const topK = check.number(field, capture?.lensTopK, 0, { min: 0, max: limits.maxLensTopK });
  if (topK > 0 && capture?.tokens?.mean) check.add(field, "is for the rows of tokens, not a mean");
  return topK;
}

function readSelector(
  tokens: TokenSelector__Output | null,
  limits: RequestLimits,
  check: Checker,
): CaptureSpec["tokens"] {
  switch (tokens?.selector) {
    case "last":
      return { kind: "last" };
    case "range":
      return readRange(tokens.range ?? null);
    case "afterText":
      return {
        kind: "after_text",
        text: readText(tokens.afterText, "capture.tokens.after_text", limits, check),
      };
    default:
      return { kind: "all" };
  }
}
