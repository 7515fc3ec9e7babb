/** What a response proves about its steering, and how fast it was, as lines for people. */
import type { AppliedSteering, Timings, Usage } from "../../client/client.js";
import { formatLayers } from "../arguments/numbers.js";

/** Hex digits of a digest that are shown: as many as pin a vector. */
const DIGEST_DIGITS = 12;

export function shortDigest(digest: string): string {
  return digest.slice(0, digest.indexOf(":") + 1 + DIGEST_DIGITS);
}

/** `sentiment@sha256:0123456789ab  ADD × 4  layers 3-5  12 prompt + 48 generated tokens  mean ‖Δh‖/‖h‖ 0.183` */
export function proofLine(applied: AppliedSteering): string {
  const { layers, promptTokens, generatedTokens } = applied;
  const operation = applied.operation.replace("OPERATION_", "").replaceAll("_", " ");
  return [
    `${applied.vectorId || "inline"}@${shortDigest(applied.digest)}`,
    `${operation} × ${formatNumber(applied.coefficient)}${applied.preserveNorm ? " keeping the norm" : ""}`,
    `${layers.length === 1 ? "layer" : "layers"} ${formatLayers(layers)}`,
    `${promptTokens} prompt + ${generatedTokens} generated tokens`,
    `mean ‖Δh‖/‖h‖ ${formatNumber(applied.meanDeltaRatio)}`,
    ...conditionsOf(applied),
  ].join("  ");
}

/** How often the gate was open, and where the text to wait for ended. */
function conditionsOf({
  gateDigest,
  gateFired,
  gateEvaluations,
  afterTextPositions,
}: AppliedSteering): string[] {
  const parts: string[] = [];
  if (gateDigest) parts.push(`gate open ${gateFired} of ${gateEvaluations} times`);
  if (afterTextPositions.length > 0) {
    const positions = afterTextPositions.map((position) => (position < 0 ? "never" : position));
    parts.push(`text ended before position ${positions.join(", ")}`);
  }
  return parts;
}

/** `48 tokens  1.2 ms to the first  812 tokens/s  seed 7` */
export function speedLine(
  usage: Usage | null,
  timings: Timings | null,
  seed: string | undefined,
): string {
  const tokens = usage?.completionTokens ?? 0;
  const decodeSeconds = secondsOf(timings?.decode);
  const parts = [`${tokens} ${tokens === 1 ? "token" : "tokens"}`];
  parts.push(`${formatNumber(secondsOf(timings?.timeToFirstToken) * 1000)} ms to the first`);
  if (tokens > 1 && decodeSeconds > 0) {
    parts.push(`${formatNumber((tokens - 1) / decodeSeconds)} tokens/s`);
  }
  if (seed !== undefined) parts.push(`seed ${seed}`);
  return parts.join("  ");
}

function secondsOf(duration: { seconds?: unknown; nanos?: unknown } | null | undefined): number {
  return Number(duration?.seconds ?? 0) + Number(duration?.nanos ?? 0) / 1e9;
}

/** Three significant digits, without an exponent where that is readable. */
export function formatNumber(value: number): string {
  if (value === 0 || !Number.isFinite(value)) return String(value);
  const magnitude = Math.abs(value);
  if (magnitude >= 1e6 || magnitude < 1e-4) return value.toExponential(2);
  return magnitude >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}
