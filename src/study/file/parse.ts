/** YAML to a study's configuration; every error names the file, the line and the path. */
import { LineCounter, parseDocument } from "yaml";
import { type StudyConfig, StudyFileSchema } from "./schema.js";

/** A study file, or a file that it names, is wrong; the message says where. */
export class StudyFileError extends Error {
  override readonly name = "StudyFileError";
}

type Path = readonly PropertyKey[];

/** Throws a StudyFileError with one line for each problem. */
export function parseStudy(text: string, file: string): StudyConfig {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines });
  const [syntax] = document.errors;
  if (syntax) {
    const line = syntax.linePos?.[0].line ?? 1;
    throw new StudyFileError(`${file}:${line}: ${syntax.message.split("\n")[0]}`);
  }
  const placeOf = (path: Path): string => {
    for (let length = path.length; length > 0; length--) {
      const node = document.getIn(path.slice(0, length), true) as { range?: number[] } | undefined;
      const offset = node?.range?.[0];
      if (offset !== undefined) return `${file}:${lines.linePos(offset).line}`;
    }
    return file;
  };
  const complain = (issues: readonly { path: Path; message: string }[]): never => {
    const text = issues.map(({ path, message }) => {
      const where = formatPath(path);
      return `${placeOf(path)}: ${where === "" ? "" : `${where}: `}${message}`;
    });
    throw new StudyFileError(text.join("\n"));
  };
  const result = StudyFileSchema.safeParse(document.toJS());
  if (!result.success) return complain(result.error.issues);
  const problems = [...inconsistencies(result.data)];
  return problems.length > 0 ? complain(problems) : result.data;
}

function formatPath(path: Path): string {
  return path
    .map((part) => (typeof part === "number" ? `[${part}]` : `.${String(part)}`))
    .join("")
    .replace(/^\./, "");
}

interface Problem {
  path: Path;
  message: string;
}

/** What a schema cannot say: names that do not exist, layers that the model has not. */
function* inconsistencies(study: StudyConfig): Generator<Problem> {
  const { steps, detection } = study;
  if (!(study.residual_norm_of in study.vectors)) {
    yield { path: ["residual_norm_of"], message: `no vector is named ${study.residual_norm_of}` };
  }
  for (const [vector] of Object.entries(study.vectors)) {
    if (/^(random-\d+|probe)$/.test(vector)) {
      yield { path: ["vectors", vector], message: "the study itself makes a vector of this name" };
    }
  }
  for (const [index, sanity] of steps.sanity.entries()) {
    yield* targetProblems(study, ["steps", "sanity", index], sanity);
  }
  for (const [step, value] of Object.entries(steps)) {
    if (Array.isArray(value) || value === undefined || "count" in value) continue;
    yield* targetProblems(study, ["steps", step], value);
  }
  if (steps.random_controls && !steps.sweep) {
    yield { path: ["steps", "random_controls"], message: "controls the sweep, which is not there" };
  }
  for (const [index, set] of (steps.random_controls?.prompts ?? []).entries()) {
    if (steps.sweep && !steps.sweep.prompts.includes(set)) {
      const path = ["steps", "random_controls", "prompts", index];
      yield { path, message: `the sweep has no prompts ${set}` };
    }
  }
  if (steps.gated && !detection) {
    yield { path: ["steps", "gated"], message: "the gate is the probe of detection" };
  }
  if (detection) {
    const path = ["detection"];
    yield* targetProblems(study, path, { layers: [detection.layer], prompts: detection.prompts });
  }
  const judges = study.judges.map((judge) => judge.name);
  for (const [index, judge] of judges.entries()) {
    if (judges.indexOf(judge) !== index) {
      yield { path: ["judges", index, "name"], message: `${judge} is there already` };
    }
  }
}

interface LooseTarget {
  vectors?: readonly string[];
  layers?: "all" | readonly number[];
  prompts?: readonly string[];
}

function* targetProblems(study: StudyConfig, path: Path, target: LooseTarget): Generator<Problem> {
  for (const [index, vector] of (target.vectors ?? []).entries()) {
    if (!(vector in study.vectors)) {
      yield { path: [...path, "vectors", index], message: `no vector is named ${vector}` };
    }
  }
  for (const [index, prompts] of (target.prompts ?? []).entries()) {
    if (!(prompts in study.prompts)) {
      yield { path: [...path, "prompts", index], message: `no prompt set is named ${prompts}` };
    }
  }
  if (!Array.isArray(target.layers)) return;
  for (const [index, layer] of target.layers.entries()) {
    if (layer >= study.model.layers) {
      const message = `the model has blocks 0 to ${study.model.layers - 1}`;
      yield { path: [...path, "layers", index], message };
    }
  }
}
