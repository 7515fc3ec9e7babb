"""Batched generation with optional steering of the residual stream, for evaluation and goldens."""
import contextlib
from collections.abc import Iterator

import torch

STOP_LIMIT_TOKENS = 220


def chat_ids(tokenizer, messages: list[dict]) -> list[int]:
    """Token ids of a dialogue up to the point where the assistant answers."""
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return tokenizer(text, add_special_tokens=False)["input_ids"]


@contextlib.contextmanager
def steered(model, layer: int, vector: torch.Tensor | None, coefficient: float) -> Iterator[None]:
    """ADD at RESID_POST of block `layer`: h + c*v in float32 on every prompt and generated token."""
    if vector is None or coefficient == 0.0:
        yield
        return

    def add(_module, _inputs, output):
        hidden = output[0] if isinstance(output, tuple) else output
        moved = (hidden.float() + coefficient * vector.to(hidden.device)).to(hidden.dtype)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    handle = model.get_decoder().layers[layer].register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()


@torch.inference_mode()
def generate(model, tokenizer, prompts: list[list[int]], max_tokens: int = STOP_LIMIT_TOKENS, temperature: float = 0.0,
             seed: int = 0, batch: int = 50, top_p: float = 1.0) -> list[str]:
    """Answers to `prompts` (token ids), greedy at temperature 0. Shorter prompts first, padded on the left."""
    torch.manual_seed(seed)
    where = next(model.parameters()).device
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    answers = [""] * len(prompts)
    sampling = {"do_sample": True, "temperature": temperature, "top_p": top_p, "top_k": 0} if temperature > 0 else {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    for start in range(0, len(order), batch):
        chosen = order[start:start + batch]
        longest = max(len(prompts[index]) for index in chosen)
        pad = tokenizer.pad_token_id
        ids = torch.tensor([[pad] * (longest - len(prompts[index])) + prompts[index] for index in chosen], device=where)
        mask = torch.tensor([[0] * (longest - len(prompts[index])) + [1] * len(prompts[index]) for index in chosen], device=where)
        out = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=max_tokens, pad_token_id=pad, **sampling)
        for row, index in enumerate(chosen):
            answers[index] = tokenizer.decode(out[row, longest:], skip_special_tokens=True).strip()
    return answers


@torch.inference_mode()
def residual_reads(model, tokenizer, texts: list[str], layer: int, token: str) -> torch.Tensor:
    """r_layer of every text (begin-of-text added) at its "last" token or as the "mean" over all: [texts, hidden] float32."""
    reads = []
    for text in texts:
        ids = torch.tensor([tokenizer(text)["input_ids"]], device=next(model.parameters()).device)
        states = model.get_decoder()(input_ids=ids, output_hidden_states=True, use_cache=False).hidden_states
        rows = states[layer + 1][0].float().cpu()
        reads.append(rows[-1] if token == "last" else rows.mean(dim=0))
    return torch.stack(reads)


def mean_difference(model, tokenizer, pairs: list[dict], layer: int, token: str) -> torch.Tensor:
    """Mean of r_layer(positive) - r_layer(negative), not normalised: [hidden] float32."""
    return (residual_reads(model, tokenizer, [pair["positive"] for pair in pairs], layer, token)
            - residual_reads(model, tokenizer, [pair["negative"] for pair in pairs], layer, token)).mean(dim=0)
