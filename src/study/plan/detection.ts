/**
 * The detection side: a probe fitted to contrast prompts and calibrated on benign ones, and what it
 * and random directions read at the last token of each prompt, before anything is generated.
 */
import {
  bytesToFloats,
  type CallOptions,
  type CaptureActivationsRequest,
  type LlamaSteerClient,
} from "../../client/client.js";
import { inputOf, type LoadedStudy } from "../file/load.js";
import { randomDirection } from "../random-direction.js";
import type { ProbeReading, StudyProbe, StudyPrompt } from "../records.js";
import { randomName } from "./cells.js";
import { StudyError } from "./server.js";
import { derive, vectorId } from "./vectors.js";

/** The name of the probe and, as a vector, of its direction: what a gate reads. */
export const PROBE_NAME = "probe";
const CAPTURE_BATCH = 64;

export interface Detected {
  probe: StudyProbe;
  readings: ProbeReading[];
  /** Digest of the probe's direction as a vector. */
  gateDigest: string;
}

interface ReadPrompt {
  promptSet: string;
  prompt: StudyPrompt;
}

/** Registers the direction as a vector of the run; the probe itself is removed again. */
export async function detect(
  client: LlamaSteerClient,
  study: LoadedStudy,
  prefix: string,
  call: CallOptions,
): Promise<Detected> {
  const { config, probe: texts } = study;
  const { detection } = config;
  if (!detection || !texts) throw new StudyError("the study has no detection");
  const prompts: ReadPrompt[] = detection.prompts.flatMap((promptSet) =>
    (study.promptSets[promptSet] ?? []).map((prompt) => ({ promptSet, prompt })),
  );
  const id = vectorId(prefix, PROBE_NAME);
  const read = { layer: detection.layer, adapterId: config.model.adapter };
  await client.probes.fit({ probeId: id, pairs: texts.pairs, ...read, randomDirections: 0 }, call);
  const { digest, calibration } = await client.probes.calibrate(
    { probeId: id, benign: texts.benign, falsePositiveRate: detection.false_positive_rate },
    call,
  );
  if (!calibration) throw new StudyError("the server did not calibrate the probe");
  const inputs = prompts.map(({ prompt }) => ({ input: inputOf(prompt.text, config.model.chat) }));
  const { scores, fired } = await client.probes.score({ probeId: id, inputs }, call);
  await client.probes.delete(id, call);
  const { digest: gateDigest } = await derive(
    client,
    { vectorId: id, pairs: texts.pairs, layers: [read.layer], adapterId: read.adapterId },
    call,
  );
  const readings = prompts.map(({ promptSet, prompt }, index) => ({
    direction: PROBE_NAME,
    layer: read.layer,
    promptSet,
    prompt: prompt.id,
    score: scores[index] ?? 0,
    fired: fired[index] ?? null,
  }));
  const rows = await lastRows(client, study, prompts, call);
  return {
    probe: {
      digest,
      layer: read.layer,
      threshold: calibration.threshold,
      falsePositiveRate: calibration.falsePositiveRate,
      measuredFalsePositiveRate: calibration.measuredFalsePositiveRate,
      benignInputs: calibration.benignInputs,
    },
    readings: [...readings, ...randomReadings(study, prompts, rows)],
    gateDigest,
  };
}

function randomReadings(
  { config }: LoadedStudy,
  prompts: readonly ReadPrompt[],
  rows: readonly Float32Array[],
): ProbeReading[] {
  const { detection, model } = config;
  if (!detection) return [];
  const { layer, random_directions, seed } = detection;
  return Array.from({ length: random_directions }, (_, index) => index + 1).flatMap((number) => {
    const direction = randomDirection(model.hidden_size, 1, seed + number, layer);
    return prompts.map(({ promptSet, prompt }, index) => ({
      ...{ direction: randomName(number), layer, promptSet, prompt: prompt.id },
      score: dot(direction, rows[index] as Float32Array),
      fired: null,
    }));
  });
}

function dot(a: Float32Array, b: Float32Array): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += (a[i] as number) * (b[i] as number);
  return sum;
}

/** The residual stream at the last token of each prompt: a row each, of the hidden size. */
async function lastRows(
  client: LlamaSteerClient,
  { config }: LoadedStudy,
  prompts: readonly ReadPrompt[],
  call: CallOptions,
): Promise<Float32Array[]> {
  const { chat, adapter, hidden_size } = config.model;
  const rows: Float32Array[] = [];
  for (let first = 0; first < prompts.length; first += CAPTURE_BATCH) {
    const batch = prompts.slice(first, first + CAPTURE_BATCH);
    const request: CaptureActivationsRequest = {
      inputs: batch.map(({ prompt }) => inputOf(prompt.text, chat)),
      capture: {
        sites: ["SITE_RESID_POST"],
        layers: [config.detection?.layer ?? 0],
        tokens: { last: {} },
      },
      adapterId: adapter,
    };
    for await (const { activations } of client.captureActivations(request, call)) {
      if (activations) rows[first + activations.inputIndex] = bytesToFloats(activations.data);
    }
  }
  for (const [index, { prompt }] of prompts.entries()) {
    if (rows[index]?.length !== hidden_size) {
      throw new StudyError(`the server sent no activations for the prompt ${prompt.id}`);
    }
  }
  return rows;
}
