/** Steerings and positions. What depends on the vector or the prompt is checked in generation/. */
import type { Positions__Output } from "../generated/llamasteer/v1/Positions.js";
import type { Steering__Output } from "../generated/llamasteer/v1/Steering.js";
import type { TokenRange__Output } from "../generated/llamasteer/v1/TokenRange.js";
import type { PositionScope } from "../generation/positions.js";
import type { SteeringSpec } from "../generation/steering.js";
import type { NativeSteerKind } from "../native/binding.js";
import { rowsFromWire } from "../vectors/vector.js";
import { type Checker, FINITE_FLOAT32 } from "./checker.js";
import type { RequestLimits } from "./limits.js";
import { readGate } from "./validate-gate.js";
import { readText } from "./validate-text.js";

const OPERATIONS: ReadonlyMap<string, NativeSteerKind> = new Map([
  ["OPERATION_UNSPECIFIED", "add"],
  ["OPERATION_ADD", "add"],
  ["OPERATION_PROJECT_OUT", "project_out"],
  ["OPERATION_CLAMP", "clamp"],
  ["OPERATION_SCALE_COMPONENT", "scale_component"],
]);

export function readSteerings(
  steerings: readonly Steering__Output[],
  limits: RequestLimits,
  check: Checker,
): SteeringSpec[] {
  check.atMost("steering", steerings.length, limits.maxSteerings, "steerings");
  if (steerings.length > limits.maxSteerings) return [];
  return steerings.map((steering, index) =>
    readSteering(steering, `steering[${index}]`, limits, check),
  );
}

function readSteering(
  steering: Steering__Output,
  field: string,
  limits: RequestLimits,
  check: Checker,
): SteeringSpec {
  const { maxCoefficient } = limits;
  const operation = check.enumValue(`${field}.operation`, steering.operation, OPERATIONS, "add");
  check.atMost(`${field}.layers`, steering.layers.length, limits.layers, "blocks");
  return {
    field,
    source: readSource(steering, field, limits, check),
    operation,
    coefficient: check.number(`${field}.coefficient`, steering.coefficient, 1, {
      min: -maxCoefficient,
      max: maxCoefficient,
    }),
    ...readClamp(steering, operation, field, check),
    layers: steering.layers.slice(0, limits.layers),
    preserveNorm: steering.preserveNorm,
    positions: readScope(steering.positions),
    afterText: readAfterText(steering.positions, `${field}.positions`, limits, check),
    gate: steering.gate ? readGate(steering.gate, `${field}.gate`, limits, check) : null,
  };
}

function readSource(
  steering: Steering__Output,
  field: string,
  limits: RequestLimits,
  check: Checker,
): SteeringSpec["source"] {
  if (steering.source === "vectorId") return { kind: "id", vectorId: steering.vectorId ?? "" };
  if (steering.source === "inline") {
    const rows = steering.inline?.rows ?? [];
    const path = `${field}.inline.rows`;
    if (rows.length === 0) check.add(path, "is empty");
    check.atMost(path, rows.length, limits.layers, "rows");
    return { kind: "inline", rows: rowsFromWire(rows.slice(0, limits.layers), path) };
  }
  check.add(`${field}.source`, "is missing: vector_id or inline");
  return { kind: "inline", rows: [] };
}

/** Bounds of CLAMP; one may be absent, and then there is none. */
function readClamp(
  steering: Steering__Output,
  operation: NativeSteerKind,
  field: string,
  check: Checker,
): { clampMin: number; clampMax: number } {
  const { clampMin, clampMax } = steering;
  if (operation !== "clamp") {
    if (clampMin !== undefined) check.add(`${field}.clamp_min`, "is for OPERATION_CLAMP only");
    if (clampMax !== undefined) check.add(`${field}.clamp_max`, "is for OPERATION_CLAMP only");
    return { clampMin: 0, clampMax: 0 };
  }
  if (clampMin === undefined && clampMax === undefined) {
    check.add(`${field}.clamp_min`, "OPERATION_CLAMP needs clamp_min, clamp_max or both");
  }
  const bounds = {
    clampMin: check.number(`${field}.clamp_min`, clampMin, -Infinity, FINITE_FLOAT32),
    clampMax: check.number(`${field}.clamp_max`, clampMax, Infinity, FINITE_FLOAT32),
  };
  if (bounds.clampMin > bounds.clampMax) {
    check.add(`${field}.clamp_min`, `${bounds.clampMin} is above clamp_max ${bounds.clampMax}`);
  }
  return bounds;
}

function readAfterText(
  positions: Positions__Output | null,
  field: string,
  limits: RequestLimits,
  check: Checker,
): string | null {
  if (positions?.afterText === undefined) return null;
  return readText(positions.afterText, `${field}.after_text`, limits, check);
}

function readScope(positions: Positions__Output | null): PositionScope {
  switch (positions?.scope) {
    case "prompt":
      return { kind: "prompt" };
    case "generated":
      return { kind: "generated" };
    case "range":
      return readRange(positions.range ?? null);
    default:
      return { kind: "all" };
  }
}

export function readRange(range: TokenRange__Output | null): PositionScope {
  return { kind: "range", start: range?.start ?? null, end: range?.end ?? null };
}
