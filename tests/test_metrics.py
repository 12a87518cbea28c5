"""metrics.py compared with plain float64 loops over users and items."""

import math
import re
from collections.abc import Callable, Iterable

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import metrics
from data import Interactions, synthetic
from models import MultiTaskNet


class Table:
    """A scorer with given scores: a row per user for ranking, and the same values as ratings."""

    def __init__(self, scores: torch.Tensor) -> None:
        self.scores = scores

    def predict_all_items(self, user_ids: torch.Tensor) -> torch.Tensor:
        return self.scores[user_ids].clone()

    def predict_ratings(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        return self.scores[user_ids, item_ids]


def interactions(pairs: list[tuple[int, int]], num_users: int, num_items: int) -> Interactions:
    users, items = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2).unbind(1)
    return Interactions(users, items, torch.ones(len(pairs)), num_users, num_items)


def items_of(user: int, log: Interactions | None) -> list[int]:
    return [] if log is None else log.item_ids[log.user_ids == user].tolist()


def plain_ranks(scores: torch.Tensor, user: int, train: Interactions | None) -> list[float]:
    """Rank all items for a user by counting over Python floats, with the training items last."""
    row = [float(x) for x in scores[user].double()]
    for item in items_of(user, train):
        row[item] = float("-inf")
    return [sum(x > own for x in row) + (sum(x == own for x in row) + 1) / 2 for own in row]


def plain_mrr(scores: torch.Tensor, test: Interactions, train: Interactions | None, users: Iterable[int]) -> float:
    """Average 1 / rank over the test items of each user, then over the users with test items."""
    means: list[float] = []
    for user in users:
        ranks = plain_ranks(scores, user, train)
        if items := items_of(user, test):
            means.append(sum(1 / ranks[item] for item in items) / len(items))
    return sum(means) / len(means)


def plain_ranking(
    scores: torch.Tensor, test: Interactions, train: Interactions | None, k: int, users: Iterable[int]
) -> list[float]:
    """Compute the metrics of each user with test items, and coverage, by the definitions."""
    recalls: list[float] = []
    ndcgs: list[float] = []
    hit_rates: list[float] = []
    precisions: list[float] = []
    average_precisions: list[float] = []
    shown: set[int] = set()
    for user in users:
        items = items_of(user, test)
        if not items:
            continue
        ranks = plain_ranks(scores, user, train)
        shown |= {item for item, rank in enumerate(ranks) if rank <= k} - set(items_of(user, train))
        hits = [ranks[item] for item in items if ranks[item] <= k]
        ideal = sum(1 / math.log2(1 + place) for place in range(1, min(k, len(items)) + 1))
        recalls.append(len(hits) / len(items))
        ndcgs.append(sum(1 / math.log2(1 + rank) for rank in hits) / ideal)
        hit_rates.append(float(bool(hits)))
        precisions.append(len(hits) / k)
        own = [ranks[item] for item in items]
        among = [sum(x < rank for x in own) + (sum(x == rank for x in own) + 1) / 2 for rank in hits]
        at_hits = [place / rank for place, rank in zip(among, hits, strict=True)]
        average_precisions.append(sum(at_hits) / min(len(items), k))
    means = [sum(each) / len(each) for each in (recalls, ndcgs, hit_rates, precisions, average_precisions)]
    return [*means[:3], len(shown) / test.num_items, *means[3:]]


def test_ranking_scores_by_hand() -> None:
    scores = torch.tensor([[4.0, 3.0, 2.0, 1.0, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0], [0.0, 0.0, 0.0, 0.0, 0.0]])
    test = interactions([(0, 1), (0, 3), (1, 4)], 3, 5)
    # User 0 is shown items 0 and 1, user 1 items 4 and 3; user 2 has no test item.
    got = metrics.ranking_scores(Table(scores), test, k=2)
    ndcg = ((1 / math.log2(3)) / (1 + 1 / math.log2(3)) + 1) / 2
    average_precision = ((1 / 2) / 2 + 1 / 1) / 2
    assert got == pytest.approx(((1 / 2 + 1) / 2, ndcg, 1.0, 4 / 5, 1 / 2, average_precision))
    # With item 0 seen by user 0 they are shown 1 and 2, and with 4 seen by user 1 those are 3 and 2.
    train = interactions([(0, 0), (1, 4)], 3, 5)
    got = metrics.ranking_scores(Table(scores), test, train, k=2)
    assert got == pytest.approx((1 / 4, 1 / (1 + 1 / math.log2(3)) / 2, 1 / 2, 3 / 5, 1 / 4, 1 / 4))


