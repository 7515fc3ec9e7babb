"""Train the sentiment judge of studies: models/sentiment-judge/model.json, figures.json and README.md.

    python training/sentiment_judge.py

A logistic regression on words and pairs of words of the corpus' reviews, plus one feature that sums a lexicon (VADER's), so that
it knows words that no review of ours has. The lexicon's share is folded into the weights of its words: the judge is one table of
weights. src/study/judges/sentiment.ts computes the same score.
"""
import json
import math
import random
import re
from collections import Counter
from pathlib import Path

import numpy
import scipy.sparse
import sklearn
from sklearn.linear_model import LogisticRegression
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from corpus.reviews import THINGS, review

HERE = Path(__file__).parent
OUT = HERE.parent / "models" / "sentiment-judge"
GOLDENS = HERE.parent / "tests" / "unit" / "study" / "judges" / "sentiment-goldens.json"
SEED, REVIEWS, HELD_OUT_REVIEWS = 31, 4000, 1000
HELD_OUT_THINGS = ("cafe", "laptop", "museum", "game")  # no training review is about these
MIN_WORD_COUNT, MIN_PAIR_COUNT, REGULARISATION = 5, 40, 0.1
LEXICON_SCALE = 1 / 4  # VADER's valences reach from -4 to 4
DECIMALS = 4

TOKEN = re.compile(r"[a-z]+(?:'[a-z]+)?|[.!?;\n]")
NEGATIONS = ("cannot", "hardly", "neither", "never", "no", "nobody", "none", "nor", "not", "nothing", "without")
NEGATION_REACH_WORDS, NEGATED = 3, -0.74  # VADER's factor


def terms_of(text: str) -> tuple[Counter, int]:
    """Signed counts of words, counts of neighbouring pairs ("a b"), and the number of words."""
    terms: Counter = Counter()
    words, previous, since_negation = 0, "", NEGATION_REACH_WORDS + 1
    for token in TOKEN.findall(text.lower().replace("\u2019", "'")):
        if not token[0].isalpha():
            previous, since_negation = "", NEGATION_REACH_WORDS + 1
            continue
        words += 1
        since_negation += 1
        terms[token] += NEGATED if since_negation <= NEGATION_REACH_WORDS else 1
        if previous:
            terms[f"{previous} {token}"] += 1
        if token in NEGATIONS or token.endswith("n't"):
            since_negation = 0
        previous = token
    return terms, words


def score(model: dict, text: str) -> float:
    """-1 (negative) to 1 (positive); 0 for a text without a known term."""
    terms, words = terms_of(text)
    total = sum(value * model["weights"].get(term, 0) for term, value in terms.items())
    return math.tanh(total / math.sqrt(max(words, 1)) / 2)


def reviews(rng: random.Random, things: list[str], count: int) -> list[tuple[str, bool]]:
    made = []
    for _ in range(count):
        good = rng.random() < 0.5
        made.append((review(rng, good, rng.choice(things)), good))
    return made


def lexicon() -> dict[str, float]:
    return {word: valence * LEXICON_SCALE for word, valence in SentimentIntensityAnalyzer().lexicon.items()
            if re.fullmatch(r"[a-z]+(?:'[a-z]+)?", word)}


def train(labelled: list[tuple[str, bool]]) -> tuple[dict[str, float], dict]:
    """Weights by term, and what the lexicon's feature weighs."""
    known = lexicon()
    documents = [terms_of(text) for text, _ in labelled]
    counts: Counter = Counter(term for terms, _ in documents for term in terms)
    names = sorted(term for term, count in counts.items() if count >= (MIN_PAIR_COUNT if " " in term else MIN_WORD_COUNT))
    place = {name: column for column, name in enumerate(names)}
    rows, columns, values = [], [], []
    for row, (terms, words) in enumerate(documents):
        scale = 1 / math.sqrt(words)
        for term, value in terms.items():
            if term in place:
                rows.append(row), columns.append(place[term]), values.append(value * scale)
        rows.append(row), columns.append(len(names)), values.append(scale * sum(value * known.get(term, 0) for term, value in terms.items()))
    features = scipy.sparse.csr_matrix((values, (rows, columns)), shape=(len(documents), len(names) + 1))
    # No intercept: a text that says nothing scores 0.
    fitted = LogisticRegression(C=REGULARISATION, fit_intercept=False, max_iter=2000, tol=1e-8).fit(features, [good for _, good in labelled])
    own, share = fitted.coef_[0][:-1], float(fitted.coef_[0][-1])
    weights = {word: share * valence for word, valence in known.items()}
    for name, weight in zip(names, own, strict=True):
        weights[name] = weights.get(name, 0) + float(weight)
    rounded = {name: round(weight, DECIMALS) for name, weight in sorted(weights.items())}
    return {name: weight for name, weight in rounded.items() if weight}, {"lexicon_weight": round(share, 4), "corpus_terms": len(names)}


def accuracy(model: dict, labelled: list[tuple[str, bool]]) -> float:
    return round(100 * sum((score(model, text) > 0) == good and score(model, text) != 0 for text, good in labelled) / len(labelled), 1)


