#!/usr/bin/env python3
"""PyTorch on this GPU, to stand beside our figures.

  reference.py limits                      what it copies and multiplies at most
  reference.py attention                   scaled_dot_product_attention, cuDNN's and flash attention's
  reference.py orders                      a plain Llama forward, driven by lines as bench_engine is:
                                             decode streams=8 context=128 tokens=32
                                             prefill tokens=2048
  reference.py check                       that forward beside transformers, in float32 on the CPU

Options: --device cuda|cpu, --shape NAME, --mode compile|graphs|eager, --out FILE (JSON).
"""

import argparse
import json
import statistics
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import llama
from shapes import SHAPES

BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION}
PREFILL_TOKENS = {"llama-3.1-8b": (512, 2048, 8192, 16384), "tiny": (40, 96)}
DECODE_BATCHES = {
    "llama-3.1-8b": ((1, 1024), (1, 8192), (1, 32768), (8, 1024), (8, 8192), (64, 1024), (64, 4096)),
    "tiny": ((1, 300), (3, 33)),
}


def seconds_of(work, device):
    """Of one call."""
    if device == "cpu":
        begin = time.perf_counter()
        work()
        return time.perf_counter() - begin
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    work()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


def median_seconds(work, device, budget_s=0.2, least=5, most=100):
    """The median of one call; `work` takes the number of the call, to alternate buffers."""
    for i in range(3):
        work(i)
    once = max(seconds_of(lambda: work(0), device), 1e-7)
    samples = int(min(max(budget_s / once, least), most))
    return statistics.median(seconds_of(lambda i=i: work(i), device) for i in range(samples))


def facts(device):
    name = torch.cuda.get_device_name() if device != "cpu" else "CPU"
    return {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda}


def measure_limits(args):
    small = args.shape == "tiny"
    values = (1 << 20) if small else (1 << 29)
    a, b = (torch.randn(values, device=args.device, dtype=torch.bfloat16) for _ in range(2))
    copy = median_seconds(lambda _: a.copy_(b), args.device)
    size = 128 if small else 8192
    x, y = (torch.randn(size, size, device=args.device, dtype=torch.bfloat16) for _ in range(2))
    dense = median_seconds(lambda _: x @ y, args.device, budget_s=1.0)
    return {
        "copy_gbps": 2 * a.nbytes / copy / 1e9,
        "dense_tflops": 2 * size**3 / dense / 1e12,
    }


def attend(backend, q, k, v, causal):
    with sdpa_kernel(BACKENDS[backend]):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=causal)


def measure_attention(args):
    """Tensors alternate, as the layers of a model do."""
    shape = SHAPES[args.shape]
    turns = 2 if args.shape == "tiny" else 4

    def tensors(heads, batch, tokens):
        size = (turns, batch, heads, tokens, shape.head_size)
        return torch.randn(size, device=args.device, dtype=torch.bfloat16)

    def row(kind, backend, work, case, flop, size):
        try:
            seconds = median_seconds(work, args.device)
        except RuntimeError as error:
            return {**case, "kind": kind, "backend": backend, "error": str(error).split("\n")[0]}
        return {
            **case,
            "kind": kind,
            "backend": backend,
            "us": seconds * 1e6,
            "tflops": flop / seconds / 1e12,
            "gbps": size / seconds / 1e9,
        }

    rows = []
    width = shape.q_width
    group = shape.heads // shape.kv_heads
    for tokens in PREFILL_TOKENS[args.shape]:
        q = tensors(shape.heads, 1, tokens)
        k, v = tensors(shape.kv_heads, 1, tokens), tensors(shape.kv_heads, 1, tokens)
        flop = 2.0 * tokens * (tokens + 1) * width
        case = {"tokens": tokens}
        for backend in BACKENDS:
            work = lambda i, b=backend: attend(b, q[i % turns], k[i % turns], v[i % turns], True)
            measured = row("prefill", backend, work, case, flop, k[0].nbytes * 2)
            if "error" in measured:  # a backend without grouped heads gets them written out
                wide = [t[:1].repeat_interleave(group, dim=2) for t in (k, v)]
                work = lambda i, b=backend: attend(b, q[i % turns], wide[0][0], wide[1][0], True)
                case = {**case, "expanded": True}
                measured = row("prefill", backend, work, case, flop, k[0].nbytes * 2)
            rows.append(measured)
    for streams, context in DECODE_BATCHES[args.shape]:
        q = tensors(shape.kv_heads, streams, group)
        k, v = (tensors(shape.kv_heads, streams, context) for _ in range(2))
        flop = 4.0 * streams * context * width
        case = {"streams": streams, "context": context}
        for backend in BACKENDS:
            work = lambda i, b=backend: attend(b, q[i % turns], k[i % turns], v[i % turns], False)
            rows.append(row("decode", backend, work, case, flop, k[0].nbytes * 2))
    return {"shape": args.shape, "rows": rows}


