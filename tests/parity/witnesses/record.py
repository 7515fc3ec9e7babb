"""Records what other steering libraries compute for the models of cases.json.

    python -m venv .venv && .venv/bin/pip install -r tests/parity/witnesses/requirements.txt
    .venv/bin/python tests/parity/witnesses/record.py [MODEL...]      # default: all

For each model: goldens/MODEL.safetensors (see Golden.add, and derived.* [blocks, d]) and
goldens/MODEL.repeng.gguf, a control vector as repeng exports it. Random checkpoints are made by
bench/make-checkpoint.mjs, which needs Node.
"""

import importlib.metadata
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import llama_cpp_witness
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
    for witness in (steering_vectors_witness, repeng_witness):
        for name, rows in witness.derive(subject):
            golden.tensors[f"derived.{name}"] = rows
    record_run(subject, golden, "plain", subject.model)
    steering_vectors_witness.apply(subject, golden)
    repeng_witness.apply(subject, golden, vector_gguf)
    model_gguf = scratch / f"{spec['name']}.gguf"
    node("bench/peer/make-gguf.mjs", str(folder), "f32", str(model_gguf))
    llama_cpp_witness.apply(subject, golden, model_gguf, vector_gguf)
    file = HERE / "goldens" / f"{spec['name']}.safetensors"
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    golden.save(file, {"weights": subject.weights_digest(), **versions})
    print(f"{file.name}: {file.stat().st_size / 1024:.0f} KiB")


def main() -> None:
    cases = json.loads((HERE / "cases.json").read_text(encoding="utf-8"))
    wanted = sys.argv[1:] or [spec["name"] for spec in cases["models"]]
    unknown = set(wanted) - {spec["name"] for spec in cases["models"]}
    if unknown:
        sys.exit(f"no such model: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory() as scratch:
        for spec in cases["models"]:
            if spec["name"] in wanted:
                record(cases, spec, Path(scratch))


if __name__ == "__main__":
    main()
