/** DeriveVector against the vectors of steering-vectors and repeng on the same pairs. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { DeriveVectorRequest, LlamaSteerClient } from "../../../src/client/client.js";
import { collect } from "../../support/server.js";
import { rowOf } from "../goldens.js";
import { cosine, readWitnessCases, startOn, WitnessGolden } from "./witness.js";

const MIN_COSINE = 0.9999;
/** Lengths, where a method does not normalise. */
const MAX_RELATIVE_LENGTH_ERROR = 1e-4;

type Method = Extract<DeriveVectorRequest["method"], string>;

/** Recorded name -> method. */
const METHODS: Record<string, Method> = {
  "steering_vectors.mean": "METHOD_MEAN_DIFFERENCE",
  "steering_vectors.pca": "METHOD_PCA_PAIRWISE",
  "steering_vectors.logistic": "METHOD_LOGISTIC",
  "repeng.pca_center": "METHOD_PCA_PAIRWISE",
  "repeng.pca_diff": "METHOD_PCA_CENTERED",
};

const cases = readWitnessCases();

/** Rows by block, as the service exports them. */
async function derive(client: LlamaSteerClient, vectorId: string, method: Method) {
  const pairs = cases.pairs.map(([positive, negative]) => ({
    positive: { prompt: positive },
    negative: { prompt: negative },
  }));
  const messages = await collect(client.vectors.derive({ vectorId, pairs, method }));
  expect(messages.at(-1)?.vector?.vectorId).toBe(vectorId);
  const file = await client.vectors.export({ vectorId, format: "VECTOR_FORMAT_JSON" });
  const rows: Record<string, number[]> = JSON.parse(file.content.toString("utf8"));
  return new Map(
    Object.entries(rows).map(([name, values]) => [
      Number(name.replace("layer.", "")),
      Float32Array.from(values),
    ]),
  );
}

/**
 * A component has no sign of its own. Ours is the one under which most pairs project positive, ties
 * by the mean; steering-vectors goes by the mean alone, and repeng leaves ties as they fall.
 */
function signBesideTheirs(projections: Float32Array): number {
  const sum = (values: number[]) => values.reduce((total, value) => total + value, 0);
  const majority = sum([...projections].map(Math.sign));
  return Math.sign(majority === 0 ? sum([...projections]) : majority);
}

const length = (values: Float32Array) => Math.hypot(...values);

describe.each(cases.models)("on $name", (model) => {
  const golden = new WitnessGolden(model.name);
  let client: LlamaSteerClient;
  let stop: () => Promise<void> = async () => {};
  beforeAll(async () => {
    const started = await startOn(model, golden);
    client = started.server.client;
    stop = started.stop;
  });
  afterAll(() => stop());

  it.each(Object.entries(METHODS))("derives the direction of %s", async (name, method) => {
    const recorded = golden.get(`derived.${name}`);
    const rows = await derive(client, name.replace("_", "-"), method);
    expect(rows.size).toBe(recorded.rows);
    // repeng leaves block 0 out, and reads the last one after the final norm.
    const blocks = name.startsWith("repeng")
      ? [...rows.keys()].filter((block) => block > 0 && block < recorded.rows - 1)
      : [...rows.keys()];
    expect(blocks.length).toBeGreaterThan(2);
    for (const block of blocks) {
      const ours = rows.get(block) ?? new Float32Array();
      const theirs = rowOf(recorded, block);
      const sign = method.startsWith("METHOD_PCA")
        ? signBesideTheirs(rowOf(golden.get(`projections.${name}`), block))
        : 1;
      expect(sign * cosine(ours, theirs), `block ${block}`).toBeGreaterThanOrEqual(MIN_COSINE);
      const ratio = length(ours) / length(theirs);
      expect(Math.abs(ratio - 1), `block ${block}`).toBeLessThanOrEqual(MAX_RELATIVE_LENGTH_ERROR);
    }
  });
});
