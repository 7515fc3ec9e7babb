"""Records what other steering libraries compute for the models of cases.json.

    python -m venv .venv && .venv/bin/pip install -r tests/parity/witnesses/requirements.txt
    .venv/bin/python tests/parity/witnesses/record.py [MODEL...]      # default: all

For each model: goldens/MODEL.safetensors (runs: see Golden.add; derived.* [blocks, d]; projections.*
[blocks, pairs], the pairs' differences on the derived rows) and goldens/MODEL.repeng.gguf, a control
vector as repeng exports it; for one of them the same vector as goldens/MODEL.svec. Random checkpoints
are made by bench/make-checkpoint.mjs, which needs Node.
"""

import importlib.metadata
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import cast_witness
import llama_cpp_witness
import numpy as np
import repeng_witness
import steering_vectors_witness
import torch
from witness import HERE, Golden, Subject, record_run

ROOT = HERE.parents[2]
PACKAGES = ["steering-vectors", "repeng", "transformers", "torch", "scikit-learn", "gguf", "xllamacpp"]


def node(script: str, *arguments: str) -> None:
    subprocess.run(["node", str(ROOT / script), *arguments], check=True, stdout=subprocess.DEVNULL)


def checkpoint(spec: dict, scratch: Path) -> Path:
    if "folder" in spec:
        return ROOT / spec["folder"]
    folder = scratch / spec["name"]
    node("bench/make-checkpoint.mjs", *spec["make"].split(), "--out", str(folder))
    return folder


def record(cases: dict, spec: dict, scratch: Path) -> None:
    torch.manual_seed(0)
    folder = checkpoint(spec, scratch)
    subject = Subject(folder, spec, cases)
    golden = Golden(cases["promptRows"])
    vector_gguf = HERE / "goldens" / f"{spec['name']}.repeng.gguf"
    differences = steering_vectors_witness.differences(subject)
    for witness in (steering_vectors_witness, repeng_witness):
        for name, rows in witness.derive(subject):
            golden.tensors[f"derived.{name}"] = rows
            # [blocks, pairs]: what decides the sign, where the rules of two libraries differ.
            golden.tensors[f"projections.{name}"] = np.einsum("bpd,bd->bp", differences, rows)
    record_run(subject, golden, "plain", subject.model)
    steering_vectors_witness.apply(subject, golden)
    vector = repeng_witness.train(subject, "pca_center")
    repeng_witness.apply(subject, golden, vector, vector_gguf)
    cast_witness.apply(subject, golden, vector)
    if spec.get("svec", False):
        cast_witness.write_svec(vector, HERE / "goldens" / f"{spec['name']}.svec")
    model_gguf = scratch / f"{spec['name']}.gguf"
    node("bench/peer/make-gguf.mjs", str(folder), "f32", str(model_gguf))
    llama_cpp_witness.apply(subject, golden, model_gguf, vector_gguf)
    file = HERE / "goldens" / f"{spec['name']}.safetensors"
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    golden.save(file, {"weights": subject.weights_digest(), **versions})
    print(f"{file.name}: {file.stat().st_size / 1024:.0f} KiB")


def load_cases() -> dict:
    return json.loads((HERE / "cases.json").read_text(encoding="utf-8"))


def wanted_models(cases: dict) -> list[dict]:
    """Those named on the command line, or all."""
    known = {spec["name"]: spec for spec in cases["models"]}
    unknown = set(sys.argv[1:]) - set(known)
    if unknown:
        sys.exit(f"no such model: {', '.join(sorted(unknown))}")
    return [known[name] for name in sys.argv[1:]] or cases["models"]


def main() -> None:
    cases = load_cases()
    for spec in wanted_models(cases):
        with tempfile.TemporaryDirectory() as scratch:
            record(cases, spec, Path(scratch))


if __name__ == "__main__":
    main()
