"""For whom a network works: its test metrics by how much users rated, and by how often items were rated."""

import pandas as pd
import torch
from torch import Tensor, nn

from data import Interactions
from metrics import Recommender, mrr_score, mse_score, ranking_scores

NAMES = ("least", "second", "third", "most")


def quartiles(model: Recommender | nn.Module, train: Interactions, test: Interactions, k: int = 10) -> pd.DataFrame:
    """The test metrics of each quarter of the users, by activity, and of the items, by popularity.

    Users and items are sorted by their number of training ratings, those with as many by their id, and cut into four
    quarters of the same size up to one. A quarter's metrics are those of its own test ratings, ranked among all items.

    Args:
        model: a recommender, or a network.
        train, test: the sides of the ratings.
        k: for recall and hit rate.

    Returns:
        Eight rows: of ("users", "items"); quarter ("least" to "most"); ratings, the range of training ratings of each,
        as "0–12"; number, of users or items; test_ratings; then MRR, recall@k, hit_rate@k and MSE, NaN in a quarter
        without test ratings.
    """
    rows = []
    for kind in ("users", "items"):
        ids, count = (train.user_ids, train.num_users) if kind == "users" else (train.item_ids, train.num_items)
        own = test.user_ids if kind == "users" else test.item_ids
        rated = torch.bincount(ids, minlength=count)
        for name, quarter in zip(NAMES, torch.tensor_split(torch.argsort(rated, stable=True), 4), strict=True):
            side = test.select(torch.isin(own, quarter).nonzero().squeeze(1))
            about = {"of": kind, "quarter": name, "ratings": _range(rated[quarter]), "number": len(quarter)}
            rows.append({**about, "test_ratings": len(side), **_scores(model, train, side, k)})
    return pd.DataFrame(rows)


def _scores(model: Recommender | nn.Module, train: Interactions, side: Interactions, k: int) -> dict[str, float]:
    names = ("MRR", f"recall@{k}", f"hit_rate@{k}", "MSE")
    if len(side) == 0:
        return dict.fromkeys(names, float("nan"))
    shown = ranking_scores(model, side, train, k)
    scores = mrr_score(model, side, train), shown.recall, shown.hit_rate, mse_score(model, side)
    return dict(zip(names, scores, strict=True))


def _range(counts: Tensor) -> str:
    return f"{int(counts.min())}–{int(counts.max())}" if len(counts) else ""
