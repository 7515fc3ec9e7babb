/** What a step has to read and compute at least; limits to hold measured rates against. */

/** Multiply-adds of the projections of one token, without the unembedding. */
function projectionFma(config) {
  const d = config.hidden_size;
  const qWidth = config.num_attention_heads * config.head_dim;
  const kvWidth = config.num_key_value_heads * config.head_dim;
  const block = 2 * d * qWidth + 2 * d * kvWidth + 3 * d * config.intermediate_size;
  return config.num_hidden_layers * block;
}

/** Floating-point operations to read a prompt of `tokens` and give the logits of its last row. */
export function prefillFlop(config, tokens) {
  const qWidth = config.num_attention_heads * config.head_dim;
  const attention = config.num_hidden_layers * 2 * qWidth * ((tokens * (tokens + 1)) / 2);
  const unembedding = config.vocab_size * config.hidden_size;
  return 2 * (tokens * projectionFma(config) + attention + unembedding);
}

/** Bytes of weights that one decode step reads, whatever the number of streams. */
export function decodeBytes(config, bytesPerWeight) {
  const weights = projectionFma(config) + config.vocab_size * config.hidden_size;
  return weights * bytesPerWeight;
}

/** int8 with a 16-bit scale for each group of 32, in both programs. */
export const BYTES_PER_WEIGHT = { bf16: 2, f16: 2, int8: 34 / 32, q8_0: 34 / 32 };
