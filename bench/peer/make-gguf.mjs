#!/usr/bin/env node
/**
 * Converts a bf16 checkpoint made by bench/make-checkpoint.mjs to GGUF, so that the peer runs the
 * very same weights.
 *   node bench/peer/make-gguf.mjs out/ckpt-1b bf16 out/ckpt-1b.bf16.gguf
 */
import { closeSync, existsSync, openSync, readFileSync, readSync } from "node:fs";
import path from "node:path";
import { makeTokenizer } from "../checkpoint/tokenizer.mjs";
import { ProgressBar } from "../lib/progress.mjs";
import { writeGguf } from "./gguf-writer.mjs";
import { convert, reorderRows, ropeRowOrder } from "./rows.mjs";

/** llama.cpp's `general.file_type`. */
const FILE_TYPES = { f32: 0, f16: 1, q8_0: 7, bf16: 32 };
const TOKEN_NORMAL = 1;
const TOKEN_CONTROL = 3;
/** Rows that are read and converted at once: bounds memory for the embedding of a large model. */
const CHUNK_ROWS = 4096;

const BLOCK_NAMES = {
  "input_layernorm.weight": "attn_norm.weight",
  "self_attn.q_proj.weight": "attn_q.weight",
  "self_attn.k_proj.weight": "attn_k.weight",
  "self_attn.v_proj.weight": "attn_v.weight",
  "self_attn.o_proj.weight": "attn_output.weight",
  "post_attention_layernorm.weight": "ffn_norm.weight",
  "mlp.gate_proj.weight": "ffn_gate.weight",
  "mlp.up_proj.weight": "ffn_up.weight",
  "mlp.down_proj.weight": "ffn_down.weight",
};
const OUTER_NAMES = {
  "model.embed_tokens.weight": "token_embd.weight",
  "model.norm.weight": "output_norm.weight",
  "lm_head.weight": "output.weight",
};

function ggufName(name) {
  const match = /^model\.layers\.(\d+)\.(.+)$/.exec(name);
  return match ? `blk.${match[1]}.${BLOCK_NAMES[match[2]]}` : OUTER_NAMES[name];
}

function readHeader(file) {
  const descriptor = openSync(file, "r");
  const length = Buffer.alloc(8);
  readSync(descriptor, length, 0, 8, 0);
  const text = Buffer.alloc(Number(length.readBigUInt64LE()));
  readSync(descriptor, text, 0, text.length, 8);
  closeSync(descriptor);
  const { __metadata__: _, ...tensors } = JSON.parse(text.toString());
  return { dataStart: 8 + text.length, tensors };
}

/** name -> { file, offset, shape } over all shards. */
function readTensors(folder) {
  const single = path.join(folder, "model.safetensors");
  const index = path.join(folder, "model.safetensors.index.json");
  const names = existsSync(single)
    ? ["model.safetensors"]
    : [...new Set(Object.values(JSON.parse(readFileSync(index, "utf8")).weight_map))];
  return names.flatMap((shard) => {
    const file = path.join(folder, shard);
    const { dataStart, tensors } = readHeader(file);
    return Object.entries(tensors).map(
      ([
        name,
        {
          dtype,
          shape,
          data_offsets: [begin],
        },
      ]) => {
        if (dtype !== "BF16") throw new Error(`${name} is ${dtype}; a bf16 checkpoint is wanted`);
        return { name, shape, file, offset: dataStart + begin };
      },
    );
  });
}

/** Chunks of whole heads for projections that are reordered, of any rows otherwise. */
function* matrixChunks({ file, offset, shape }, headSize, type) {
  const [rows, cols] = shape;
  const step = headSize === null ? CHUNK_ROWS : Math.ceil(CHUNK_ROWS / headSize) * headSize;
  const descriptor = openSync(file, "r");
  try {
    for (let row = 0; row < rows; row += step) {
      const count = Math.min(step, rows - row);
      const bytes = Buffer.from(new ArrayBuffer(count * cols * 2));
      readSync(descriptor, bytes, 0, bytes.length, offset + row * cols * 2);
      const order = headSize === null ? null : ropeRowOrder(count, headSize);
      yield convert(reorderRows(bytes, cols, order), type);
    }
  } finally {
    closeSync(descriptor);
  }
}

