"""Records directions of numpy and scikit-learn for derive.test.ts.

    python -m pip install numpy scikit-learn
    python record_goldens.py > goldens.json
"""

import json
import sys

import numpy as np
import sklearn
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression

CASES = [
    # pairs, width, length of the common difference, noise
    dict(name="few pairs, wide rows", pairs=9, width=40, common=3.0, noise=1.0),
    dict(name="many pairs, narrow rows", pairs=60, width=8, common=1.0, noise=1.0),
    dict(name="as many pairs as columns", pairs=12, width=12, common=0.5, noise=1.0),
    dict(name="long rows that overlap", pairs=30, width=24, common=20.0, noise=40.0),
    dict(name="a common difference far above the noise", pairs=10, width=16, common=500.0, noise=0.25),
    dict(name="two pairs", pairs=2, width=6, common=1.0, noise=1.0),
]


def majority(direction, differences):
    projections = differences @ direction
    votes = np.sign(projections).sum() or projections.sum()
    return -direction if votes < 0 else direction


def logistic(differences, **options):
    x = np.concatenate([differences / 2, -differences / 2])
    y = np.concatenate([np.ones(len(differences)), -np.ones(len(differences))])
    weights = LogisticRegression(fit_intercept=False, **options).fit(x, y).coef_[0]
    return weights / np.linalg.norm(weights)


def record(index, name, pairs, width, common, noise):
    random = np.random.default_rng(index)
    direction = random.normal(size=width)
    scales = np.linspace(0.2, 1.8, width)
    rows = common * direction / np.linalg.norm(direction) + noise * scales * random.normal(size=(pairs, width))
    differences = rows.astype(np.float32).astype(np.float64)
    uncentred = np.linalg.svd(np.concatenate([differences, -differences]), full_matrices=False)[2][0]
    centred = PCA(n_components=1, svd_solver="full").fit(differences).components_[0]
    return dict(
        name=name,
        width=width,
        differences=[[float(np.float32(v)) for v in row] for row in differences],
        pca_pairwise=majority(uncentred, differences).tolist(),
        pca_centered=majority(centred, differences).tolist(),
        logistic=logistic(differences, solver="newton-cholesky", tol=1e-12, max_iter=1000).tolist(),
        logistic_defaults=logistic(differences).tolist(),
    )


versions = dict(numpy=np.__version__, scikit_learn=sklearn.__version__)
cases = [record(index, **case) for index, case in enumerate(CASES)]
json.dump(dict(versions=versions, cases=cases), sys.stdout, separators=(",", ":"))
print()
