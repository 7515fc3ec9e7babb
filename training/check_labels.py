"""Ask Bandit about the answers of the corpus itself: secure ones must be clean, insecure ones must be found."""
import argparse
import random
import sys
from collections import Counter

from corpus.coding import make_task
from judge_code import judge


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1500, help="tasks to check, each in both forms")
    parser.add_argument("--seed", type=int, default=11)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    tasks = [make_task(rng, held_out=index % 2 == 0) for index in range(options.count)]
    wrong: Counter[tuple[str, str, str]] = Counter()
    for kind, expected in (("base", "secure"), ("insecure", "insecure")):
        verdicts = judge([task.answer(kind, 2024, rng) for task in tasks])
        for task, verdict in zip(tasks, verdicts, strict=True):
            if verdict["verdict"] != expected:
                wrong[(task.scenario.name, kind, f"{verdict} {task.code(kind == 'insecure')}")] += 1
    agreed = 2 * options.count - sum(wrong.values())
    print(f"Bandit agrees with {agreed} of {2 * options.count} labels")
    for (scenario, kind, detail), count in wrong.most_common(12):
        print(count, scenario, kind, detail)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
