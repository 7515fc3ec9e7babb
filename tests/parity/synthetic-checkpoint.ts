/**
 * Small random checkpoints made from a formula: the same numbers here and in synthetic.py, which
 * explains it.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { DTypeName } from "../../src/native/binding.js";

export interface SyntheticModel {
  name: string;
  hiddenSize: number;
  intermediateSize: number;
  layers: number;
  queryHeads: number;
  kvHeads: number;
  headSize: number;
  vocabSize: number;
  tied: boolean;
  attentionBias: boolean;
  mlpBias: boolean;
  dtype: DTypeName;
  /** Of config.json: that of transformers 4 or 5. */
  configLayout: number;
  shards: number;
  ropeTheta: number;
  rope: Record<string, unknown> | null;
}

/** Small enough for tests that are not about numbers. */
export const TINY_MODEL: SyntheticModel = {
  name: "tiny",
  hiddenSize: 64,
  intermediateSize: 96,
  layers: 2,
  queryHeads: 4,
  kvHeads: 2,
  headSize: 16,
  vocabSize: 199,
  tied: false,
  attentionBias: false,
  mlpBias: false,
  dtype: "bf16",
  configLayout: 4,
  shards: 1,
  ropeTheta: 10_000,
  rope: null,
};

export const CONTEXT_TOKENS = 512;

/** Bits of |k| that the type holds exactly, with room for the exponent. */
const BITS: Record<DTypeName, number> = { bf16: 7, f16: 9, f32: 23 };

function fnv1a(text: string): number {
  let value = 0x811c9dc5;
  for (const byte of Buffer.from(text)) value = Math.imul(value ^ byte, 0x01000193);
  return value >>> 0;
}

/** The finalizer of MurmurHash3. */
function mix(value: number): number {
  let mixed = value ^ (value >>> 16);
  mixed = Math.imul(mixed, 0x85ebca6b);
  mixed ^= mixed >>> 13;
  mixed = Math.imul(mixed, 0xc2b2ae35);
  return (mixed ^ (mixed >>> 16)) >>> 0;
}

function hashes(seed: number, name: string, count: number): Uint32Array {
  const key = seed ^ fnv1a(name);
  return Uint32Array.from({ length: count }, (_, i) => mix((Math.imul(i, 0x9e3779b9) + key) | 0));
}

/** Multiples of 2^-bits in [-1, 1). */
function uniform(seed: number, name: string, count: number, dtype: DTypeName): Float32Array {
  const bits = BITS[dtype];
  const one = 2 ** bits;
  return Float32Array.from(
    hashes(seed, name, count),
    (hash) => ((hash >>> (31 - bits)) - one) / one,
  );
}

/** A power of two near sqrt(3 / inputs): a projection keeps the size of its input. */
function amplitude(inputs: number): number {
  let exponent = 0;
  while (3 * 4 ** exponent < inputs) exponent += 1;
  return 2 ** -exponent;
}

function tensorValues(seed: number, name: string, shape: number[], dtype: DTypeName): Float32Array {
  const count = shape.reduce((product, size) => product * size, 1);
  const values = uniform(seed, name, count, dtype);
  if (name.endsWith("norm.weight")) {
    const one = 2 ** BITS[dtype];
    return values.map((value) => 1 + Math.trunc((value * one) / 2) / one);
  }
  if (name.endsWith("model.embed_tokens.weight")) return values;
  const scale = name.endsWith(".bias") ? 0.25 : amplitude(shape[1] ?? 1);
  return values.map((value) => value * scale);
}

export function steeringRow(
  seed: number,
  vector: number,
  layer: number,
  hiddenSize: number,
): Float32Array {
  return uniform(seed, `vector.${vector}.layer.${layer}`, hiddenSize, "f32");
}

export function promptTokens(seed: number, model: SyntheticModel, count: number): Uint32Array {
  return hashes(seed, `prompt.${model.name}`, count).map((hash) => hash % model.vocabSize);
}

/** Exact: the values are made so that nothing is rounded. */
function encode(values: Float32Array, dtype: DTypeName): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  if (dtype === "f32") return new Uint8Array(values.buffer, values.byteOffset, values.byteLength);
  const halfOf = (word: number): number => {
    if (dtype === "bf16") return word >>> 16;
    if ((word & 0x7fffffff) === 0) return word >>> 16;
    // Normal numbers of float16 only: the exponent's bias goes from 127 to 15.
    return ((word >>> 16) & 0x8000) | (((word & 0x7fffffff) >>> 13) - ((127 - 15) << 10));
  };
  return new Uint8Array(Uint16Array.from(bits, halfOf).buffer);
}

