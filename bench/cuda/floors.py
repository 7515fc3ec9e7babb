"""What a GPU cannot do without: bytes of a decode step, operations of a prompt; and the aims."""

BLOCK_TOKENS = 16

# Shares of the floor, by streams.
DECODE_AIM = {1: 0.9, 8: 0.875, 64: 0.8}
PREFILL_AIM = 0.75


def block_weights(shape):
    attention = shape.hidden * (shape.q_width + 2 * shape.kv_width) + shape.q_width * shape.hidden
    return attention + 3 * shape.hidden * shape.intermediate


def step_bytes(shape):
    """Weights that a decode step reads, bf16: all but the table of embeddings."""
    norms = (2 * shape.layers + 1) * shape.hidden
    return 2 * (shape.layers * block_weights(shape) + shape.vocabulary * shape.hidden + norms)


def token_bytes(shape):
    """Keys and values of one context token, bf16."""
    return 2 * 2 * shape.layers * shape.kv_width


def decode_ms(shape, streams, context, copy_gbps):
    """Of one step of all streams; None when the bandwidth is not known."""
    if not copy_gbps:
        return None
    return (step_bytes(shape) + streams * context * token_bytes(shape)) / copy_gbps / 1e6


def prefill_ms(shape, tokens, dense_tflops):
    """Products of the blocks, attention over what causality leaves, logits of one token."""
    if not dense_tflops:
        return None
    products = 2 * tokens * shape.layers * block_weights(shape)
    attention = 2 * tokens * (tokens + 1) * shape.q_width * shape.layers
    return (products + attention + 2 * shape.vocabulary * shape.hidden) / dense_tflops / 1e9
