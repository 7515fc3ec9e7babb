/** A random LlamaForCausalLM checkpoint in the folder layout of Hugging Face. */
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { DTYPES, RandomWeights, WEIGHT_STDDEV } from "./random-weights.mjs";
import { writeSafetensors } from "./safetensors-writer.mjs";
import { tensorsOf } from "./shapes.mjs";
import { makeTokenizer } from "./tokenizer.mjs";

function configOf(shape, dtype, tokenizer) {
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    ...shape,
    hidden_act: "silu",
    attention_bias: false,
    mlp_bias: false,
    bos_token_id: tokenizer.bos,
    eos_token_id: tokenizer.eos,
    torch_dtype: DTYPES[dtype].torch,
  };
}

/**
 * `shape`: fields of config.json, see shapes.mjs. The same arguments give the same bytes.
 * Returns { totalBytes, files } of the weights.
 */
export function writeCheckpoint({
  folder,
  shape,
  dtype = "bf16",
  shards = 1,
  seed = 1,
  stddev = WEIGHT_STDDEV,
  onProgress = () => {},
}) {
  mkdirSync(folder, { recursive: true });
  const tokenizer = makeTokenizer(shape.vocab_size, shape.max_position_embeddings);
  const documents = {
    "config.json": configOf(shape, dtype, tokenizer),
    "generation_config.json": { bos_token_id: tokenizer.bos, eos_token_id: tokenizer.eos },
    ...tokenizer.files,
  };
  for (const [name, document] of Object.entries(documents)) {
    writeFileSync(path.join(folder, name), `${JSON.stringify(document, null, 1)}\n`);
  }
  const weights = new RandomWeights(dtype, seed, stddev);
  const tensors = tensorsOf(shape);
  return writeSafetensors({ folder, tensors, dtype, shards, weights, onProgress });
}
