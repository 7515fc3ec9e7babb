"""Records tests/unit/study/statistics/goldens.json with SciPy and statsmodels.

    pip install numpy==2.4.6 scipy==1.17.1 statsmodels==0.15.0
    python tests/unit/study/statistics/record_statistics.py
"""
import json
import random
from pathlib import Path

import numpy
import scipy
import statsmodels
from scipy.stats import binom, gmean, mannwhitneyu, permutation_test
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

SEED = 4


def wilson(count: int, total: int) -> dict:
    low, high = proportion_confint(count, total, alpha=0.05, method="wilson")
    return {"count": count, "total": total, "low": low, "high": high}


def paired(here: int, there: int) -> dict:
    exact = mcnemar([[50, here], [there, 50]], exact=True).pvalue if here + there else 1.0
    least, total = min(here, there), here + there
    mid = 2 * binom.cdf(least, total, 0.5) - binom.pmf(least, total, 0.5)
    return {"here": here, "there": there, "exact": float(exact), "midP": float(mid)}


def holm(values: list[float]) -> dict:
    return {"p": values, "adjusted": multipletests(values, method="holm")[1].tolist()}


def flipped(differences: list[float]) -> dict:
    """Exact: every pattern of signs."""
    result = permutation_test((numpy.array(differences),), numpy.sum, permutation_type="samples", n_resamples=numpy.inf)
    return {"differences": differences, "p": float(result.pvalue)}


def area(positives: list[float], negatives: list[float]) -> dict:
    statistic = mannwhitneyu(positives, negatives, method="asymptotic").statistic
    return {"positives": positives, "negatives": negatives, "auroc": float(statistic / len(positives) / len(negatives))}


class Sfc32:
    """The generator of src/study/statistics/random.ts, so that both draw the same tasks."""

    def __init__(self, seed: int) -> None:
        self.a, self.b, self.c, self.counter = seed, 0, 0, 1
        for _ in range(12):
            self.next()

    def next(self) -> int:
        mask = 0xFFFFFFFF
        result = (self.a + self.b + self.counter) & mask
        self.counter = (self.counter + 1) & mask
        self.a = self.b ^ (self.b >> 9)
        self.b = (self.c + (self.c << 3)) & mask
        self.c = ((((self.c << 21) | (self.c >> 11)) & mask) + result) & mask
        return result

    def draws(self, count: int) -> list[int]:
        return [int(self.next() / 2**32 * count) for _ in range(count)]


def bootstrapped(sums: list[float], sizes: list[int], seed: int, resamples: int) -> dict:
    generator, values = Sfc32(seed), []
    for _ in range(resamples):
        drawn = generator.draws(len(sums))
        values.append(numpy.array(sums)[drawn].sum() / numpy.array(sizes)[drawn].sum())
    low, high = numpy.percentile(values, [2.5, 97.5])
    return {"sums": sums, "sizes": sizes, "seed": seed, "resamples": resamples, "low": float(low), "high": float(high)}


def crossed(sums: list[float], baselines: list[list[float]], seed: int, resamples: int) -> dict:
    """Tasks drawn, and baselines from the next seed; one pair a task."""
    generator, others, values = Sfc32(seed), Sfc32(seed + 1), []
    for _ in range(resamples):
        tasks, columns = generator.draws(len(sums)), others.draws(len(baselines[0]))
        values.append(numpy.array(sums)[tasks].mean() - numpy.array(baselines)[tasks][:, columns].mean())
    low, high = numpy.percentile(values, [2.5, 97.5])
    return {"sums": sums, "baselines": baselines, "seed": seed, "resamples": resamples, "low": float(low), "high": float(high)}


def main() -> None:
    rng = random.Random(SEED)
    normal = [[round(rng.gauss(0.3, 1), 3) for _ in range(size)] for size in (5, 9, 12)]
    scores = [[round(rng.gauss(mean, 1), 1) for _ in range(size)] for mean, size in ((0.9, 40), (0.0, 55), (0.0, 7), (0.2, 7))]
    perplexities = [round(rng.lognormvariate(1, 0.7), 4) for _ in range(30)]
    goldens = {
        "madeWith": {"numpy": numpy.__version__, "scipy": scipy.__version__, "statsmodels": statsmodels.__version__},
        "wilson": [wilson(*case) for case in ((0, 200), (200, 200), (1, 200), (97, 200), (3, 7), (199, 200), (1, 1), (731, 1200))],
        "mcnemar": [paired(*case) for case in ((0, 0), (0, 1), (5, 5), (0, 12), (3, 17), (60, 21), (180, 2), (200, 170), (40, 39), (0, 400))],
        "holm": [holm([0.01, 0.04, 0.03, 0.005]), holm([0.5]), holm([0.2, 0.9, 0.9, 0.01, 0.01]), holm([10.0**-n for n in range(12)])],
        "signFlip": [flipped(values) for values in (*normal, [1.0, 1.0, 1.0, -1.0, 1.0, 1.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0])],
        "auroc": [area(scores[0], scores[1]), area(scores[2], scores[3]), area([1.0, 2.0, 2.0], [2.0, 0.0]), area([0.0, 1.0], [2.0, 3.0])],
        "geometricMean": {"values": perplexities, "mean": float(gmean(perplexities)), "median": float(numpy.median(perplexities))},
        "bootstrap": [bootstrapped([rng.choice((-1, 0, 0, 1)) for _ in range(60)], [1] * 60, 7, 2000),
                      bootstrapped([round(rng.gauss(0, 2), 3) for _ in range(25)], [rng.choice((1, 2, 3)) for _ in range(25)], 11, 2500)],
        "crossed": [crossed([rng.choice((0, 1)) for _ in range(40)], [[rng.choice((0, 0, 1)) for _ in range(5)] for _ in range(40)], 3, 2000)],
    }
    path = Path(__file__).with_name("goldens.json")
    path.write_text(json.dumps(goldens, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
