"""Test metrics by the activity of users and by the popularity of items."""

import pandas as pd
import torch
from torch import Tensor, nn

from data import Interactions
from metrics import Scorer, mrr_score, mse_score, ranking_scores

NAMES = ("least", "second", "third", "most")


def quartiles(model: Scorer | nn.Module, train: Interactions, test: Interactions, k: int = 10) -> pd.DataFrame:
    """Compute the test metrics of each quarter of the users, by activity, and of the items, by popularity.

    Users and items are sorted by their number of training ratings, then by ID, and cut into four quarters whose sizes
    differ by at most one. The metrics of a quarter are those of its own test ratings, ranked among all items.

    Args:
        model: a scorer or a network.
        train, test: the sets of a split.
        k: number of items shown, for recall and hit rate.

    Returns:
        Eight rows: of ("users", "items"); quarter ("least" to "most"); ratings, the range of their numbers of training
        ratings, as "0–12"; number, of users or items; test_ratings; then MRR, recall@k, hit_rate@k and MSE, NaN in a
        quarter without test ratings.
    """
    rows = []
    for kind in ("users", "items"):
        ids, count = (train.user_ids, train.num_users) if kind == "users" else (train.item_ids, train.num_items)
        test_ids = test.user_ids if kind == "users" else test.item_ids
        rated = torch.bincount(ids, minlength=count)
        for name, quarter in zip(NAMES, torch.tensor_split(torch.argsort(rated, stable=True), 4), strict=True):
            own = test.select(torch.isin(test_ids, quarter).nonzero().squeeze(1))
            row = {"of": kind, "quarter": name, "ratings": _range(rated[quarter]), "number": len(quarter)}
            rows.append({**row, "test_ratings": len(own), **_metrics(model, train, own, k)})
    return pd.DataFrame(rows)


def _metrics(model: Scorer | nn.Module, train: Interactions, test: Interactions, k: int) -> dict[str, float]:
    names = ("MRR", f"recall@{k}", f"hit_rate@{k}", "MSE")
    if len(test) == 0:
        return dict.fromkeys(names, float("nan"))
    shown = ranking_scores(model, test, train, k)
    values = mrr_score(model, test, train), shown.recall, shown.hit_rate, mse_score(model, test)
    return dict(zip(names, values, strict=True))


def _range(counts: Tensor) -> str:
    return f"{int(counts.min())}–{int(counts.max())}" if len(counts) else ""
