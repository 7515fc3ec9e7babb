"""Records what PEFT computes for random LoRA adapters on models of ../cases.json, and the adapters
as PEFT saves them.

    python tests/parity/adapters/record_adapters.py    # needs torch, transformers, peft, numpy

Writes <case>/adapter_config.json, <case>/adapter_model.safetensors and goldens/<case>.safetensors:
    logprobs         [rows, V]  log-softmax under the adapter, float32
    logprobs.merged  [rows, V]  after merge_and_unload() in the checkpoint's own type
    greedy, greedy_margin  [tokens]  as in ../record_goldens.py, under the adapter
"""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.numpy import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from record_goldens import make_model  # noqa: E402
from synthetic import amplitude, prompt, uniform  # noqa: E402

ROWS = 8
GREEDY_TOKENS = 12
TYPES = {"bf16": torch.bfloat16, "f16": torch.float16, "f32": torch.float32}


def fill(model: PeftModel, seed: int, case: str) -> None:
    """Both factors: PEFT starts B at zero."""
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_" not in name:
                continue
            made = uniform(seed, f"{case}/{name}", tuple(value.shape), "bf16")
            value.copy_(torch.from_numpy(made * np.float32(amplitude(value.shape[1]))))


def logits(model, token_ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        return model(torch.tensor([token_ids]), use_cache=False).logits[0].float()


def greedy(model, token_ids: list[int]) -> tuple[np.ndarray, np.ndarray]:
    tokens, margins = list(token_ids), []
    for _ in range(GREEDY_TOKENS):
        top = logits(model, tokens)[-1].topk(2)
        margins.append(float(top.values[0] - top.values[1]))
        tokens.append(int(top.indices[0]))
    return np.array(tokens[len(token_ids) :], np.float32), np.array(margins, np.float32)


def logprobs(model, token_ids: list[int]) -> np.ndarray:
    values = logits(model, token_ids).double().log_softmax(-1)[-ROWS:]
    return np.ascontiguousarray(values.numpy(), np.float32)


def merged(model: PeftModel, blank: torch.nn.Module) -> torch.nn.Module:
    """Merged in the type of its weights, which `blank` takes over to compute in float32. (The
    model itself, converted back, would keep rotary frequencies that were rounded too.)"""
    blank.load_state_dict(model.merge_and_unload().state_dict())
    return blank.eval()


def record(case: dict, spec: dict, seed: int) -> None:
    config = LoraConfig(task_type="CAUSAL_LM", bias="none", lora_dropout=0.0, **case["lora"])
    model = get_peft_model(make_model(seed, spec), config).eval()
    fill(model, seed, case["name"])
    folder = HERE / case["name"]
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    # PEFT writes a set, in an order of its own each time.
    file = folder / "adapter_config.json"
    saved = json.loads(file.read_text())
    saved["target_modules"] = sorted(saved["target_modules"])
    file.write_text(json.dumps(saved, indent=2, sort_keys=True) + "\n")
    token_ids = prompt(seed, spec)
    out = {"logprobs": logprobs(model, token_ids)}
    out["greedy"], out["greedy_margin"] = greedy(model, token_ids)
    base = make_model(seed, spec).to(TYPES[spec["dtype"]])
    both = merged(PeftModel.from_pretrained(base, folder), make_model(seed, spec))
    out["logprobs.merged"] = logprobs(both, token_ids)
    save_file(out, HERE / "goldens" / f"{case['name']}.safetensors")
    size = (folder / "adapter_model.safetensors").stat().st_size
    print(f"{case['name']}: adapter of {size / 1024:.0f} KiB")


def main() -> None:
    torch.manual_seed(0)
    (HERE / "goldens").mkdir(exist_ok=True)
    models = json.loads((HERE.parent / "cases.json").read_text())
    specs = {spec["name"]: spec for spec in models["models"]}
    for case in json.loads((HERE / "cases.json").read_text()):
        shutil.rmtree(HERE / case["name"], ignore_errors=True)
        record(case, specs[case["model"]], models["seed"])


if __name__ == "__main__":
    main()
