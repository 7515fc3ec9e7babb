/**
 * One write, as stores keep it beside the rows. What a version before this one did not write has a
 * default.
 */
import { z } from "zod";
import { isObject } from "../model/json.js";
import { isDigest } from "./digest.js";
import {
  type Derivation,
  isVectorId,
  type ProbeFacts,
  statsOf,
  type VectorContent,
  type VectorRecord,
} from "./vector.js";

const id = z.string().refine(isVectorId);
const digest = z.string().refine(isDigest);
/** JSON has no infinity and no NaN. */
const number = z.number();
const count = z.int().min(0);
const decimal = z.string().regex(/^(0|[1-9][0-9]{0,19})$/);
/** Any key may be one, `__proto__` too, which a zod record drops. */
const labels = z.custom<Record<string, string>>(
  (value) => isObject(value) && Object.values(value).every((text) => typeof text === "string"),
  "not an object of texts",
);
const kind = z.enum(["vector", "probe"]).default("vector");

const layerDiagnostics = z.strictObject({
  layer: count,
  splitHalfCosine: number.nullable(),
  separatedShare: number,
  separatedPairs: count,
  normRatio: number,
  randomDirections: count,
  randomSeed: decimal,
  randomSeparatedMean: number,
  randomSeparatedMax: number,
});

const derivation = z.strictObject({
  method: z.string(),
  pairsDigest: z.string(),
  tokenRule: z.string(),
  modelFingerprint: z.string(),
  tokenText: z.string().default(""),
  adapterId: z.string().default(""),
  adapterDigest: z.string().default(""),
  normalized: z.boolean().default(false),
  pairs: count.default(0),
  diagnostics: z.array(layerDiagnostics).default([]),
}) satisfies z.ZodType<Derivation>;

const probe = z.strictObject({
  fit: z.strictObject({
    auroc: number,
    positives: count,
    negatives: count,
    randomAuroc: z.array(number),
    randomSeed: decimal,
  }),
  calibration: z
    .strictObject({
      threshold: number,
      falsePositiveRate: number,
      measuredFalsePositiveRate: number,
      benignInputs: count,
      benignDigest: digest,
      benignMean: number,
      benignStandardDeviation: number,
    })
    .nullable(),
}) satisfies z.ZodType<ProbeFacts>;

const putSchema = z.strictObject({
  op: z.literal("put"),
  /** Every write takes the next one. */
  revision: count,
  kind,
  id,
  digest,
  labels,
  derivation: derivation.nullable(),
  /** One a layer; empty: unknown. */
  meanResidualNorms: z.array(number).default([]),
  /** Null for a vector. */
  probe: probe.nullable().default(null),
  /** ISO 8601 */
  createTime: z.string().refine((text) => !Number.isNaN(Date.parse(text))),
});

const removeSchema = z.strictObject({ op: z.literal("remove"), revision: count, kind, id });

export const entrySchema = z.discriminatedUnion("op", [putSchema, removeSchema]);

export type PutEntry = z.output<typeof putSchema>;
export type Entry = z.output<typeof entrySchema>;

export function putEntry(record: VectorRecord, meanResidualNorms: readonly number[]): PutEntry {
  return {
    op: "put",
    revision: Number(record.revision),
    kind: record.kind,
    id: record.id,
    digest: record.digest,
    labels: record.labels,
    derivation: record.derivation,
    meanResidualNorms: [...meanResidualNorms],
    probe: record.probe,
    createTime: record.createTime.toISOString(),
  };
}

/** `content`: the rows that `entry.digest` names. */
export function recordOf(entry: PutEntry, content: VectorContent): VectorRecord {
  return {
    kind: entry.kind,
    id: entry.id,
    digest: entry.digest,
    hiddenSize: content.hiddenSize,
    layers: [...content.layers],
    stats: statsOf(content, entry.meanResidualNorms),
    labels: entry.labels,
    derivation: entry.derivation,
    probe: entry.probe,
    createTime: new Date(entry.createTime),
    revision: BigInt(entry.revision),
    content,
  };
}
