"""Test metrics by the activity of users and by the popularity of items."""

from typing import Any

import pandas as pd
import torch
from torch import Tensor

from data import Interactions
from metrics import Scorer, mrr_score, mse_score, ranking_scores
from training.evaluation import OWN_UNIT
from training.scale import Scale

NAMES = ("least", "second", "third", "most")


class InStars:
    """A scorer whose predicted ratings are in the ratings' own unit, which ``scale`` gives."""

    def __init__(self, scorer: Scorer, scale: Scale) -> None:
        self.scorer, self.scale = scorer, scale

    def predict_ratings(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        return self.scale.from_units(self.scorer.predict_ratings(user_ids, item_ids), user_ids, item_ids)

    def predict_all_items(self, user_ids: Tensor) -> Tensor:
        return self.scorer.predict_all_items(user_ids)


def quartiles(
    scorer: Scorer, train: Interactions, test: Interactions, k: int = 10, scale: Scale | None = OWN_UNIT
) -> pd.DataFrame:
    """Compute the test metrics of each quarter of the users, by activity, and of the items, by popularity.

    Users and items are sorted by their number of training interactions, then by ID, and cut into four quarters whose
    sizes differ by at most one. The metrics of a quarter are those of its own test interactions, ranked among all
    items.

    Args:
        scorer: the network's.
        train, test: the sets of a split, with ratings in their own unit.
        k: number of items shown, for recall and hit rate.
        scale: the unit of the predicted ratings; None if the network was trained without ratings.

    Returns:
        Eight rows: of ("users", "items"); quarter ("least" to "most"); ratings, the range of their numbers of training
        interactions, as "0–12"; number, of users or items; test_ratings; then MRR, recall@k, hit_rate@k and MSE (if
        there is a scale), NaN in a quarter without test interactions or ratings.
    """
    rater = None if scale is None else InStars(scorer, scale)
    rows = []
    for kind in ("users", "items"):
        ids, count = (train.user_ids, train.num_users) if kind == "users" else (train.item_ids, train.num_items)
        test_ids = test.user_ids if kind == "users" else test.item_ids
        rated = torch.bincount(ids, minlength=count)
        for name, quarter in zip(NAMES, torch.tensor_split(torch.argsort(rated, stable=True), 4), strict=True):
            own = test.select(torch.isin(test_ids, quarter).nonzero().squeeze(1))
            row: dict[str, Any] = {"of": kind, "quarter": name, "ratings": _range(rated[quarter])}
            row |= {"number": len(quarter), "test_ratings": len(own)} | _ranking(scorer, train, own, k)
            rows.append(row if rater is None else row | {"MSE": _mse(rater, own)})
    return pd.DataFrame(rows)


def _ranking(scorer: Scorer, train: Interactions, test: Interactions, k: int) -> dict[str, float]:
    names = ("MRR", f"recall@{k}", f"hit_rate@{k}")
    if len(test) == 0:
        return dict.fromkeys(names, float("nan"))
    shown = ranking_scores(scorer, test, train, k)
    return dict(zip(names, (mrr_score(scorer, test, train), shown.recall, shown.hit_rate), strict=True))


def _mse(rater: Scorer, test: Interactions) -> float:
    rated = test.select(test.rated)
    return mse_score(rater, rated) if len(rated) else float("nan")


def _range(counts: Tensor) -> str:
    return f"{int(counts.min())}–{int(counts.max())}" if len(counts) else ""
