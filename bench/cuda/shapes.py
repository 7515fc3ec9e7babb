"""The models that are measured; without PyTorch, which the page of results does not need."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Shape:
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_size: int
    vocabulary: int
    rope_theta: float = 500000.0
    epsilon: float = 1e-5

    @property
    def q_width(self):
        return self.heads * self.head_size

    @property
    def kv_width(self):
        return self.kv_heads * self.head_size


SHAPES = {
    "tiny": Shape(64, 160, 3, 4, 2, 32, 1024),
    "llama-3.1-8b": Shape(4096, 14336, 32, 32, 8, 128, 128256),
}
