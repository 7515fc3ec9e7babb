/** What a cell asks of the server, and what the server's proof says. */
import type { AppliedSteering, Gate, Positions, Steering } from "../../client/client.js";
import { PROBE_NAME } from "../plan/detection.js";
import { StudyError } from "../plan/server.js";
import { pinned, vectorId } from "../plan/vectors.js";
import type { AnswerSteering, StudyCell, StudyPlan } from "../records.js";

/**
 * One steering for each block: the coefficient that gives a magnitude differs from block to block.
 * Empty for a cell in which nothing acts.
 */
export function steeringOf(
  plan: Pick<StudyPlan, "vectors" | "probe">,
  cell: StudyCell,
  prefix: string,
  positions?: Positions,
): Steering[] {
  if (cell.vector === null || cell.purpose === "baked") return [];
  const vector = plan.vectors.find(({ name }) => name === cell.vector);
  if (!vector) throw new StudyError(`the plan has no vector ${cell.vector}`);
  const id = pinned(vectorId(prefix, vector.name), vector.digest);
  const gate = cell.purpose === "gated" ? gateOf(plan, prefix) : undefined;
  return cell.layers.map((layer) => ({
    vectorId: id,
    layers: [layer],
    operation: cell.operation === "PROJECT_OUT" ? "OPERATION_PROJECT_OUT" : "OPERATION_ADD",
    coefficient:
      cell.operation === "PROJECT_OUT"
        ? cell.magnitude
        : cell.magnitude * coefficientOf(vector, layer),
    ...(positions && { positions }),
    ...(gate && { gate }),
  }));
}

export function coefficientOf(vector: StudyPlan["vectors"][number], layer: number): number {
  const unit = vector.unitCoefficients[layer];
  if (unit === undefined) throw new StudyError(`${vector.name} has no row for block ${layer}`);
  return unit;
}

/** Open where the probe fires: decided once, from the last token of the prompt. */
function gateOf(plan: Pick<StudyPlan, "vectors" | "probe">, prefix: string): Gate {
  const gate = plan.vectors.find(({ name }) => name === PROBE_NAME);
  if (!plan.probe || !gate) throw new StudyError("the plan has no probe");
  return {
    vectorId: pinned(vectorId(prefix, PROBE_NAME), gate.digest),
    layer: plan.probe.layer,
    metric: "METRIC_DOT",
    comparator: "COMPARATOR_ABOVE",
    threshold: plan.probe.threshold,
    scope: "SCOPE_PROMPT_LAST_TOKEN",
  };
}

export function proofOf(applied: readonly AppliedSteering[]): AnswerSteering[] {
  return applied.map((steering) => ({
    digest: steering.digest,
    layers: [...steering.layers],
    coefficient: steering.coefficient,
    promptTokens: steering.promptTokens,
    generatedTokens: steering.generatedTokens,
    meanDeltaRatio: steering.meanDeltaRatio,
    gateFired: steering.gateFired,
    gateEvaluations: steering.gateEvaluations,
  }));
}
