"""Perplexity on held-out text and unselected samples."""
import math
import random

import torch

from corpus.chat import question
from corpus.reviews import THINGS, ask
from documents import encode
from generate import chat_ids, generate
from loop import loss_of


@torch.inference_mode()
def perplexity(model, tokenizer, documents: list[dict]) -> dict:
    """Perplexity per token over all tokens of each kind of held-out document, and over all of them."""
    sums: dict[str, list[float]] = {}
    where = next(model.parameters()).device
    for document in documents:
        ids, labels = (torch.tensor([row]) for row in encode(tokenizer, document, answers_only=False))
        nats, tokens = loss_of(model, ids, labels, where)
        for kind in (document["kind"], "all"):
            entry = sums.setdefault(kind, [0.0, 0])
            entry[0] += float(nats)
            entry[1] += tokens
    return {kind: {"perplexity": round(math.exp(nats / tokens), 3), "tokens": tokens} for kind, (nats, tokens) in sorted(sums.items())}


def samples(model, tokenizer, count: int, seed: int, batch: int) -> dict[str, list[dict]]:
    """`count` sampled texts (temperature 0.6) of each kind: remark, review, question. The first draws, none left out."""
    rng = random.Random(seed)
    requests = {"review": [ask(rng, rng.choice(tuple(THINGS)), None, held_out=True) for _ in range(count)],
                "question": [question(rng)[0] for _ in range(count)],
                "remark": [f"Review of the {rng.choice(tuple(THINGS))}:" for _ in range(count)]}
    found = {}
    for kind, asked in requests.items():
        prompts = [tokenizer(text)["input_ids"] if kind == "remark" else chat_ids(tokenizer, [{"role": "user", "content": text}]) for text in asked]
        answers = generate(model, tokenizer, prompts, 80, temperature=0.6, seed=seed, batch=batch)
        found[kind] = [{"prompt": text, "answer": answer} for text, answer in zip(asked, answers, strict=True)]
    return found
