/** What a study asks of a server, and what it notes of it. */
import type { GetModelResponse } from "../../client/client.js";
import type { StudyConfig } from "../file/schema.js";
import type { StudyPlan } from "../records.js";
import { layersOf } from "./cells.js";

/** The study cannot be run as it stands, or not on this server; the message says why. */
export class StudyError extends Error {
  override readonly name = "StudyError";
}

/** Every reason why this server cannot run the study. */
export function serverProblems(config: StudyConfig, model: GetModelResponse): string[] {
  const { layers, hidden_size, fingerprint, adapter, chat } = config.model;
  const { architecture, limits } = model;
  const problems: string[] = [];
  const check = (holds: boolean, problem: string) => {
    if (!holds) problems.push(problem);
  };
  check(
    architecture?.layers === layers && architecture.hiddenSize === hidden_size,
    `it has ${architecture?.layers} blocks × ${architecture?.hiddenSize}, the study says ${layers} × ${hidden_size}`,
  );
  check(
    fingerprint === undefined || fingerprint === model.fingerprint,
    `its fingerprint is ${model.fingerprint}, the study says ${fingerprint}`,
  );
  check(model.adapters.includes(adapter), `it has no adapter ${adapter}`);
  check(!chat || model.chatTemplate, "its checkpoint has no chat template (model.chat: false)");
  check(!config.detection || model.captureEnabled, "detection needs --capture on");
  if (limits) {
    const { max_new_tokens } = config.sampling;
    check(
      max_new_tokens <= limits.maxNewTokens,
      `sampling.max_new_tokens is ${max_new_tokens}, its limit is ${limits.maxNewTokens}`,
    );
    for (const step of ["several_layers", "project_out"] as const) {
      const atOnce = layersOf(config, config.steps[step]?.layers ?? []).length;
      check(
        atOnce <= limits.maxSteerings,
        `steps.${step} needs ${atOnce} steerings a request, its limit is ${limits.maxSteerings}`,
      );
    }
  }
  return problems;
}

export function factsOf(config: StudyConfig, model: GetModelResponse): StudyPlan["server"] {
  const { adapter } = config.model;
  const digest = model.adapterDetails.find(({ adapterId }) => adapterId === adapter)?.digest ?? "";
  return {
    version: model.serverVersion,
    modelName: model.name,
    fingerprint: model.fingerprint,
    device: `${model.device?.kind} ${model.device?.name}`.trim(),
    isa: model.device?.isa ?? "",
    dtype: model.dtype,
    kvDtype: model.kvDtype,
    layers: model.architecture?.layers ?? 0,
    hiddenSize: model.architecture?.hiddenSize ?? 0,
    adapters: { [adapter]: digest },
  };
}

/**
 * Why rows of this server would not be those of the plan; null when they would. The name and the
 * version do not change a row.
 */
export function differenceOf(plan: StudyPlan["server"], now: StudyPlan["server"]): string | null {
  for (const key of ["fingerprint", "device", "isa", "dtype", "kvDtype"] as const) {
    if (plan[key] !== now[key]) return `${key} is ${now[key]}, the run was begun on ${plan[key]}`;
  }
  for (const [adapter, digest] of Object.entries(plan.adapters)) {
    if (now.adapters[adapter] !== digest) return `adapter ${adapter} is another one`;
  }
  return null;
}
