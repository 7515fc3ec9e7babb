#!/usr/bin/env node
/**
 * Writes a random checkpoint of a named shape, or of explicit numbers; needs no build.
 *   node bench/make-checkpoint.mjs --shape llama-3.1-8b --shards 4 --out out/ckpt-8b
 */
import { parseArgs } from "node:util";
import { DTYPES, WEIGHT_STDDEV } from "./checkpoint/random-weights.mjs";
import { SHAPES } from "./checkpoint/shapes.mjs";
import { writeCheckpoint } from "./checkpoint/write-checkpoint.mjs";
import { ProgressBar } from "./lib/progress.mjs";

const USAGE = `usage: node bench/make-checkpoint.mjs --shape NAME --out FOLDER [options]
  --shape NAME      ${Object.keys(SHAPES).join(", ")}
  --dtype TYPE      ${Object.keys(DTYPES).join(", ")} (bf16)
  --shards N        files of weights (1)
  --seed N          the same seed gives the same bytes (1)
  --stddev X        of the weights (${WEIGHT_STDDEV}); 1/sqrt(hidden) keeps narrow shapes lively
and to change single numbers of the shape:
  --hidden N --intermediate N --layers N --heads N --kv-heads N --head-size N --vocab N
  --context N --tied true|false`;

/** Option -> field of config.json. */
const OVERRIDES = {
  hidden: "hidden_size",
  intermediate: "intermediate_size",
  layers: "num_hidden_layers",
  heads: "num_attention_heads",
  "kv-heads": "num_key_value_heads",
  "head-size": "head_dim",
  vocab: "vocab_size",
  context: "max_position_embeddings",
};

function fail(text) {
  console.error(`${text}\n${USAGE}`);
  process.exit(2);
}

function integer(name, text, min) {
  const value = Number(text);
  if (!Number.isInteger(value) || value < min) fail(`--${name} ${text}: not an integer >= ${min}`);
  return value;
}

function readOptions() {
  const options = { shape: { type: "string" }, out: { type: "string" }, tied: { type: "string" } };
  const defaults = { dtype: "bf16", shards: "1", seed: "1", stddev: String(WEIGHT_STDDEV) };
  for (const [name, value] of Object.entries(defaults)) {
    options[name] = { type: "string", default: value };
  }
  for (const name of Object.keys(OVERRIDES)) options[name] = { type: "string" };
  try {
    return parseArgs({ options }).values;
  } catch (error) {
    return fail(error.message);
  }
}

const values = readOptions();
const named = SHAPES[values.shape] ?? fail(`--shape ${values.shape ?? ""}: no such shape`);
if (!values.out) fail("--out is missing");
if (!(values.dtype in DTYPES)) fail(`--dtype ${values.dtype}: no such type`);

const shape = { ...named };
for (const [name, field] of Object.entries(OVERRIDES)) {
  if (values[name] !== undefined) shape[field] = integer(name, values[name], 1);
}
if (values.tied !== undefined) shape.tie_word_embeddings = values.tied === "true";

const stddev = Number(values.stddev);
if (!(stddev > 0 && stddev <= 1)) fail(`--stddev ${values.stddev}: not in (0, 1]`);

const bar = new ProgressBar(`${values.shape} ${values.dtype}`);
const started = process.hrtime.bigint();
const { totalBytes, files } = writeCheckpoint({
  folder: values.out,
  shape,
  dtype: values.dtype,
  shards: integer("shards", values.shards, 1),
  seed: integer("seed", values.seed, 0),
  stddev,
  onProgress: (done, total) => bar.update(done, total),
});
bar.stop();
const seconds = Number(process.hrtime.bigint() - started) / 1e9;
console.log(
  `${values.out}: ${(totalBytes / 1e9).toFixed(3)} GB in ${files} file(s), ` +
    `${seconds.toFixed(1)} s, ${Math.round(totalBytes / 1e6 / seconds)} MB/s`,
);
