/** The vectors of a study: derived once, kept in the run's folder, and registered wherever they are needed. */
import { createHash } from "node:crypto";
import { mkdir, readFile } from "node:fs/promises";
import path from "node:path";
import {
  type CallOptions,
  type DeriveVectorRequest,
  floatsToBytes,
  type LlamaSteerClient,
  type Vector,
} from "../../client/client.js";
import type { LoadedStudy } from "../file/load.js";
import { randomDirection } from "../random-direction.js";
import type { StudyPlan, StudyVector } from "../records.js";
import { writeWhole } from "../run-folder.js";
import { layersOf, randomName } from "./cells.js";
import { StudyError } from "./server.js";

const METHODS = {
  "mean-difference": "METHOD_MEAN_DIFFERENCE",
  "pca-pairwise": "METHOD_PCA_PAIRWISE",
  "pca-centered": "METHOD_PCA_CENTERED",
  logistic: "METHOD_LOGISTIC",
} as const;

const TOKEN_RULES = {
  last: "TOKEN_RULE_LAST",
  "all-mean": "TOKEN_RULE_ALL_MEAN",
  "at-text": "TOKEN_RULE_AT_TEXT",
} as const;

/** Ids of one run on a server: another study, or another model, has others. */
export function idPrefix(studyDigest: string, server: StudyPlan["server"]): string {
  const { fingerprint, adapters, device, isa, dtype, kvDtype } = server;
  const what = JSON.stringify([studyDigest, fingerprint, adapters, device, isa, dtype, kvDtype]);
  return `study-${createHash("sha256").update(what).digest("hex").slice(0, 12)}`;
}

export const vectorId = (prefix: string, name: string) => `${prefix}-${name}`;

/** "sha256:…" as a pin of an id. */
export const pinned = (id: string, digest: string) => `${id}@${digest}`;

export const vectorFile = (folder: string, name: string) =>
  path.join(folder, `${name}.safetensors`);

/**
 * Derives every vector of the study and makes its random directions, all with the reference's
 * residual norms; writes each to `folder`. The same on every call, bit for bit.
 */
export async function makeVectors(
  client: LlamaSteerClient,
  study: LoadedStudy,
  prefix: string,
  folder: string,
  call: CallOptions & { onVector?: (name: string) => void },
): Promise<StudyVector[]> {
  const { config } = study;
  await mkdir(folder, { recursive: true });
  const derived = new Map<string, Vector>();
  for (const name of Object.keys(config.vectors)) {
    call.onVector?.(name);
    const request = deriveRequest(study, name, vectorId(prefix, name));
    derived.set(name, await derive(client, request, call));
  }
  const reference = derived.get(config.residual_norm_of);
  const norms: Record<number, number> = Object.fromEntries(
    (reference?.stats ?? []).map(({ layer, meanResidualNorm }) => [layer, meanResidualNorm]),
  );
  const vectors = [...derived].map(([name, vector]) => describe(name, vector, norms));
  const { sweep, random_controls: control } = config.steps;
  if (sweep && control) {
    const layers = layersOf(config, sweep.layers);
    for (let number = 1; number <= control.count; number++) {
      const name = randomName(number);
      call.onVector?.(name);
      const seed = control.seed + number;
      const rows = layers.map((layer) => ({
        layer,
        data: floatsToBytes(
          randomDirection(config.model.hidden_size, norms[layer] ?? 0, seed, layer),
        ),
      }));
      const vector = await client.vectors.create({ vectorId: vectorId(prefix, name), rows }, call);
      vectors.push(describe(name, vector, norms));
    }
  }
  for (const { name, digest } of vectors) {
    await exportVector(client, pinned(vectorId(prefix, name), digest), name, folder, call);
  }
  return vectors;
}

export async function exportVector(
  client: LlamaSteerClient,
  id: string,
  name: string,
  folder: string,
  call: CallOptions,
): Promise<void> {
  const { content } = await client.vectors.export({ vectorId: id }, call);
  await writeWhole(vectorFile(folder, name), content);
}

/** Registers what is in the run's folder; what is there already is a success. Throws a StudyError. */
export async function registerVectors(
  client: LlamaSteerClient,
  vectors: readonly Pick<StudyVector, "name" | "digest">[],
  prefix: string,
  folder: string,
  call: CallOptions,
): Promise<void> {
  for (const { name, digest } of vectors) {
    const file = vectorFile(folder, name);
    const id = vectorId(prefix, name);
    const vector = await client.vectors.import({ vectorId: id }, await readFile(file), call);
    if (vector.digest !== digest) {
      throw new StudyError(`${file}: its digest is ${vector.digest}, the plan says ${digest}`);
    }
  }
}

/** Leaves the registry as it was found; a server that is gone has nothing to clear. */
export async function forgetVectors(
  client: LlamaSteerClient,
  names: readonly string[],
  prefix: string,
): Promise<void> {
  for (const name of names) {
    await client.vectors
      .delete(vectorId(prefix, name), { timeoutMs: 10_000 })
      .catch(() => undefined);
  }
}

function deriveRequest(study: LoadedStudy, name: string, id: string): DeriveVectorRequest {
  const { config, pairs } = study;
  const vector = config.vectors[name];
  if (!vector) throw new StudyError(`no vector is named ${name}`);
  const { method, token, at_text, derive_on } = vector;
  return {
    vectorId: id,
    pairs: pairs[name] ?? [],
    method: METHODS[method],
    tokenRule: TOKEN_RULES[token],
    ...(at_text !== undefined && { tokenText: at_text }),
    ...(derive_on === "adapter" && { adapterId: config.model.adapter }),
  };
}

export async function derive(
  client: LlamaSteerClient,
  request: DeriveVectorRequest,
  call: CallOptions,
): Promise<Vector> {
  for await (const { vector } of client.vectors.derive(request, call)) {
    if (vector) return vector;
  }
  throw new StudyError(`the server derived no vector ${request.vectorId}`);
}

function describe(
  name: string,
  { digest, stats, derivation }: Vector,
  norms: Readonly<Record<number, number>>,
): StudyVector {
  const unitCoefficients: Record<number, number> = {};
  const residualNorms: Record<number, number> = {};
  for (const { layer, l2Norm } of stats) {
    const norm = norms[layer];
    if (norm === undefined || norm <= 0) {
      throw new StudyError(`residual_norm_of: no residual norm is known for block ${layer}`);
    }
    if (l2Norm <= 0) throw new StudyError(`vectors.${name}: its row for block ${layer} is zero`);
    residualNorms[layer] = norm;
    unitCoefficients[layer] = norm / l2Norm;
  }
  const diagnostics = derivation?.diagnostics.map(
    ({ layer, separatedShare, splitHalfCosine }) =>
      [layer, { separated: separatedShare, splitHalfCosine: splitHalfCosine ?? 0 }] as const,
  );
  return {
    name,
    digest,
    method: derivation?.method ?? "random direction",
    unitCoefficients,
    residualNorms,
    pairsDigest: derivation?.pairsDigest ?? "",
    ...(diagnostics && { separation: Object.fromEntries(diagnostics) }),
  };
}