def test_map_by_hand() -> None:
    """The example of Spark's documentation: four test items at ranks 1, 4, 5 and 10, and one that is not shown."""
    scores = -torch.arange(12.0).unsqueeze(0)
    test = interactions([(0, 0), (0, 3), (0, 4), (0, 9), (0, 11)], 1, 12)
    at = metrics.ranking_scores(Table(scores), test, None, (3, 10, 12))
    assert [at[k].map for k in at] == pytest.approx(
        [1 / 3, (1 + 2 / 4 + 3 / 5 + 4 / 10) / 5, (1 + 2 / 4 + 3 / 5 + 4 / 10 + 5 / 12) / 5]
    )
    assert [at[k].precision for k in at] == pytest.approx([1 / 3, 4 / 10, 5 / 12])
    # The best ranking has a MAP of 1 at any k, and so has one whose first items are all test items with equal scores.
    equal = torch.tensor([[5.0, 5.0, 5.0, 5.0, 0.0]])
    own = interactions([(0, 0), (0, 1), (0, 2), (0, 3)], 1, 5)
    assert metrics.ranking_scores(Table(equal), own, k=4).map == pytest.approx(1)


def test_ranking_scores_are_nan_for_ranked_users_alone_and_check_their_arguments() -> None:
    scores = torch.zeros(2, 3)
    scores[1, 2] = torch.nan
    table, one, other = Table(scores), interactions([(0, 0)], 2, 3), interactions([(1, 2)], 2, 3)
    assert all(map(math.isnan, metrics.ranking_scores(table, other)))
    assert math.isnan(metrics.mrr_score(table, other))
    assert math.isnan(metrics.mse_score(table, other))
    assert metrics.ranking_scores(table, one, k=2).recall == 1
    assert metrics.mrr_score(table, one) == 1 / 2
    for k in (0, [10, -1], []):
        with pytest.raises(ValueError, match=re.escape(f"k is {k}: expected at least 1")):
            metrics.ranking_scores(table, one, None, k)
    with pytest.raises(ValueError, match="the test set has 2 users and 3 items, but the training set has 1 and 3"):
        metrics.mrr_score(table, one, interactions([(0, 0)], 1, 3))


