"""The peers of ``peers.py``, each fitted on one split. Runs in their own environment, which has no torch.

    python peer_models.py NAME SEED SPLIT.npz RESULT.npz SETTINGS.json

The split holds ``train`` and ``test`` arrays of (user, item, rating) rows and the two counts. The result holds the
seconds that fitting took, a (users, items) matrix of scores to rank by, and, from the peers that predict ratings,
the predicted rating of each test row. What the settings do not say is the library's own default, but for 32 factors;
``"ranks": false`` among them leaves the matrix out.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

FACTORS = 32


class Split(NamedTuple):
    train: NDArray[np.float64]  # (n, 3) user, item, rating
    test: NDArray[np.float64]
    num_users: int
    num_items: int


class Fitted(NamedTuple):
    seconds: float
    scores: NDArray[np.float32]  # (users, items)
    ratings: NDArray[np.float64] | None  # (test rows,)


def implicit_model(name: str, seed: int, split: Split, settings: dict[str, Any]) -> Fitted:
    import implicit
    import scipy.sparse

    users, items = split.train[:, :2].astype(int).T
    shape = (split.num_users, split.num_items)
    watched = scipy.sparse.csr_matrix((np.ones(len(users), np.float32), (users, items)), shape)
    if name == "implicit-bpr":
        model = implicit.bpr.BayesianPersonalizedRanking(**{"factors": FACTORS, **settings}, random_state=seed)
    else:
        model = implicit.als.AlternatingLeastSquares(**{"factors": FACTORS, **settings}, random_state=seed)
    started = time.perf_counter()
    model.fit(watched, show_progress=False)
    seconds = time.perf_counter() - started
    return Fitted(seconds, (model.user_factors @ model.item_factors.T).astype(np.float32), None)


def surprise_model(name: str, seed: int, split: Split, settings: dict[str, Any]) -> Fitted:
    import pandas as pd
    import surprise

    frame = pd.DataFrame(split.train, columns=["user", "item", "rating"]).astype({"user": int, "item": int})
    reader = surprise.Reader(rating_scale=(1, 5))
    train = surprise.Dataset.load_from_df(frame, reader).build_full_trainset()
    kind = surprise.SVD if name == "surprise-svd" else surprise.SVDpp
    ranks = settings.pop("ranks", True)
    model = kind(**{"n_factors": FACTORS, **settings}, random_state=seed)
    started = time.perf_counter()
    model.fit(train)
    seconds = time.perf_counter() - started
    if not ranks:
        ratings = [model.predict(int(user), int(item)).est for user, item, _ in split.test]
        return Fitted(seconds, np.empty((0, 0), np.float32), np.array(ratings))
    scores = np.array(
        [
            [model.predict(user, item, clip=False).est for item in range(split.num_items)]
            for user in range(split.num_users)
        ],
        np.float32,
    )
    users, items = split.test[:, :2].astype(int).T
    return Fitted(seconds, scores, scores[users, items].clip(1, 5).astype(np.float64))


def cornac_model(name: str, seed: int, split: Split, settings: dict[str, Any]) -> Fitted:
    import cornac

    rows = [(str(int(user)), str(int(item)), float(rating)) for user, item, rating in split.train]
    train = cornac.data.Dataset.from_uir(rows, seed=seed)
    model = cornac.models.BPR(**{"k": FACTORS, **settings}, seed=seed, verbose=False)
    started = time.perf_counter()
    model.fit(train)
    seconds = time.perf_counter() - started
    scores = np.full((split.num_users, split.num_items), -np.inf, np.float32)  # items never met come last
    items = [train.iid_map.get(str(item), -1) for item in range(split.num_items)]
    known = np.array([item >= 0 for item in items])
    for user in range(split.num_users):
        if str(user) in train.uid_map:
            scores[user, known] = model.score(train.uid_map[str(user)])[[item for item in items if item >= 0]]
    return Fitted(seconds, scores, None)


PEERS: dict[str, Callable[[str, int, Split, dict[str, Any]], Fitted]] = {
    "implicit-bpr": implicit_model,
    "implicit-als": implicit_model,
    "cornac-bpr": cornac_model,
    "surprise-svd": surprise_model,
    "surprise-svdpp": surprise_model,
}


if __name__ == "__main__":
    name, seed, split_path, result_path, settings = sys.argv[1:]
    with np.load(split_path) as file:
        split = Split(file["train"], file["test"], int(file["num_users"]), int(file["num_items"]))
    fitted = PEERS[name](name, int(seed), split, json.loads(settings))
    ratings = np.empty(0) if fitted.ratings is None else fitted.ratings
    np.savez(result_path, seconds=fitted.seconds, scores=fitted.scores, ratings=ratings)
