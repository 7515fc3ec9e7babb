"""A plain Llama forward in PyTorch, as a good program without a framework would have it.

Merged projections, SDPA for attention, keys and values in a cache that does not grow, and on a GPU
one CUDA graph a position, so that no decode step waits for Python. Random weights, made on the device.
"""

import dataclasses

import torch
import torch.nn.functional as F


def rms_norm(x, weight, epsilon):
    wide = x.float()
    scale = torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + epsilon)
    return weight * (wide * scale).to(x.dtype)


def rotate(x, cosines, sines):
    """x [B, heads, T, D]; cosines and sines [T, D]: the second half repeats the first."""
    low, high = x.chunk(2, dim=-1)
    return x * cosines + torch.cat((-high, low), dim=-1) * sines


def before_attention(x, norm, qkv, cosines, sines, shape):
    """x [B, T, hidden] to q [B, heads, T, D], k and v [B, kv_heads, T, D]."""
    batch, tokens, _ = x.shape
    heads = (shape.heads, shape.kv_heads, shape.kv_heads)
    parts = F.linear(rms_norm(x, norm, shape.epsilon), qkv)
    parts = parts.view(batch, tokens, sum(heads), shape.head_size).transpose(1, 2)
    q, k, v = parts.split(heads, dim=1)
    return rotate(q, cosines, sines), rotate(k, cosines, sines), v


def after_attention(x, attended, o, norm, gate_up, down, shape):
    """x and what attention gives [B, heads, T, D] to the residual stream after the block."""
    x = x + F.linear(attended.transpose(1, 2).flatten(2), o)
    gate, up = F.linear(rms_norm(x, norm, shape.epsilon), gate_up).chunk(2, dim=-1)
    return x + F.linear(F.silu(gate) * up, down)


@dataclasses.dataclass
class Block:
    attention_norm: torch.Tensor
    qkv: torch.Tensor
    o: torch.Tensor
    mlp_norm: torch.Tensor
    gate_up: torch.Tensor
    down: torch.Tensor


def random_block(shape, device, dtype):
    def matrix(rows, cols):
        return torch.randn(rows, cols, device=device, dtype=dtype).mul_(0.02)

    ones = torch.ones(shape.hidden, device=device, dtype=dtype)
    return Block(
        ones,
        matrix(shape.q_width + 2 * shape.kv_width, shape.hidden),
        matrix(shape.hidden, shape.q_width),
        ones.clone(),
        matrix(2 * shape.intermediate, shape.hidden),
        matrix(shape.hidden, shape.intermediate),
    )


class Cache:
    """Keys and values of every block, [2, B, kv_heads, tokens, D] each."""

    def __init__(self, shape, batch, tokens, device, dtype):
        size = (2, batch, shape.kv_heads, tokens, shape.head_size)
        self.blocks = [torch.randn(size, device=device, dtype=dtype) for _ in range(shape.layers)]


class Llama:
    def __init__(self, shape, device, dtype=torch.bfloat16):
        self.shape, self.device, self.dtype = shape, device, dtype
        self.blocks = [random_block(shape, device, dtype) for _ in range(shape.layers)]
        size = (shape.vocabulary, shape.hidden)
        self.embedding = torch.randn(size, device=device, dtype=dtype).mul_(0.02)
        self.unembedding = torch.randn(size, device=device, dtype=dtype).mul_(0.02)
        self.norm = torch.ones(shape.hidden, device=device, dtype=dtype)
        self.before, self.after = before_attention, after_attention

    def compile(self):
        """Raises what the compiler says when there is none that works."""
        self.before = torch.compile(before_attention, dynamic=False)
        self.after = torch.compile(after_attention, dynamic=False)
        try:
            self.prefill(torch.zeros((1, 16), dtype=torch.int64, device=self.device))
        except Exception:
            self.before, self.after = before_attention, after_attention
            raise

    def turns(self, first, count):
        """Cosines and sines of positions [first, first + count), [count, D] each."""
        pairs = torch.arange(0, self.shape.head_size, 2, device=self.device, dtype=torch.float32)
        frequencies = self.shape.rope_theta ** (-pairs / self.shape.head_size)
        positions = torch.arange(first, first + count, device=self.device, dtype=torch.float32)
        angles = torch.outer(positions, frequencies).repeat(1, 2)
        return angles.cos().to(self.dtype), angles.sin().to(self.dtype)

    def logits(self, x):
        """Of the last token."""
        x = rms_norm(x[:, -1], self.norm, self.shape.epsilon)
        return F.linear(x, self.unembedding)

    def prefill(self, token_ids, cache=None):
        """token_ids [B, T]; the logits that follow. Fills the first T places of a cache."""
        tokens = token_ids.shape[1]
        cosines, sines = self.turns(0, tokens)
        x = F.embedding(token_ids, self.embedding)
        for i, block in enumerate(self.blocks):
            q, k, v = self.before(x, block.attention_norm, block.qkv, cosines, sines, self.shape)
            if cache is not None:
                cache.blocks[i][0, :, :, :tokens] = k
                cache.blocks[i][1, :, :, :tokens] = v
            attended = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
            x = self.after(
                x, attended, block.o, block.mlp_norm, block.gate_up, block.down, self.shape
            )
        return self.logits(x)

    def decode(self, token_ids, position, cache):
        """token_ids [B], all at one position (a number); the logits that follow."""
        cosines, sines = self.turns(position, 1)
        x = F.embedding(token_ids[:, None], self.embedding)
        for i, block in enumerate(self.blocks):
            q, k, v = self.before(x, block.attention_norm, block.qkv, cosines, sines, self.shape)
            keys, values = cache.blocks[i]
            keys[:, :, position : position + 1] = k
            values[:, :, position : position + 1] = v
            # The heads of a group as queries of one key head: all of them see the whole context.
            grouped = q.reshape(q.shape[0], self.shape.kv_heads, -1, self.shape.head_size)
            attended = F.scaled_dot_product_attention(
                grouped, keys[:, :, : position + 1], values[:, :, : position + 1]
            ).reshape(q.shape)
            x = self.after(
                x, attended, block.o, block.mlp_norm, block.gate_up, block.down, self.shape
            )
        return self.logits(x)


class Decoding:
    """Greedy decode of one batch: every step leaves its tokens where the next one reads them."""

    def __init__(self, model, streams, context, tokens, graphs):
        self.model, self.context, self.tokens = model, context, tokens
        self.cache = Cache(model.shape, streams, context + tokens, model.device, model.dtype)
        self.token_ids = torch.randint(model.shape.vocabulary, (streams,), device=model.device)
        self.graphs = []
        if graphs:
            self.record()

    def step(self, position):
        self.token_ids.copy_(self.model.decode(self.token_ids, position, self.cache).argmax(-1))

    def record(self):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for position in (self.context, self.context + 1):  # compiles, and chooses kernels
                self.step(position)
        torch.cuda.current_stream().wait_stream(stream)
        pool = None
        for position in range(self.context, self.context + self.tokens):
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=stream):
                self.step(position)
            pool = graph.pool()
            self.graphs.append(graph)

    def run(self):
        for i in range(self.tokens):
            if self.graphs:
                self.graphs[i].replay()
            else:
                self.step(self.context + i)