class Orders:
    """Answers lines; keeps what a batch needs from order to order."""

    def __init__(self, args):
        self.args = args
        self.on_gpu = args.device != "cpu"
        self.mode = args.mode if self.on_gpu else "eager"
        self.model = llama.Llama(SHAPES[args.shape], args.device)
        self.batches = {}
        if self.mode == "compile":
            try:
                with torch.inference_mode():
                    self.model.compile()
            except Exception as error:  # no Triton, no C compiler: graphs are what is left
                print(f"torch.compile failed: {error}", file=sys.stderr)
                self.mode = "graphs"

    def decode(self, words):
        key = tuple(int(words[name]) for name in ("streams", "context", "tokens"))
        if words.get("steering", "none") != "none":
            raise ValueError("the reference does not steer")
        if key not in self.batches:
            self.batches[key] = llama.Decoding(self.model, *key, graphs=self.mode != "eager")
        batch = self.batches[key]
        batch.run()  # once unmeasured
        return key[0] * key[2], seconds_of(batch.run, self.args.device)

    def prefill(self, words):
        tokens = int(words["tokens"])
        ids = torch.randint(self.model.shape.vocabulary, (1, tokens), device=self.args.device)
        self.model.prefill(ids)
        return tokens, seconds_of(lambda: self.model.prefill(ids).argmax(-1), self.args.device)

    def carry(self, line):
        op, *rest = line.split()
        words = dict(word.split("=", 1) for word in rest)
        if op not in ("decode", "prefill"):
            raise ValueError(f"no such order: {op}")
        with torch.inference_mode():
            tokens, seconds = getattr(self, op)(words)
        return {"tokens": tokens, "seconds": seconds, "tokens_per_s": tokens / seconds}


def serve_orders(args):
    orders = Orders(args)
    greeting = {**facts(args.device), "shape": args.shape, "mode": orders.mode}
    print(json.dumps(greeting), flush=True)
    for line in filter(None, (line.strip() for line in sys.stdin)):
        try:
            answer = orders.carry(line)
        except Exception as error:  # the driver decides what a failed order means
            answer = {"error": f"{type(error).__name__}: {str(error).splitlines()[0]}"}
        print(json.dumps({"order": line, **answer}), flush=True)


def check(_):
    """Logits of a prompt and of decode steps after it, against transformers."""
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = SHAPES["tiny"]
    torch.manual_seed(1)
    config = LlamaConfig(
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        vocab_size=shape.vocabulary,
        rms_norm_eps=shape.epsilon,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=False,
    )
    theirs = LlamaForCausalLM(config).eval()
    ours = llama.Llama(shape, "cpu", torch.float32)
    state = theirs.state_dict()
    for i, block in enumerate(ours.blocks):
        own = {name: state[f"model.layers.{i}.{name}.weight"] for name in (
            "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
            "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
            "input_layernorm", "post_attention_layernorm",
        )}
        block.qkv = torch.cat([own[f"self_attn.{name}_proj"] for name in "qkv"])
        block.o, block.down = own["self_attn.o_proj"], own["mlp.down_proj"]
        block.gate_up = torch.cat([own["mlp.gate_proj"], own["mlp.up_proj"]])
        block.attention_norm = own["input_layernorm"]
        block.mlp_norm = own["post_attention_layernorm"]
    ours.embedding = state["model.embed_tokens.weight"]
    ours.unembedding, ours.norm = state["lm_head.weight"], state["model.norm.weight"]
    ids = torch.randint(shape.vocabulary, (2, 24))
    prompt = 16
    cache = llama.Cache(shape, 2, ids.shape[1], "cpu", torch.float32)
    with torch.inference_mode():
        wanted = theirs(ids).logits
        got = [ours.prefill(ids[:, :prompt], cache)]
        got += [ours.decode(ids[:, t], t, cache) for t in range(prompt, ids.shape[1])]
    difference = (torch.stack(got, 1) - wanted[:, prompt - 1 :]).abs().max() / wanted.abs().max()
    print(f"largest difference {difference:.1e} of the largest logit")
    if difference > 1e-5:
        sys.exit("the reference does not compute what transformers computes")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("limits", "attention", "orders", "check"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--shape", default="llama-3.1-8b", choices=SHAPES)
    parser.add_argument("--mode", default="compile", choices=("compile", "graphs", "eager"))
    parser.add_argument("--out")
    args = parser.parse_args()
    torch.manual_seed(1)
    if args.what == "orders":
        return serve_orders(args)
    if args.what == "check":
        return check(args)
    with torch.inference_mode():
        measured = {"limits": measure_limits, "attention": measure_attention}[args.what](args)
    text = json.dumps({**facts(args.device), **measured}, indent=1)
    print(text)
    if args.out:
        with open(args.out, "w", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
