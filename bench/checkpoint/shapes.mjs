/**
 * Shapes of LlamaForCausalLM checkpoints by name, in the words of config.json. The numbers of the
 * public models are those of their config.json.
 */

const LLAMA3_SCALING = {
  rope_type: "llama3",
  low_freq_factor: 1.0,
  high_freq_factor: 4.0,
  original_max_position_embeddings: 8192,
};

export const SHAPES = {
  /** 1 MB: smoke tests. */
  tiny: {
    hidden_size: 64,
    intermediate_size: 160,
    num_hidden_layers: 3,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 32,
    vocab_size: 1024,
    max_position_embeddings: 512,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    rope_scaling: null,
    tie_word_embeddings: true,
  },
  /** 40 MB: fits caches, yet steps take long enough to be measured. */
  small: {
    hidden_size: 512,
    intermediate_size: 1408,
    num_hidden_layers: 4,
    num_attention_heads: 8,
    num_key_value_heads: 2,
    head_dim: 64,
    vocab_size: 8192,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    rope_scaling: { ...LLAMA3_SCALING, factor: 8, original_max_position_embeddings: 1024 },
    tie_word_embeddings: true,
  },
  "smollm2-135m": {
    hidden_size: 576,
    intermediate_size: 1536,
    num_hidden_layers: 30,
    num_attention_heads: 9,
    num_key_value_heads: 3,
    head_dim: 64,
    vocab_size: 49152,
    max_position_embeddings: 8192,
    rms_norm_eps: 1e-5,
    rope_theta: 100000,
    rope_scaling: null,
    tie_word_embeddings: true,
  },
  tinyllama: {
    hidden_size: 2048,
    intermediate_size: 5632,
    num_hidden_layers: 22,
    num_attention_heads: 32,
    num_key_value_heads: 4,
    head_dim: 64,
    vocab_size: 32000,
    max_position_embeddings: 2048,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    rope_scaling: null,
    tie_word_embeddings: false,
  },
  "llama-3.2-1b": {
    hidden_size: 2048,
    intermediate_size: 8192,
    num_hidden_layers: 16,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    head_dim: 64,
    vocab_size: 128256,
    max_position_embeddings: 131072,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    rope_scaling: { ...LLAMA3_SCALING, factor: 32 },
    tie_word_embeddings: true,
  },
  "llama-3.2-3b": {
    hidden_size: 3072,
    intermediate_size: 8192,
    num_hidden_layers: 28,
    num_attention_heads: 24,
    num_key_value_heads: 8,
    head_dim: 128,
    vocab_size: 128256,
    max_position_embeddings: 131072,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    rope_scaling: { ...LLAMA3_SCALING, factor: 32 },
    tie_word_embeddings: true,
  },
  "llama-2-7b": {
    hidden_size: 4096,
    intermediate_size: 11008,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 32,
    head_dim: 128,
    vocab_size: 32000,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    rope_theta: 10000,
    rope_scaling: null,
    tie_word_embeddings: false,
  },
  "llama-3.1-8b": {
    hidden_size: 4096,
    intermediate_size: 14336,
    num_hidden_layers: 32,
    num_attention_heads: 32,
    num_key_value_heads: 8,
    head_dim: 128,
    vocab_size: 128256,
    max_position_embeddings: 131072,
    rms_norm_eps: 1e-5,
    rope_theta: 500000,
    rope_scaling: { ...LLAMA3_SCALING, factor: 8 },
    tie_word_embeddings: false,
  },
};

/** Tensors of a checkpoint in file order: [{ name, shape, kind: "matrix" | "norm" }]. */
export function tensorsOf(shape) {
  const d = shape.hidden_size;
  const wide = shape.intermediate_size;
  const qWidth = shape.num_attention_heads * shape.head_dim;
  const kvWidth = shape.num_key_value_heads * shape.head_dim;
  const matrix = (name, rows, cols) => ({ name, shape: [rows, cols], kind: "matrix" });
  const norm = (name) => ({ name, shape: [d], kind: "norm" });

  const tensors = [matrix("model.embed_tokens.weight", shape.vocab_size, d)];
  for (let layer = 0; layer < shape.num_hidden_layers; layer++) {
    const prefix = `model.layers.${layer}.`;
    tensors.push(
      norm(`${prefix}input_layernorm.weight`),
      matrix(`${prefix}self_attn.q_proj.weight`, qWidth, d),
      matrix(`${prefix}self_attn.k_proj.weight`, kvWidth, d),
      matrix(`${prefix}self_attn.v_proj.weight`, kvWidth, d),
      matrix(`${prefix}self_attn.o_proj.weight`, d, qWidth),
      norm(`${prefix}post_attention_layernorm.weight`),
      matrix(`${prefix}mlp.gate_proj.weight`, wide, d),
      matrix(`${prefix}mlp.up_proj.weight`, wide, d),
      matrix(`${prefix}mlp.down_proj.weight`, d, wide),
    );
  }
  tensors.push(norm("model.norm.weight"));
  if (!shape.tie_word_embeddings) tensors.push(matrix("lm_head.weight", shape.vocab_size, d));
  return tensors;
}
