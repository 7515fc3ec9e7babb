"""What a GPU cannot do without: bytes of a decode step, operations of a prompt; and the aims."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Shape:
    hidden: int
    intermediate: int
    layers: int
    q_width: int
    kv_width: int
    vocabulary: int

    @property
    def block_weights(self):
        attention = self.hidden * (self.q_width + 2 * self.kv_width) + self.q_width * self.hidden
        return attention + 3 * self.hidden * self.intermediate

    @property
    def step_bytes(self):
        """Weights that a decode step reads, bf16: all but the table of embeddings."""
        norms = (2 * self.layers + 1) * self.hidden
        return 2 * (self.layers * self.block_weights + self.vocabulary * self.hidden + norms)

    @property
    def token_bytes(self):
        """Keys and values of one context token, bf16."""
        return 2 * 2 * self.layers * self.kv_width


SHAPES = {
    "llama-3.1-8b": Shape(4096, 14336, 32, 4096, 1024, 128256),
    "tiny": Shape(64, 160, 3, 128, 64, 1024),
}

BLOCK_TOKENS = 16

# Shares of the floor, by streams.
DECODE_AIM = {1: 0.9, 8: 0.875, 64: 0.8}
PREFILL_AIM = 0.75


def decode_ms(shape, streams, context, copy_gbps):
    """Of one step of all streams; None when the bandwidth is not known."""
    if not copy_gbps:
        return None
    return (shape.step_bytes + streams * context * shape.token_bytes) / copy_gbps / 1e6


def prefill_ms(shape, tokens, dense_tflops):
    """Products of the blocks, attention over what causality leaves, logits of one token."""
    if not dense_tflops:
        return None
    products = 2 * tokens * shape.layers * shape.block_weights
    attention = 2 * tokens * (tokens + 1) * shape.q_width * shape.layers
    return (products + attention + 2 * shape.vocabulary * shape.hidden) / dense_tflops / 1e9
