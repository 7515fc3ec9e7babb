"""What repeng computes: its two methods, its control of a model, its GGUF files."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from repeng import ControlModel, ControlVector, DatasetEntry
from witness import Golden, Subject, record_run


def train(subject: Subject, method: str) -> ControlVector:
    dataset = [DatasetEntry(positive=positive, negative=negative) for positive, negative in subject.pairs]
    return ControlVector.train(subject.model, subject.tokenizer, dataset, method=method, batch_size=5)


def derive(subject: Subject) -> Iterator[tuple[str, np.ndarray]]:
    """(name, rows [blocks, d]); row 0 is zero, because repeng has none for block 0."""
    for method in ("pca_diff", "pca_center"):
        directions = train(subject, method).directions
        rows = np.zeros((subject.blocks, subject.width), np.float32)
        for block, direction in directions.items():
            rows[block] = direction
        yield f"repeng.{method}", rows


def apply(subject: Subject, golden: Golden, vector: ControlVector, gguf: Path) -> None:
    vector.export_gguf(gguf)
    controlled = ControlModel(subject.model, list(range(1, subject.blocks)))
    try:
        for name, options in {"control": {}, "control_normalize": {"normalize": True}}.items():
            controlled.set_control(vector, subject.spec["unit"], **options)
            record_run(subject, golden, f"repeng.{name}", controlled)
    finally:
        controlled.unwrap()