function ggufTensor(tensor, config, type) {
  const turns = /\.(q|k)_proj\.weight$/.test(tensor.name);
  const isMatrix = tensor.shape.length === 2;
  return {
    name: ggufName(tensor.name),
    shape: tensor.shape,
    type: isMatrix ? type : "f32",
    chunks: () =>
      isMatrix
        ? matrixChunks(tensor, turns ? config.head_dim : null, type)
        : matrixChunks({ ...tensor, shape: [1, tensor.shape[0]] }, null, "f32"),
  };
}

/** The "llama3" rule as divisors of the frequencies, [head_dim / 2]. */
function ropeFactors(config) {
  const scaling = config.rope_scaling;
  return Float32Array.from({ length: config.head_dim / 2 }, (_, i) => {
    const frequency = config.rope_theta ** (-(2 * i) / config.head_dim);
    const rotations = (scaling.original_max_position_embeddings * frequency) / (2 * Math.PI);
    if (rotations > scaling.high_freq_factor) return 1;
    if (rotations < scaling.low_freq_factor) return scaling.factor;
    const smooth =
      (rotations - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor);
    return 1 / ((1 - smooth) / scaling.factor + smooth);
  });
}

function keysOf(config, type) {
  const tokenizer = makeTokenizer(config.vocab_size, config.max_position_embeddings);
  const u32 = (value) => ({ type: "u32", value });
  const f32 = (value) => ({ type: "f32", value });
  const string = (value) => ({ type: "string", value });
  return {
    "general.architecture": string("llama"),
    "general.name": string("random"),
    "general.file_type": u32(FILE_TYPES[type]),
    "llama.vocab_size": u32(config.vocab_size),
    "llama.context_length": u32(config.max_position_embeddings),
    "llama.embedding_length": u32(config.hidden_size),
    "llama.block_count": u32(config.num_hidden_layers),
    "llama.feed_forward_length": u32(config.intermediate_size),
    "llama.attention.head_count": u32(config.num_attention_heads),
    "llama.attention.head_count_kv": u32(config.num_key_value_heads),
    "llama.attention.key_length": u32(config.head_dim),
    "llama.attention.value_length": u32(config.head_dim),
    "llama.attention.layer_norm_rms_epsilon": f32(config.rms_norm_eps),
    "llama.rope.dimension_count": u32(config.head_dim),
    "llama.rope.freq_base": f32(config.rope_theta),
    "tokenizer.ggml.model": string("gpt2"),
    "tokenizer.ggml.pre": string("llama-bpe"),
    "tokenizer.ggml.tokens": { type: "array", of: "string", value: tokenizer.pieces },
    "tokenizer.ggml.token_type": {
      type: "array",
      of: "i32",
      value: tokenizer.pieces.map((_, id) =>
        id < tokenizer.firstSpecial ? TOKEN_NORMAL : TOKEN_CONTROL,
      ),
    },
    "tokenizer.ggml.merges": {
      type: "array",
      of: "string",
      value: tokenizer.merges.map(([left, right]) => `${left} ${right}`),
    },
    "tokenizer.ggml.bos_token_id": u32(tokenizer.bos),
    "tokenizer.ggml.eos_token_id": u32(tokenizer.eos[0]),
  };
}

const [folder, type, out] = process.argv.slice(2);
if (!out || !(type in FILE_TYPES)) {
  console.error("usage: node bench/peer/make-gguf.mjs CHECKPOINT bf16|f16|f32|q8_0 FILE");
  process.exit(2);
}
const config = JSON.parse(readFileSync(path.join(folder, "config.json"), "utf8"));
const tensors = readTensors(folder).map((tensor) => ggufTensor(tensor, config, type));
if (config.rope_scaling?.rope_type === "llama3") {
  const factors = ropeFactors(config);
  tensors.push({
    name: "rope_freqs.weight",
    shape: [factors.length],
    type: "f32",
    chunks: () => [Buffer.from(factors.buffer)],
  });
}
const bar = new ProgressBar(`${out}`);
let done = 0;
const counted = tensors.map((tensor) => ({
  ...tensor,
  *chunks() {
    yield* tensor.chunks();
    bar.update(++done, tensors.length);
  },
}));
const started = Date.now();
writeGguf(out, keysOf(config, type), counted);
bar.stop();
console.log(`${out}: ${tensors.length} tensors, ${((Date.now() - started) / 1000).toFixed(1)} s`);
