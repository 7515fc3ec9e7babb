"""IBM's activation-steering (CAST), which no package registry has: its file format and the way in
which it applies a vector, written from its documentation, not run.

A `.svec` file is JSON: {"model_type", "directions": {"L": [...]}, "explained_variances": {"L": x}}.
Its default method is the PCA of pairs about their own centres, read after block L: what repeng calls
pca_center. It then adds direction L to the *input* of block L.
"""

import json
from pathlib import Path

import torch
from repeng import ControlVector
from witness import Golden, Subject, record_run


def write_svec(vector: ControlVector, file: Path) -> None:
    data = {
        "model_type": vector.model_type,
        "directions": {str(block): row.tolist() for block, row in sorted(vector.directions.items())},
        "explained_variances": {str(block): 1.0 for block in sorted(vector.directions)},
    }
    file.write_text(json.dumps(data), encoding="utf-8")


def apply(subject: Subject, golden: Golden, vector: ControlVector) -> None:
    def add(row: torch.Tensor):
        return lambda _module, args: (args[0] + subject.spec["unit"] * row, *args[1:])

    layers = subject.model.model.layers
    handles = [
        layers[block].register_forward_pre_hook(add(torch.from_numpy(row)))
        for block, row in vector.directions.items()
    ]
    try:
        record_run(subject, golden, "cast.block_input", subject.model)
    finally:
        for handle in handles:
            handle.remove()
