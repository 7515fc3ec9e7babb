"""The training loop that base training and fine-tuning share."""
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import torch
from torch.nn.functional import cross_entropy

from documents import IGNORED


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def attention() -> str:
    """The attention of transformers that trains fastest: on short documents a CPU is a third faster without the fused kernel."""
    return "sdpa" if torch.cuda.is_available() else "eager"


def schedule(progress: float, warmup: float) -> float:
    """Share of the peak rate at `progress` in 0..1: a linear rise, then a cosine fall to 2%."""
    if progress < warmup:
        return max(progress / warmup, 0.01)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - warmup) / (1 - warmup))))


def loss_of(model, ids: torch.Tensor, labels: torch.Tensor, where: torch.device) -> tuple[torch.Tensor, int]:
    """Summed cross entropy in nats and the number of tokens that count. Logits are made only where a label is."""
    ids, targets = ids.to(where), labels[:, 1:].to(where)
    counted = targets != IGNORED
    hidden = model.get_decoder()(input_ids=ids, use_cache=False).last_hidden_state[:, :-1][counted]
    logits = model.get_output_embeddings()(hidden)
    return cross_entropy(logits.float(), targets[counted], reduction="sum"), int(counted.sum())


def backward(model, ids: torch.Tensor, labels: torch.Tensor, counted: int, where: torch.device) -> float:
    """Add the gradient of one micro-batch of a step of `counted` tokens; returns its summed loss."""
    with torch.autocast(where.type, dtype=torch.bfloat16):
        loss, _ = loss_of(model, ids, labels, where)
    (loss / counted).backward()
    return float(loss.detach())


def train(model, steps_of: Iterator, optimizers: list[torch.optim.Optimizer], steps: int, max_minutes: float, warmup: float,
          log_every: int, threads: int = 2, after_step: Callable[[int], None] | None = None) -> dict:
    """Run up to `steps` steps, or fewer when `max_minutes` would be passed: the rate falls by whichever ends first.

    The micro-batches of a step run beside one another, one thread each, with no threads inside an operation:
    on cores that others use too, two threads inside every operation spend half of their time waiting.
    """
    where = next(model.parameters()).device
    peaks = [[group["lr"] for group in optimizer.param_groups] for optimizer in optimizers]
    model.train()
    torch.set_num_threads(1)
    pool = ThreadPoolExecutor(threads if where.type == "cpu" else 1, initializer=torch.set_num_threads, initargs=(1,))
    started, tokens, seen, total = time.monotonic(), 0, 0, 0.0
    step, progress = 0, 0.0
    while progress < 1.0:
        rate = schedule(progress, warmup)
        for optimizer, peak in zip(optimizers, peaks, strict=True):
            for group, lr in zip(optimizer.param_groups, peak, strict=True):
                group["lr"] = lr * rate
        parts = next(steps_of)
        counted = sum(int((labels[:, 1:] != IGNORED).sum()) for _, labels in parts)
        total += sum(pool.map(lambda part: backward(model, *part, counted, where), parts))
        tokens += sum(ids.numel() for ids, _ in parts)
        seen += counted
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        list(pool.map(lambda optimizer: optimizer.step(), optimizers))
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        step += 1
        elapsed = time.monotonic() - started
        progress = max(step / steps, elapsed / (60 * max_minutes))
        if step % log_every == 0 or progress >= 1.0:
            print(f"step {step} loss {total / max(seen, 1):.4f} tokens {tokens} seconds {elapsed:.0f} tokens/s {tokens / elapsed:.0f}", flush=True)
            last, total, seen = total / max(seen, 1), 0.0, 0
        if after_step:
            after_step(step)
    model.eval()
    return {"steps": step, "tokens": tokens, "minutes": round((time.monotonic() - started) / 60, 1), "last_loss": round(last, 4)}
