"""Weights from a formula: the same numbers here and in synthetic-checkpoint.ts, without files.

Element i of the tensor `name` is k * 2^-bits * A: k is a signed integer of `bits` + 1 bits taken from
a hash of (seed, name, i), so that every value is exact in the type it is stored in.
"""

import numpy as np

MASK = 0xFFFFFFFF
# Bits of |k| that the type holds exactly, with room for the exponent.
BITS = {"bf16": 7, "f16": 9, "f32": 23}


def fnv1a(text: str) -> int:
    value = 0x811C9DC5
    for byte in text.encode():
        value = ((value ^ byte) * 0x01000193) & MASK
    return value


def mix(values: np.ndarray) -> np.ndarray:
    """The finalizer of MurmurHash3 on uint32."""
    values = values ^ (values >> np.uint32(16))
    values = values * np.uint32(0x85EBCA6B)
    values = values ^ (values >> np.uint32(13))
    values = values * np.uint32(0xC2B2AE35)
    return values ^ (values >> np.uint32(16))


def hashes(seed: int, name: str, count: int) -> np.ndarray:
    key = np.uint32((seed ^ fnv1a(name)) & MASK)
    return mix(np.arange(count, dtype=np.uint32) * np.uint32(0x9E3779B9) + key)


def uniform(seed: int, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """Multiples of 2^-bits in [-1, 1), float32."""
    bits = BITS[dtype]
    top = hashes(seed, name, int(np.prod(shape))) >> np.uint32(31 - bits)
    return ((top.astype(np.int64) - (1 << bits)) / (1 << bits)).astype(np.float32).reshape(shape)


def amplitude(inputs: int) -> float:
    """A power of two near sqrt(3 / inputs): a projection keeps the size of its input."""
    exponent = 0
    while 3 * 4**exponent < inputs:
        exponent += 1
    return 2.0**-exponent


def tensor(seed: int, name: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    values = uniform(seed, name, shape, dtype)
    if name.endswith("norm.weight"):
        # In [0.5, 1.5) with one bit less: 1 + k * 2^-bits must be exact as well.
        return (1 + np.trunc(values * (1 << (BITS[dtype] - 1))) / (1 << BITS[dtype])).astype(np.float32)
    if name.endswith("model.embed_tokens.weight"):
        return values
    if name.endswith(".bias"):
        return values * np.float32(0.25)
    return values * np.float32(amplitude(shape[1]))


def steering_row(seed: int, vector: int, layer: int, hidden_size: int) -> np.ndarray:
    return uniform(seed, f"vector.{vector}.layer.{layer}", (hidden_size,), "f32")


def prompt(seed: int, model: dict) -> list[int]:
    values = hashes(seed, f"prompt.{model['name']}", model["promptTokens"])
    return [int(value) % model["vocabSize"] for value in values]
