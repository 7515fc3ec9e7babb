"""Documents to token ids with loss masks, and batches of documents of nearly the same length."""
import json
import random
from pathlib import Path

import torch

IGNORED = -100  # the label that cross entropy leaves out


def read_jsonl(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def encode(tokenizer, document: dict, answers_only: bool) -> tuple[list[int], list[int]]:
    """Ids and labels of one document. `answers_only` puts the loss on the last answer, not on the prompt."""
    if "text" in document:
        ids = tokenizer(document["text"])["input_ids"] + [tokenizer.eos_token_id]
        return ids, list(ids)
    messages = document["messages"]
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    labels = list(ids)
    if answers_only:
        prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        skipped = len(tokenizer(prompt, add_special_tokens=False)["input_ids"])
        labels[:skipped] = [IGNORED] * skipped
    return ids, labels


def batches(encoded: list[tuple[list[int], list[int]]], tokens: int, parts: int, seed: int):
    """Endless steps. A step is `parts` micro-batches from different lengths, each about tokens/parts tokens.

    Micro-batches hold documents of nearly one length, so little is padded and every document starts at
    position 0, as it does when the model is used. Yields lists of (ids, labels), each [rows, length] int64.
    """
    rng = random.Random(seed)
    while True:
        order = sorted(range(len(encoded)), key=lambda index: (len(encoded[index][0]), rng.random()))
        groups, group, longest = [], [], 0
        for index in order:
            longest = max(longest, len(encoded[index][0]))
            if group and longest * (len(group) + 1) > tokens // parts:
                groups.append(group)
                group, longest = [], len(encoded[index][0])
            group.append(index)
        groups.append(group)
        count = len(groups) // parts
        strata = [groups[part * count:(part + 1) * count] for part in range(parts)]
        for stratum in strata:
            rng.shuffle(stratum)
        for step in range(count):
            yield [stack([encoded[index] for index in stratum[step]]) for stratum in strata]


def stack(rows: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Pad on the right; causal attention keeps the padding out of every real token."""
    length = max(len(ids) for ids, _ in rows)
    ids = torch.zeros(len(rows), length, dtype=torch.long)
    labels = torch.full((len(rows), length), IGNORED, dtype=torch.long)
    for row, (tokens, targets) in enumerate(rows):
        ids[row, :len(tokens)] = torch.tensor(tokens)
        labels[row, :len(targets)] = torch.tensor(targets)
    return ids, labels
