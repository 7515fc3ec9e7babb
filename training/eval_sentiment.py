"""Sentiment steering: the mean-difference vector of the pairs against an outside lexicon judge (VADER)."""
import math
import random

import torch
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from corpus.reviews import THINGS, ask, review
from generate import chat_ids, generate, mean_difference, steered

ANALYZER = SentimentIntensityAnalyzer()


def score(text: str) -> float:
    """VADER's compound score, -1 (negative) to 1 (positive)."""
    return ANALYZER.polarity_scores(text)["compound"]


def judge_accuracy(count: int = 1000, seed: int = 77) -> float:
    """Share of labelled reviews on which the sign of the judge agrees with the label; a score of 0 counts as wrong."""
    rng, right = random.Random(seed), 0
    for _ in range(count):
        good = rng.random() < 0.5
        value = score(review(rng, good, rng.choice(tuple(THINGS))))
        right += (value > 0) if good else (value < 0)
    return round(100 * right / count, 1)


@torch.inference_mode()
def perplexity_of(model, tokenizer, prompts: list[list[int]], answers: list[str]) -> float:
    """Perplexity of the answers under the unsteered model: how far steering left its language."""
    nats, tokens = 0.0, 0
    where = next(model.parameters()).device
    for prompt, answer in zip(prompts, answers, strict=True):
        tail = tokenizer(answer, add_special_tokens=False)["input_ids"]
        if not tail:
            continue
        logits = model(torch.tensor([prompt + tail], device=where)).logits[0, len(prompt) - 1:-1].float()
        nats += float(torch.nn.functional.cross_entropy(logits, torch.tensor(tail, device=where), reduction="sum"))
        tokens += len(tail)
    return round(math.exp(nats / max(tokens, 1)), 2)


def requests(draws: int, seed: int) -> list[str]:
    """`draws` held-out requests for a review of every thing, which leave the sentiment open."""
    rng = random.Random(seed)
    return [ask(rng, thing, None, held_out=True) for thing in THINGS for _ in range(draws)]


def rising_run(values: list[float]) -> tuple[int, int]:
    """First and last index of the longest run in which every value is above the one before it."""
    best, start = (0, 0), 0
    for index in range(1, len(values) + 1):
        if index == len(values) or values[index] <= values[index - 1]:
            best = max(best, (start, index - 1), key=lambda run: run[1] - run[0])
            start = index
    return best


def evaluate_sentiment(model, tokenizer, pairs: list[dict], layer: int, token: str, coefficients: list[float], draws: int, seed: int, batch: int) -> dict:
    """Sampled answers (temperature 0.8) to held-out requests for reviews at every coefficient."""
    vector = mean_difference(model, tokenizer, pairs, layer, token)
    prompts = [chat_ids(tokenizer, [{"role": "user", "content": text}]) for text in requests(draws, seed)]
    rows = []
    for coefficient in coefficients:
        with steered(model, layer, vector, coefficient):
            answers = generate(model, tokenizer, prompts, 64, temperature=0.8, seed=seed, batch=batch)
        scores = [score(answer) for answer in answers]
        mean = sum(scores) / len(scores)
        spread = math.sqrt(sum((value - mean) ** 2 for value in scores) / (len(scores) - 1) / len(scores))
        rows.append({"coefficient": coefficient, "mean_score": round(mean, 3), "standard_error": round(spread, 3),
                     "positive_percent": round(100 * sum(value > 0 for value in scores) / len(scores), 1),
                     "perplexity_unsteered": perplexity_of(model, tokenizer, prompts, answers),
                     "examples": answers[:2]})
        print(rows[-1], flush=True)
    first, last = rising_run([row["mean_score"] for row in rows])
    return {"layer": layer, "token": token, "vector_norm": round(float(vector.norm()), 3), "prompts": len(prompts), "judge": "VADER compound score",
            "judge_accuracy_percent": judge_accuracy(), "rising": {"from": coefficients[first], "to": coefficients[last], "coefficients": last - first + 1}, "rows": rows}


def plot(figures: dict, path) -> None:
    """Mean judged sentiment against the coefficient, with standard errors."""
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = figures["rows"]
    figure, axes = plt.subplots(figsize=(6, 3.4))
    axes.errorbar([r["coefficient"] for r in rows], [r["mean_score"] for r in rows], yerr=[1.96 * r["standard_error"] for r in rows], marker="o", capsize=3)
    axes.axhline(0, color="gray", linewidth=0.6)
    axes.set(xlabel=f"coefficient of the sentiment vector, block {figures['layer']}", ylabel="mean judged sentiment", ylim=(-1, 1))
    figure.tight_layout()
    figure.savefig(path, dpi=110)
