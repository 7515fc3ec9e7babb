"""Reads GGUF files that the service exports with the readers of gguf-py and of repeng.

    .venv/bin/python tests/parity/witnesses/read_exports.py [MODEL...]      # needs npm run build

Starts the service, registers the recorded pca_center of each model as "sent", exports it, and checks
every row bit for bit in both readers. Writes goldens/MODEL.read.json: the digest of the file that
they read right, to which the exporter is held.
"""

import contextlib
import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
from record import ROOT, checkpoint, load_cases, wanted_models
from repeng import ControlVector
from safetensors.numpy import load_file
from witness import HERE

COMMAND = ["node", str(ROOT / "dist" / "cli" / "main.js")]


@contextlib.contextmanager
def service(model: Path, registry: Path) -> Iterator[str]:
    """Address of a service on the checkpoint."""
    addresses = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*COMMAND, "serve", "--model", str(model), "--registry", str(registry), *addresses],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        lines = (json.loads(line) for line in process.stdout)
        yield next(line["grpc"] for line in lines if line["msg"] == "ready")
    finally:
        process.terminate()
        process.wait()


def export(model: Path, vector: Path, scratch: Path) -> Path:
    out = scratch / "export.gguf"
    with service(model, scratch / "registry") as address:
        for arguments in (["import", "sent", str(vector)], ["export", "sent", "--format", "gguf", "--out", str(out)]):
            subprocess.run([*COMMAND, "vectors", *arguments, "--server", address], check=True, stdout=subprocess.DEVNULL)
    return out


def read(file: Path) -> dict[str, dict[int, np.ndarray]]:
    by_gguf = {int(tensor.name.removeprefix("direction.")): tensor.data for tensor in gguf.GGUFReader(file).tensors}
    return {"gguf": by_gguf, "repeng": ControlVector.import_gguf(file).directions}


def check(spec: dict, scratch: Path) -> None:
    golden = load_file(HERE / "goldens" / f"{spec['name']}.safetensors")["derived.repeng.pca_center"]
    vector = HERE / "goldens" / f"{spec['name']}.repeng.gguf"
    file = export(checkpoint(spec, scratch), vector, scratch)
    found = read(file)
    for reader, directions in found.items():
        if sorted(directions) != list(range(1, len(golden))):
            sys.exit(f"{reader} finds the directions {sorted(directions)}")
        for block, row in directions.items():
            if row.dtype != np.float32 or row.tobytes() != golden[block].tobytes():
                sys.exit(f"{reader} reads another direction {block}")
    # One line for each field, as the linter of this repository wants it.
    fields = {"sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "readBy": sorted(found)}
    lines = ",\n".join(f'  "{name}": {json.dumps(value)}' for name, value in fields.items())
    (HERE / "goldens" / f"{spec['name']}.read.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
    print(f"{spec['name']}: read by {', '.join(sorted(found))}")


if __name__ == "__main__":
    for wanted in wanted_models(load_cases()):
        with tempfile.TemporaryDirectory() as folder:
            check(wanted, Path(folder))
