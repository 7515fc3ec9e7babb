/** Makes a run's plan on a server, or takes the one that a run was begun with. */
import { mkdir } from "node:fs/promises";
import type { CallOptions, LlamaSteerClient } from "../../client/client.js";
import type { LoadedStudy } from "../file/load.js";
import type { Judge } from "../judges/judge.js";
import type { StudyPlan, StudyVector } from "../records.js";
import { readJson, runFiles, writeWhole } from "../run-folder.js";
import { cellsOf } from "./cells.js";
import { detect, PROBE_NAME } from "./detection.js";
import { differenceOf, factsOf, StudyError, serverProblems } from "./server.js";
import { exportVector, idPrefix, makeVectors, pinned, vectorId } from "./vectors.js";

export interface PreparedRun {
  plan: StudyPlan;
  /** Begins the ids of the run's vectors on servers. */
  prefix: string;
  /** The plan was there already. */
  resumed: boolean;
}

/**
 * `say` tells what is going on. Everything that is fixed before the first answer is in the folder
 * afterwards; plan.json is written last. Throws a StudyError or a ClientError.
 */
export async function prepareRun(
  client: LlamaSteerClient,
  study: LoadedStudy,
  judges: readonly Judge[],
  folder: string,
  call: CallOptions & { signal: AbortSignal },
  say: (text: string) => void,
): Promise<PreparedRun> {
  const server = await checkedServer(client, study, call);
  const prefix = idPrefix(study.digest, server);
  const files = runFiles(folder);
  const versions: NonNullable<StudyPlan["judges"]> = [];
  for (const judge of judges) {
    const { name, kind } = judge;
    versions.push({ name, kind, version: await judge.version(call.signal) });
  }
  const begun = await readJson<StudyPlan>(files.plan);
  if (begun) {
    const problem = resumeProblem(begun, study, server, versions);
    if (problem !== null) {
      throw new StudyError(`${folder} cannot be gone on with: ${problem}; choose another --out`);
    }
    return { plan: begun, prefix, resumed: true };
  }
  await mkdir(folder, { recursive: true });
  await writeWhole(files.study, study.text);
  const onVector = (name: string) => say(`making the vector ${name}`);
  const vectors = await makeVectors(client, study, prefix, files.vectors, { ...call, onVector });
  const plan: StudyPlan = {
    name: study.config.name,
    title: study.config.title,
    digest: study.digest,
    server,
    sampling: samplingOf(study),
    promptSets: usedPromptSets(study),
    vectors,
    cells: cellsOf(study.config),
    judges: versions,
  };
  if (study.config.detection) {
    say("fitting the probe");
    const { probe, readings, gateDigest } = await detect(client, study, prefix, call);
    const id = pinned(vectorId(prefix, PROBE_NAME), gateDigest);
    await exportVector(client, id, PROBE_NAME, files.vectors, call);
    plan.probe = probe;
    plan.vectors.push(gateVector(gateDigest));
    await writeWhole(files.probe, readings.map((line) => `${JSON.stringify(line)}\n`).join(""));
  }
  await writeWhole(files.plan, `${JSON.stringify(plan, null, 1)}\n`);
  return { plan, prefix, resumed: false };
}

/** It never acts, so it has no coefficients. */
function gateVector(digest: string): StudyVector {
  return {
    name: PROBE_NAME,
    digest,
    method: "METHOD_MEAN_DIFFERENCE",
    unitCoefficients: {},
    residualNorms: {},
    pairsDigest: "",
  };
}

/** Throws a StudyError with every reason why this server cannot run the study. */
export async function checkedServer(
  client: LlamaSteerClient,
  { config }: Pick<LoadedStudy, "config">,
  call: CallOptions,
): Promise<StudyPlan["server"]> {
  const model = await client.model.get(call);
  const problems = serverProblems(config, model);
  if (problems.length > 0) {
    throw new StudyError(`${client.address} cannot run the study: ${problems.join("; ")}`);
  }
  return factsOf(config, model);
}

export function samplingOf({ config }: LoadedStudy): StudyPlan["sampling"] {
  const { temperature, top_p, max_new_tokens, draws, seed } = config.sampling;
  return {
    temperature,
    topP: top_p,
    maxNewTokens: max_new_tokens,
    draws,
    seed: String(seed),
  };
}

function usedPromptSets(study: LoadedStudy): StudyPlan["promptSets"] {
  const used = new Set([
    ...cellsOf(study.config).map(({ promptSet }) => promptSet),
    ...(study.config.detection?.prompts ?? []),
  ]);
  return Object.fromEntries(Object.entries(study.promptSets).filter(([name]) => used.has(name)));
}

function resumeProblem(
  begun: StudyPlan,
  study: LoadedStudy,
  server: StudyPlan["server"],
  judges: NonNullable<StudyPlan["judges"]>,
): string | null {
  if (begun.digest !== study.digest) return "it holds another study, or this one before a change";
  const difference = differenceOf(begun.server, server);
  if (difference !== null) return difference;
  const versions = (list: StudyPlan["judges"]) =>
    (list ?? []).map(({ name, version }) => `${name} (${version})`).join(", ");
  return versions(begun.judges) === versions(judges)
    ? null
    : `it was begun with the judges ${versions(begun.judges)}, now they are ${versions(judges)}`;
}