def labelled_answers() -> list[dict]:
    """Answers of SmolLM2, steered and not, each read and labelled: positive, negative or neither."""
    lines = (OUT / "labelled-reviews.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def figures_of(model: dict, held_out: list[tuple[str, bool]], about: dict) -> dict:
    answers = labelled_answers()
    decided = [(row["text"], row["label"] == "positive") for row in answers if row["label"] != "neither"]
    vader = SentimentIntensityAnalyzer()
    agree = sum((vader.polarity_scores(text)["compound"] > 0) == good for text, good in decided)
    means = {label: round(float(numpy.mean([score(model, row["text"]) for row in answers if row["label"] == label])), 3)
             for label in ("negative", "neither", "positive")}
    return {"seed": SEED, "training_reviews": REVIEWS, "terms": len(model["weights"]), **about,
            "held_out_reviews": len(held_out), "held_out_accuracy_percent": accuracy(model, held_out),
            "smollm2_answers": len(answers), "smollm2_labels": dict(Counter(row["label"] for row in answers)),
            "smollm2_accuracy_percent": accuracy(model, decided), "smollm2_mean_score": means,
            "vader_accuracy_on_the_same_percent": round(100 * agree / len(decided), 1),
            "smollm2_accuracy_by_label_percent": {
                label: accuracy(model, [(text, good) for text, good in decided if good == (label == "positive")]) for label in ("negative", "positive")},
            "libraries": {"scikit-learn": sklearn.__version__, "numpy": numpy.__version__}}


CARD = """# The sentiment judge

A table of weights that reads English and says how glad it is, from -1 to 1: what the judge `sentiment` of a study computes. It is a
logistic regression on words and pairs of neighbouring words; a word within {reach} words after a negation counts {negated} times. Score:
tanh(sum of weights / sqrt(words) / 2); 0 for a text without a known term. Made by `training/sentiment_judge.py`, seed {seed}; Apache-2.0. The weights
of words outside our corpus are those of VADER's lexicon (C.J. Hutto and E. Gilbert, MIT licence) times one fitted factor.

| measured on | texts | right sign |
| --- | --- | --- |
| reviews of the corpus' generator, about things that no training review is about ({things}) | {held_out_reviews} | {held_out_accuracy_percent}% |
| answers of SmolLM2-135M-Instruct to requests for reviews, labelled positive or negative | {decided} | {smollm2_accuracy_percent}% |
| the same, VADER itself | {decided} | {vader_accuracy_on_the_same_percent}% |

Trained on {training_reviews} generated reviews ({corpus_terms} of their words and pairs); {terms} terms in all. The generated reviews are easy: two lists of
words that never meet. The second line is the one to trust. Its {smollm2_answers} answers (`labelled-reviews.jsonl`) were sampled at temperature 0.8,
unsteered and under a sentiment vector at four coefficients, and labelled by reading, by one reader: {positive} positive, {negative} negative,
{neither} neither (no opinion, a mixed one, or text that fell apart). Right on {right_positive}% of the positive and {right_negative}% of the negative ones; mean
score {mean_positive}, {mean_negative}, and {mean_neither} on those that are neither.

Limits: English only; bag of words, so irony, comparison ("better than nothing") and reported opinion are lost; text that repeats a
glad word scores glad even where it has fallen apart, so read scores beside perplexity and repetition; labels of one reader; no tuning was
done on the labelled answers, and none of them is in the training data.
"""


def write_card(figures: dict) -> None:
    labels, means, right = figures["smollm2_labels"], figures["smollm2_mean_score"], figures["smollm2_accuracy_by_label_percent"]
    text = CARD.format(reach=NEGATION_REACH_WORDS, negated=NEGATED, things=", ".join(HELD_OUT_THINGS), decided=labels["positive"] + labels["negative"],
                       right_positive=right["positive"], right_negative=right["negative"], mean_positive=f"{means['positive']:+.2f}",
                       mean_negative=f"{means['negative']:+.2f}", mean_neither=f"{means['neither']:+.2f}", **figures, **labels)
    (OUT / "README.md").write_text(text, encoding="utf-8")


def main() -> None:
    rng = random.Random(SEED)
    things = [thing for thing in THINGS if thing not in HELD_OUT_THINGS]
    weights, about = train(reviews(rng, things, REVIEWS))
    model = {"negations": list(NEGATIONS), "negationReachWords": NEGATION_REACH_WORDS, "negated": NEGATED, "weights": weights}
    held_out = reviews(rng, list(HELD_OUT_THINGS), HELD_OUT_REVIEWS)
    figures = figures_of(model, held_out, about)
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "model.json").write_text(json.dumps(model, indent=0, ensure_ascii=True) + "\n", encoding="utf-8")
    (OUT / "figures.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    write_card(figures)
    odd = ["", "...", "NOT good", "Don\u2019t buy it. Good!", "I can't say it is not bad;\nnever great", "\u00c9t\u00e9 na\u00efve caf\u00e9 awful", "x" * 500]
    texts = odd + [text for text, _ in held_out[:60]] + [row["text"] for row in labelled_answers()]
    goldens = [{"text": text, "score": score(model, text)} for text in texts]
    GOLDENS.write_text(json.dumps(goldens, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
