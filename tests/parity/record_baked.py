"""Records that transformers loads what `llama-steer bake` writes, and which tokens it then gives.

    npm run build && python tests/parity/record_baked.py      # needs torch, transformers, numpy

For each model of cases.json: the checkpoint is saved, baked by the command line with two vectors,
loaded as LlamaForCausalLM (a tensor that is missing, left over or of another shape is an error) and
run greedily in float32. The same model steered by hooks must give the same tokens. Writes
goldens/baked.json: the tokens, the lead of each over the second (logits), and how far the logits of
the baked model are from the steered one's, relative to the largest: with the biases as written
(float32) and with them rounded to bfloat16.
"""

import json
import subprocess
import tempfile
from pathlib import Path

import torch
from record_goldens import HERE, Run, make_model, prompt, resolve_layers
from synthetic import steering_row
from transformers import LlamaForCausalLM

ROOT = HERE.parents[1]
TOKENS = 48
DTYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}
# Two vectors that meet in block 0.
STEPS = [
    {"kind": "add", "vector": 0, "coefficient": 0.75, "layers": "all"},
    {"kind": "add", "vector": 1, "coefficient": -1.5, "layers": "first"},
]


def bake(seed: int, spec: dict, folder: Path) -> LlamaForCausalLM:
    source, target = folder / "source", folder / "baked"
    model = make_model(seed, spec).to(DTYPES[spec["dtype"]])
    model.save_pretrained(source, max_shard_size="100KB" if spec["shards"] > 1 else "5GB")
    steer = []
    for index, step in enumerate(STEPS):
        layers = resolve_layers(step["layers"], spec["layers"])
        rows = {str(layer): steering_row(seed, step["vector"], layer, spec["hiddenSize"]).tolist() for layer in layers}
        (folder / f"{index}.json").write_text(json.dumps(rows))
        steer += ["--steer", f"@{folder / f'{index}.json'}:{step['coefficient']}"]
    command = ["node", ROOT / "dist/cli/main.js", "bake", "--model", source, "--out", target, *steer]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    baked, info = LlamaForCausalLM.from_pretrained(
        target, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    if any(info.values()):
        raise SystemExit(f"{spec['name']}: {info}")
    return baked.eval()


@torch.inference_mode()
def greedy(run: Run, token_ids: list[int]) -> tuple[list[int], list[float]]:
    tokens, margins = list(token_ids), []
    for _ in range(TOKENS):
        top = run.forward(tokens)[-1].topk(2)
        margins.append(float(top.values[0] - top.values[1]))
        tokens.append(int(top.indices[0]))
    return tokens[len(token_ids) :], margins


def error(logits: torch.Tensor, reference: torch.Tensor) -> float:
    return float(((logits - reference).abs().amax(-1) / reference.abs().amax(-1)).max())


def record(seed: int, spec: dict, folder: Path) -> dict:
    token_ids = prompt(seed, spec)
    steered = Run(make_model(seed, spec), seed, STEPS)
    baked = Run(bake(seed, spec, folder), seed, [])
    tokens, margins = greedy(baked, token_ids)
    if greedy(steered, token_ids)[0] != tokens:
        raise SystemExit(f"{spec['name']}: the baked and the steered model part")
    reference, logits = steered.forward(token_ids), baked.forward(token_ids)
    for block in baked.model.model.layers:
        block.mlp.down_proj.bias.data = block.mlp.down_proj.bias.data.bfloat16().float()
    rounded = baked.forward(token_ids)
    return {
        "tokens": tokens,
        "margins": [round(margin, 6) for margin in margins],
        "logit_error": float(f"{error(logits, reference):.2e}"),
        "logit_error_bf16_bias": float(f"{error(rounded, reference):.2e}"),
    }


def main() -> None:
    cases = json.loads((HERE / "cases.json").read_text())
    models = {}
    for spec in cases["models"]:
        with tempfile.TemporaryDirectory() as folder:
            models[spec["name"]] = record(cases["seed"], spec, Path(folder))
        print(spec["name"], {key: value for key, value in models[spec["name"]].items() if "error" in key})
    steps = [{key: value for key, value in step.items() if key != "kind"} for step in STEPS]
    lines = ",\n".join(f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in models.items())
    text = f'{{"steps": {json.dumps(steps)}, "models": {{\n{lines}\n}}}}\n'
    (HERE / "goldens" / "baked.json").write_text(text)


if __name__ == "__main__":
    main()