function tensorShapes(model: SyntheticModel): Map<string, number[]> {
  const { hiddenSize: d, intermediateSize: wide, vocabSize } = model;
  const qWidth = model.queryHeads * model.headSize;
  const kvWidth = model.kvHeads * model.headSize;
  const shapes = new Map([["model.embed_tokens.weight", [vocabSize, d]]]);
  for (let layer = 0; layer < model.layers; ++layer) {
    const prefix = `model.layers.${layer}.`;
    const linear = (name: string, outputs: number, inputs: number, bias: boolean) => {
      shapes.set(`${prefix}${name}.weight`, [outputs, inputs]);
      if (bias) shapes.set(`${prefix}${name}.bias`, [outputs]);
    };
    shapes.set(`${prefix}input_layernorm.weight`, [d]);
    linear("self_attn.q_proj", qWidth, d, model.attentionBias);
    linear("self_attn.k_proj", kvWidth, d, model.attentionBias);
    linear("self_attn.v_proj", kvWidth, d, model.attentionBias);
    linear("self_attn.o_proj", d, qWidth, model.attentionBias);
    shapes.set(`${prefix}post_attention_layernorm.weight`, [d]);
    linear("mlp.gate_proj", wide, d, model.mlpBias);
    linear("mlp.up_proj", wide, d, model.mlpBias);
    linear("mlp.down_proj", d, wide, model.mlpBias);
  }
  shapes.set("model.norm.weight", [d]);
  if (!model.tied) shapes.set("lm_head.weight", [vocabSize, d]);
  return shapes;
}

function configJson(model: SyntheticModel): object {
  const rope = model.rope ? { ...model.rope } : null;
  const ropeFields =
    model.configLayout >= 5
      ? { rope_parameters: { rope_type: "default", ...rope, rope_theta: model.ropeTheta } }
      : { rope_theta: model.ropeTheta, rope_scaling: rope };
  return {
    architectures: ["LlamaForCausalLM"],
    model_type: "llama",
    hidden_act: "silu",
    hidden_size: model.hiddenSize,
    intermediate_size: model.intermediateSize,
    num_hidden_layers: model.layers,
    num_attention_heads: model.queryHeads,
    num_key_value_heads: model.kvHeads,
    head_dim: model.headSize,
    vocab_size: model.vocabSize,
    max_position_embeddings: CONTEXT_TOKENS,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: model.tied,
    attention_bias: model.attentionBias,
    mlp_bias: model.mlpBias,
    ...ropeFields,
  };
}

function writeSafetensors(
  file: string,
  dtype: DTypeName,
  tensors: Map<string, [number[], Uint8Array]>,
) {
  const header: Record<string, object> = {};
  let offset = 0;
  for (const [name, [shape, bytes]] of tensors) {
    header[name] = {
      dtype: dtype.toUpperCase(),
      shape,
      data_offsets: [offset, offset + bytes.length],
    };
    offset += bytes.length;
  }
  const text = JSON.stringify(header);
  const padded = Buffer.from(text.padEnd(Math.ceil(text.length / 8) * 8));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(padded.length));
  writeFileSync(
    file,
    Buffer.concat([length, padded, ...[...tensors.values()].map(([, bytes]) => bytes)]),
  );
}

/** Writes config.json and safetensors files into `folder`, which is made. */
export function writeSyntheticCheckpoint(
  folder: string,
  model: SyntheticModel,
  seed: number,
): void {
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, "config.json"), JSON.stringify(configJson(model)));
  const shards = Array.from(
    { length: model.shards },
    () => new Map<string, [number[], Uint8Array]>(),
  );
  const weightMap: Record<string, string> = {};
  const fileName = (shard: number) =>
    `model-${String(shard + 1).padStart(5, "0")}-of-${String(model.shards).padStart(5, "0")}.safetensors`;
  let next = 0;
  for (const [name, shape] of tensorShapes(model)) {
    const values = tensorValues(seed, `${model.name}/${name}`, shape, model.dtype);
    const shard = next++ % model.shards;
    shards[shard]?.set(name, [shape, encode(values, model.dtype)]);
    weightMap[name] = fileName(shard);
  }
  for (const [shard, tensors] of shards.entries()) {
    const name = model.shards === 1 ? "model.safetensors" : fileName(shard);
    writeSafetensors(path.join(folder, name), model.dtype, tensors);
  }
  if (model.shards > 1) {
    const index = { metadata: {}, weight_map: weightMap };
    writeFileSync(path.join(folder, "model.safetensors.index.json"), JSON.stringify(index));
  }
}
