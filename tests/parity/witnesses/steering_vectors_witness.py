"""What the package steering-vectors computes: its aggregators, and its vectors applied."""

from collections.abc import Iterator

import numpy as np
import torch
from steering_vectors import (
    SteeringVector,
    ablation_operator,
    ablation_then_addition_operator,
    logistic_aggregator,
    mean_aggregator,
    pca_aggregator,
    train_steering_vector,
)
from steering_vectors.train_steering_vector import extract_activations
from witness import Golden, Subject, record_run

AGGREGATORS = {"mean": mean_aggregator, "pca": pca_aggregator, "logistic": logistic_aggregator}


def train(subject: Subject, aggregator: str) -> SteeringVector:
    """On every block, at the last token: the defaults. Batches of 5, so that some prompts are padded."""
    return train_steering_vector(
        subject.model,
        subject.tokenizer,
        subject.pairs,
        aggregator=AGGREGATORS[aggregator](),
        batch_size=5,
    )


def differences(subject: Subject) -> np.ndarray:
    """Positive minus negative read of every pair after every block, [blocks, pairs, d]."""
    positive, negative = extract_activations(subject.model, subject.tokenizer, subject.pairs)
    both = [(torch.cat(positive[block]), torch.cat(negative[block])) for block in range(subject.blocks)]
    return np.stack([(p - n).numpy() for p, n in both])


def derive(subject: Subject) -> Iterator[tuple[str, np.ndarray]]:
    """(name, rows [blocks, d])"""
    for name in AGGREGATORS:
        activations = train(subject, name).layer_activations
        yield f"steering_vectors.{name}", np.stack([activations[i].numpy() for i in sorted(activations)])


def apply(subject: Subject, golden: Golden) -> None:
    """Runs with the mean difference on all blocks, through a KV cache as `generate` has by default."""
    vector = train(subject, "mean")
    middle = subject.blocks // 2
    one_block = SteeringVector({middle: vector.layer_activations[middle]})
    start = subject.cases["minTokenIndex"]
    runs = {
        "defaults": (vector, {}),
        "one_block": (one_block, {}),
        "min_token_index": (vector, {"min_token_index": start}),
        "min_token_index_last": (vector, {"min_token_index": -1}),
        "ablate": (one_block, {"operator": ablation_operator()}),
        "ablate_then_add": (one_block, {"operator": ablation_then_addition_operator()}),
    }
    for name, (used, options) in runs.items():
        with used.apply(subject.model, multiplier=subject.spec["add"], **options):
            record_run(subject, golden, f"steering_vectors.{name}", subject.model)
