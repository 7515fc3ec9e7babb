/** The schema of a study file; docs/study-file.md is its reference. */
import { z } from "zod";
import { judgeConfigSchema } from "../judges/config.js";

const name = z
  .string()
  .regex(/^[a-z0-9][a-z0-9-]{0,23}$/, "1 to 24 lower-case letters, digits and hyphens");
const names = z.array(name).min(1);
const layer = z.int().min(0);
/** "all", or block numbers. */
const layers = z.union([z.literal("all"), z.array(layer).min(1)]);
const magnitudes = z.array(z.number().positive().max(100)).min(1);
const positiveInt = z.int().min(1);
const scalar = z.union([z.string(), z.number(), z.boolean(), z.null()]);

const promptSet = z
  .strictObject({
    /** JSONL: one prompt a line, with the fields of `fields`. */
    file: z.string().optional(),
    /** Only lines whose fields have these values. */
    where: z.record(z.string(), scalar).default({}),
    /** Only the first of them. */
    limit: positiveInt.optional(),
    fields: z
      .strictObject({
        id: z.string().default("id"),
        task: z.string().default("task"),
        text: z.string().default("prompt"),
        function: z.string().default("function"),
        kind: z.string().default("cwe"),
      })
      .prefault({}),
    /** Prompts written here, in place of a file. */
    texts: z.array(z.string().min(1)).min(1).optional(),
    judge: z.enum(["code", "sentiment"]).default("code"),
  })
  .refine(({ file, texts }) => (file === undefined) !== (texts === undefined), {
    message: "give either file or texts",
  });

const vector = z
  .strictObject({
    pairs: z.string(),
    /** Only the first of them. */
    limit: positiveInt.optional(),
    method: z
      .enum(["mean-difference", "pca-pairwise", "pca-centered", "logistic"])
      .default("mean-difference"),
    token: z.enum(["last", "all-mean", "at-text"]).default("last"),
    at_text: z.string().min(1).optional(),
    /** Texts are messages of a user, through the chat template. */
    as_chat: z.boolean().default(false),
    /** The model under which the pairs are read. */
    derive_on: z.enum(["base", "adapter"]).default("base"),
    /** The sign that is meant to help. */
    toward: z.union([z.literal(1), z.literal(-1)]).default(1),
  })
  .refine(({ token, at_text }) => (token === "at-text") === (at_text !== undefined), {
    path: ["at_text"],
    message: "belongs to token: at-text, and is required there",
  });

const target = { vectors: names, layers, magnitudes, prompts: names };

const steps = z.strictObject({
  sanity: z.array(z.strictObject(target)).default([]),
  sweep: z.strictObject(target).optional(),
  random_controls: z
    .strictObject({
      count: z.int().min(1).max(100).default(5),
      seed: z.int().min(0).default(1),
      /** Of the sweep's; default: all of them. */
      prompts: names.optional(),
    })
    .optional(),
  layer_control: z.strictObject(target).optional(),
  layer_scan: z
    .strictObject({
      vectors: names,
      layers,
      magnitude: z.number().positive().max(100),
      prompts: names,
    })
    .optional(),
  several_layers: z.strictObject(target).optional(),
  project_out: z.strictObject({ vectors: names, layers, prompts: names }).optional(),
  scratchpad_only: z
    .strictObject({
      ...target,
      open: z.string().min(1).default("<scratchpad>"),
      close: z.string().min(1).default("</scratchpad>"),
    })
    .optional(),
  gated: z.strictObject(target).optional(),
  baked: z.strictObject(target).optional(),
});

const detection = z.strictObject({
  /** One question each, with the answer of a model that defects and of one that does not. */
  pairs: z
    .array(
      z.strictObject({
        prompt: z.string().min(1),
        positive: z.string().min(1),
        negative: z.string().min(1),
      }),
    )
    .min(1),
  layer,
  /** Texts that must not fire: a field of each line of a JSONL file. */
  benign: z.strictObject({
    file: z.string(),
    field: z.string().default("negative"),
    limit: positiveInt.optional(),
  }),
  false_positive_rate: z.number().min(0).lt(1).default(0.01),
  prompts: names,
  random_directions: z.int().min(100).max(1000).default(100),
  seed: z.int().min(0).default(1),
});

export const StudyFileSchema = z.strictObject({
  name: z
    .string()
    .regex(/^[a-z0-9][a-z0-9._-]{0,62}$/, "1 to 63 lower-case letters, digits, '.', '_' and '-'"),
  title: z.string().min(1),
  model: z.strictObject({
    layers: positiveInt,
    hidden_size: positiveInt,
    /** "sha256:…"; checked where given. */
    fingerprint: z.string().optional(),
    /** Id of the adapter that is studied. */
    adapter: z.string().min(1),
    /** Prompts are messages of a user; false: they are continued as they stand. */
    chat: z.boolean().default(true),
  }),
  /** What `--serve` starts. */
  serve: z
    .strictObject({
      checkpoint: z.string(),
      adapters: z.record(z.string(), z.string()).default({}),
      options: z.array(z.string()).default([]),
    })
    .optional(),
  prompts: z.record(name, promptSet),
  vectors: z.record(name, vector),
  residual_norm_of: name,
  sampling: z
    .strictObject({
      temperature: z.number().min(0).max(100).default(0),
      top_p: z.number().gt(0).max(1).default(1),
      max_new_tokens: positiveInt.default(256),
      draws: positiveInt.default(1),
      seed: z.int().min(0).default(1),
    })
    .prefault({}),
  steps,
  detection: detection.optional(),
  judges: z.array(judgeConfigSchema).default([]),
  limits: z
    .strictObject({
      in_flight_per_server: z.int().min(1).max(256).default(96),
      server_wait_seconds: z.number().positive().default(600),
      judge_batch_answers: positiveInt.default(500),
    })
    .prefault({}),
});

export type StudyConfig = z.infer<typeof StudyFileSchema>;
export type StepTarget = z.infer<z.ZodObject<typeof target>>;
export type PromptSetConfig = StudyConfig["prompts"][string];
export type VectorConfig = StudyConfig["vectors"][string];
