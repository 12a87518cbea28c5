"""The models of other libraries, each fitted on one split. ``peers.py`` runs this in an environment without torch.

    python peer_models.py NAME SEED SPLIT.npz RESULT.npz SETTINGS

SPLIT.npz holds the arrays ``train`` and ``test`` of (user, item, rating) rows, and the numbers of users and items.
RESULT.npz gets the seconds of the fit and either the vectors of ``users`` and ``items``, whose products rank, or the
predicted ``ratings`` of the test rows. SETTINGS is a JSON object of the model's arguments; the others are the library's
defaults, except for 32 factors.
"""

import json
import sys
import time
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FACTORS = 32


class Split(NamedTuple):
    """A training and a test set."""

    train: NDArray[np.float64]  # (n, 3) user, item, rating
    test: NDArray[np.float64]
    num_users: int
    num_items: int


def fit_ranker(name: str, seed: int, split: Split, settings: dict[str, Any]) -> dict[str, Any]:
    """Fit a model of implicit; return the seconds and the vectors of users and items."""
    import implicit
    import scipy.sparse

    users, items = split.train[:, :2].astype(int).T
    shape = (split.num_users, split.num_items)
    rated = scipy.sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape)
    kinds = {
        "implicit-als": implicit.als.AlternatingLeastSquares,
        "implicit-bpr": implicit.bpr.BayesianPersonalizedRanking,
    }
    model = kinds[name](**{"factors": FACTORS, **settings}, random_state=seed)
    started = time.perf_counter()
    model.fit(rated, show_progress=False)
    seconds = time.perf_counter() - started
    return {"seconds": seconds, "users": model.user_factors, "items": model.item_factors}


def fit_rater(name: str, seed: int, split: Split, settings: dict[str, Any]) -> dict[str, Any]:
    """Fit a model of Surprise; return the seconds and the predicted ratings of the test rows."""
    import pandas as pd
    import surprise

    frame = pd.DataFrame(split.train, columns=["user", "item", "rating"]).astype({"user": int, "item": int})
    reader = surprise.Reader(rating_scale=(frame["rating"].min(), frame["rating"].max()))
    train = surprise.Dataset.load_from_df(frame, reader).build_full_trainset()
    kinds = {"surprise-svd": surprise.SVD, "surprise-svdpp": surprise.SVDpp}
    model = kinds[name](**{"n_factors": FACTORS, **settings}, random_state=seed)
    started = time.perf_counter()
    model.fit(train)
    seconds = time.perf_counter() - started
    ratings = [model.predict(int(user), int(item)).est for user, item, _ in split.test]
    return {"seconds": seconds, "ratings": ratings}


if __name__ == "__main__":
    name, seed, split_path, result_path, settings = sys.argv[1:]
    with np.load(split_path) as file:
        split = Split(file["train"], file["test"], int(file["num_users"]), int(file["num_items"]))
    fit = fit_ranker if name.startswith("implicit") else fit_rater
    np.savez(result_path, **fit(name, int(seed), split, json.loads(settings)))