@pytest.mark.parametrize(
    "score",
    [metrics.mrr_score, metrics.mse_score, metrics.rmse_score, metrics.mae_score, metrics.ranking_scores],
)
def test_an_empty_test_set_is_refused(score: Callable[[Table, Interactions], object]) -> None:
    with pytest.raises(ValueError, match="no test ratings"):
        score(Table(torch.zeros(2, 3)), interactions([], 2, 3))


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("block", [1, 50, metrics.BLOCK_SCORES])
def test_the_ranking_metrics_equal_the_plain_loops(seed: int, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cases of any shape: ties, repeated pairs, users without test items, test items seen in training.

    The metrics are those of all users, and of some users in any order.
    """
    monkeypatch.setattr(metrics, "BLOCK_SCORES", block)
    monkeypatch.setattr(metrics, "BLOCK_ROWS", 1)
    generator = torch.Generator().manual_seed(seed)

    def draw(high: int, *shape: int) -> torch.Tensor:
        return torch.randint(high, shape, generator=generator)

    num_users, num_items = int(draw(9, 1)) + 1, int(draw(12, 1)) + 1
    levels = int(draw(6, 1)) + 1  # 1: every score is the same
    scores = draw(levels, num_users, num_items).float() - 2
    test, known = (
        Interactions(draw(num_users, size), draw(num_items, size), torch.ones(size), num_users, num_items)
        for size in (int(draw(15, 1)) + 1, int(draw(30, 1)))
    )
    order = torch.randperm(num_users, generator=generator)
    some = torch.cat([test.user_ids[:1], order[order != test.user_ids[0]][: int(draw(num_users, 1))]])
    for train in (known, None):
        for users in (None, some):
            ids = range(num_users) if users is None else users.tolist()
            found = metrics.mrr_score(Table(scores), test, train, users)
            assert found == pytest.approx(plain_mrr(scores, test, train, ids), rel=1e-5)
            several = metrics.ranking_scores(Table(scores), test, train, (20, 1, 2, 5), users)
            assert list(several) == [20, 1, 2, 5]
            for k, found_at in several.items():
                assert list(found_at) == pytest.approx(plain_ranking(scores, test, train, k, ids), rel=1e-6)
                assert metrics.ranking_scores(Table(scores), test, train, k, users) == found_at


def test_a_user_who_is_not_ranked_has_no_influence() -> None:
    """NaN scores of that user have no influence either. At least one user needs a test item."""
    scores = torch.tensor([[1.0, 2.0, 3.0], [torch.nan, 0.0, 0.0], [3.0, 2.0, 1.0]])
    test = interactions([(0, 2), (1, 1)], 3, 3)
    assert metrics.mrr_score(Table(scores), test, users=torch.tensor([2, 0])) == 1
    shown = metrics.ranking_scores(Table(scores), test, k=1, users=torch.tensor([2, 0]))
    assert list(shown) == pytest.approx([1, 1, 1, 1 / 3, 1, 1])
    for users in (torch.tensor([2]), torch.tensor([], dtype=torch.int64)):
        with pytest.raises(ValueError, match="no test ratings"):
            metrics.mrr_score(Table(scores), test, users=users)
        with pytest.raises(ValueError, match="no test ratings"):
            metrics.ranking_scores(Table(scores), test, users=users)


def test_mrr_by_hand() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, 5.0, 5.0, 0.0]])
    test = interactions([(0, 1), (0, 3), (2, 2)], 3, 4)
    # User 0: ranks 2 and 4. User 1 has no test items. User 2: items 1 and 2 share ranks 1 and 2.
    assert metrics.mrr_score(Table(scores), test) == pytest.approx(((1 / 2 + 1 / 4) / 2 + 1 / 1.5) / 2)
    # With item 0 seen by user 0, and item 1 by user 2.
    train = interactions([(0, 0), (2, 1)], 3, 4)
    assert metrics.mrr_score(Table(scores), test, train) == pytest.approx(((1 + 1 / 3) / 2 + 1) / 2)


@pytest.mark.parametrize("sharing", [True, False])
def test_metrics_of_a_network(
    sharing: bool, split: tuple[Interactions, Interactions], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "BLOCK_PAIRS", 7)
    train, test = split
    torch.manual_seed(3)
    net = MultiTaskNet(train.num_users, train.num_items, 4, (12,), sharing)
    users, items = torch.meshgrid(torch.arange(train.num_users), torch.arange(train.num_items), indexing="ij")
    with torch.no_grad():
        predictions, ratings = (x.reshape(users.shape) for x in net(users.reshape(-1), items.reshape(-1)))
    assert metrics.mrr_score(net, test, train) == pytest.approx(
        plain_mrr(predictions, test, train, range(train.num_users)), rel=1e-5
    )
    triples = zip(test.user_ids.tolist(), test.item_ids.tolist(), test.ratings.tolist(), strict=True)
    errors = [(float(ratings[user, item]) - rating) ** 2 for user, item, rating in triples]
    assert metrics.mse_score(net, test) == pytest.approx(sum(errors) / len(errors), rel=1e-5)
    assert metrics.rmse_score(net, test) == pytest.approx(math.sqrt(sum(errors) / len(errors)), rel=1e-5)
    assert metrics.mae_score(net, test) == pytest.approx(sum(map(math.sqrt, errors)) / len(errors), rel=1e-5)


ERRORS = (metrics.mse_score, metrics.rmse_score, metrics.mae_score)


@pytest.mark.parametrize("score", ERRORS)
def test_a_rating_that_is_missing_is_ranked_and_not_rated(
    score: Callable[[Table, Interactions], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The errors are those of the interactions with a rating, in blocks of any size; the ranks are those of all."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(9, 20, generator=generator)
    users, items = torch.randint(9, (60,), generator=generator), torch.randint(20, (60,), generator=generator)
    ratings = torch.rand(60, generator=generator)
    whole = Interactions(users, items, ratings, 9, 20)
    missing = torch.rand(60, generator=generator) < 0.4
    some = Interactions(users, items, ratings.masked_fill(missing, torch.nan), 9, 20)
    table = Table(scores)
    for block in (1, 7, 2**16):
        monkeypatch.setattr(metrics, "BLOCK_PAIRS", block)
        assert score(table, some) == score(table, whole.select(~missing)) != score(table, whole)
    assert metrics.mrr_score(table, some) == metrics.mrr_score(table, whole)
    assert metrics.ranking_scores(table, some) == metrics.ranking_scores(table, whole)
    with pytest.raises(ValueError, match="no test ratings"):
        score(table, some.select(missing))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_other_dtypes(dtype: torch.dtype, split: tuple[Interactions, Interactions]) -> None:
    train, test = split
    torch.manual_seed(3)
    net = MultiTaskNet(train.num_users, train.num_items).to(dtype)
    with torch.no_grad():
        scores = metrics.ByForward(net, train.num_items).predict_all_items(torch.arange(train.num_users))
    assert metrics.mrr_score(net, test, train) == pytest.approx(
        plain_mrr(scores, test, train, range(train.num_users)), rel=1e-5
    )
    assert metrics.mse_score(net, test) > 0


@pytest.mark.long
def test_mrr_memory_is_bounded_by_a_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """No tensor is larger than a block or a row, with many users or with many test items of a user."""
    monkeypatch.setattr(metrics, "BLOCK_SCORES", 9000)
    monkeypatch.setattr(metrics, "BLOCK_ROWS", 1)
    wide = synthetic(num_users=500, num_items=3000, num_interactions=4000, seed=0)
    one_user = interactions([(0, item) for item in range(2000)], 1, 3000)
    largest = 0

    class Watched(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.is_floating_point():
                largest = max(largest, result.numel())
            return result

    class Equal(Table):
        def predict_all_items(self, user_ids: torch.Tensor) -> torch.Tensor:
            return torch.zeros(len(user_ids), 3000)

    for data in (wide, one_user):
        with Watched():
            assert 0 < metrics.mrr_score(Equal(torch.empty(0)), data, data) < 1
    assert 3000 <= largest <= 9000
