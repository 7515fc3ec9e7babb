/**
 * The argument of `--steer`:
 *
 *   VECTOR[:COEFFICIENT[:PART]...]
 *
 *   VECTOR       id, pinned id (`sentiment@sha256:0123456789ab`), or `@FILE` with the rows
 *   COEFFICIENT  a number; default 1
 *   PART         each kind at most once, in any order, known by its form:
 *     3-5,7                                        layers; default: all that the vector holds
 *     add | project-out | scale | clamp(MIN,MAX)   operation; default add; a bound may be left out
 *     all | prompt | generated | [START..END]      tokens; default all; negative: from the prompt's end
 *     preserve-norm                                gives the row back the length it had
 */
import type { Positions, Steering } from "../../client/client.js";
import { UsageError } from "../exit.js";
import { DECIMAL, matchLayers, matchTokenRange, parseNumber } from "./numbers.js";

export const STEER_HELP =
  "VECTOR[:COEFFICIENT[:PART]...], may be repeated, applied in order. VECTOR: an id, a pinned id " +
  "(id@sha256:0123456789ab) or @FILE with the rows. PARTs in any order: layers (3-5,7), operation " +
  "(add, project-out, scale, clamp(MIN,MAX)), tokens (all, prompt, generated, [START..END] where " +
  "negative numbers count from the prompt's end), preserve-norm";

/** A steering whose rows may still have to be read from a file. */
export interface SteerArgument {
  steering: Steering;
  /** `@FILE`. */
  file?: string;
}

const VECTOR = /^([a-z0-9][a-z0-9._-]{0,62}(?:@sha256:[0-9a-f]{12,64})?)(?::|$)/;
const FILE = /^@(.+?\.(?:npy|json|safetensors))(?::|$)/;
const CLAMP = /^clamp\(([^,]*),([^,]*)\)$/;

const OPERATIONS = new Map<string, NonNullable<Steering["operation"]>>([
  ["add", "OPERATION_ADD"],
  ["project-out", "OPERATION_PROJECT_OUT"],
  ["scale", "OPERATION_SCALE_COMPONENT"],
]);

const SCOPES = new Map<string, Positions>([
  ["all", { all: {} }],
  ["prompt", { prompt: {} }],
  ["generated", { generated: {} }],
]);

/** The id, or pinned id, that a text begins with, up to ":" or its end; null when there is none. */
export function matchVectorId(text: string): string | null {
  return VECTOR.exec(text)?.[1] ?? null;
}

/** Throws a UsageError that names the part that is wrong. */
export function parseSteer(text: string): SteerArgument {
  const file = FILE.exec(text);
  const vector = file ?? VECTOR.exec(text);
  if (!vector?.[1]) {
    throw new UsageError(
      `begins with neither a vector id (a-z, 0-9, ".", "_", "-"), ` +
        'nor a pinned id, nor "@FILE" (.npy, .json, .safetensors)',
    );
  }
  const rest = text.slice(vector[0].length);
  const parts = rest === "" ? [] : rest.split(":");
  if (text.endsWith(":")) throw new UsageError('ends with ":"');
  const steering: Steering = file ? {} : { vectorId: vector[1] };
  const seen = new Set<string>();
  const first = parts[0];
  if (first !== undefined && DECIMAL.test(first)) {
    steering.coefficient = parseNumber(first);
    seen.add("coefficient");
    parts.shift();
  }
  for (const part of parts) {
    const kind = readPart(part, steering, seen.has("coefficient"));
    if (seen.has(kind)) throw new UsageError(`two parts give ${kind}`);
    seen.add(kind);
  }
  return file ? { steering, file: vector[1] } : { steering };
}

/** Writes one part into `steering`; returns its kind. */
function readPart(
  part: string,
  steering: Steering,
  afterCoefficient: boolean,
): "layers" | "an operation" | "tokens" | "preserve-norm" {
  const layers = matchLayers(part);
  if (layers) {
    if (!afterCoefficient) {
      throw new UsageError(`layers come after a coefficient, as in ID:1:${part}`);
    }
    steering.layers = layers;
    return "layers";
  }
  const operation = OPERATIONS.get(part);
  if (operation) {
    steering.operation = operation;
    return "an operation";
  }
  const clamp = CLAMP.exec(part);
  if (clamp) {
    readClamp(clamp[1] ?? "", clamp[2] ?? "", steering);
    return "an operation";
  }
  const positions = SCOPES.get(part);
  const range = matchTokenRange(part);
  if (positions || range) {
    steering.positions = positions ?? { range };
    return "tokens";
  }
  if (part === "preserve-norm") {
    steering.preserveNorm = true;
    return "preserve-norm";
  }
  throw new UsageError(
    `"${part}" is neither layers (3-5,7), an operation (add, project-out, ` +
      "scale, clamp(MIN,MAX)), tokens (all, prompt, generated, [START..END]) nor preserve-norm",
  );
}

function readClamp(min: string, max: string, steering: Steering): void {
  if (min === "" && max === "") {
    throw new UsageError("clamp needs a bound, as in clamp(-1,1) or clamp(,0)");
  }
  steering.operation = "OPERATION_CLAMP";
  if (min !== "") steering.clampMin = parseNumber(min);
  if (max !== "") steering.clampMax = parseNumber(max);
}
