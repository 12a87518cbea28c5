"""Metrics of a network on a test set: errors of its ratings, and MRR and others of its ranking.

    mse_score(model, test)                   mean of (r̂_ij − r_ij)² over the test ratings; rmse_score is its root
    mae_score(model, test)                   mean of |r̂_ij − r_ij|
    mrr_score(model, test, train)            mean over users of the mean over their test items of 1 / rank
    ranking_scores(model, test, train, k)    recall, NDCG, hit rate, coverage, precision and MAP at k

An interaction whose rating is missing (NaN) counts in the ranking alone. No Python loop runs over users or items.
Users are ranked in blocks, and the test items of a block in chunks, so that memory is bounded for any data, and small
enough for a processor's cache.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, Protocol, overload

import torch
from torch import Tensor, nn

BLOCK_SCORES = 2**20  # scores in a block; three float32 arrays of this size are held, 4 MiB each
BLOCK_ROWS = 64  # a block has at least this many users and test items, because each block reads the whole item table
BLOCK_PAIRS = 2**16  # ratings predicted at a time
BLOCK_FORWARD = 2**13  # pairs in a call of forward that ranks all items, so that the inputs of the MLP fit into a cache


class Scorer(Protocol):
    """A source of predicted ratings and of scores that rank items."""

    def predict_ratings(self, user_ids: Tensor, item_ids: Tensor, /) -> Tensor:
        """Predict r̂_ij, equation 4: (batch,) user IDs and item IDs → (batch,)."""

    def predict_all_items(self, user_ids: Tensor, /) -> Tensor:
        """Compute p_ij, equation 1, for every item: (users,) → (users, items), a new tensor that the caller changes."""


# A scorer, or a network with ``forward(user_ids, item_ids)`` → (predictions, score).
Model = Scorer | nn.Module


class ByForward:
    """The scorer of any network with ``forward``, in eval mode; item IDs are in [0, num_items)."""

    def __init__(self, model: nn.Module, num_items: int) -> None:
        self.model = model
        self.num_items = num_items

    def pairs(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        """Compute p_ij and r̂_ij: (batch,) user IDs and item IDs → (batch,) and (batch,)."""
        training = self.model.training
        self.model.eval()
        try:
            predictions, score = self.model(user_ids, item_ids)
        finally:
            self.model.train(training)
        return predictions, score

    def predict_ratings(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        return self.pairs(user_ids, item_ids)[1]

    def predict_all_items(self, user_ids: Tensor) -> Tensor:
        items = torch.arange(self.num_items, device=user_ids.device)
        blocks = user_ids.split(max(1, BLOCK_FORWARD // self.num_items))
        rows = [self.pairs(block.repeat_interleave(len(items)), items.repeat(len(block)))[0] for block in blocks]
        return torch.cat(rows).view(len(user_ids), len(items))


class InteractionLog(Protocol):
    """Aligned (n,) tensors of IDs and ratings, on the model's device; a rating that is missing is NaN."""

    @property
    def user_ids(self) -> Tensor: ...

    @property
    def item_ids(self) -> Tensor: ...

    @property
    def ratings(self) -> Tensor: ...

    @property
    def num_users(self) -> int: ...

    @property
    def num_items(self) -> int: ...

    @property
    def by_user(self) -> tuple[Tensor, Tensor, list[int]]:
        """User IDs and item IDs sorted by user, and offsets: user i's are at [offsets[i], offsets[i + 1])."""


def mse_score(model: Model, test: InteractionLog) -> float:
    """Compute the mean squared error of the predicted ratings, equation 5 over all ratings of ``test``.

    Returns:
        mean of (r̂_ij − r_ij)², in squared stars; NaN if a prediction is NaN.

    Raises:
        ValueError: there are no ratings.
    """
    return _mean_error(model, test, torch.square)


def rmse_score(model: Model, test: InteractionLog) -> float:
    """Compute the root of ``mse_score``, in stars."""
    return math.sqrt(mse_score(model, test))


def mae_score(model: Model, test: InteractionLog) -> float:
    """Compute the mean absolute error, the mean of |r̂_ij − r_ij|, in stars; otherwise as ``mse_score``."""
    return _mean_error(model, test, torch.abs)


@torch.no_grad()
def _mean_error(model: Model, test: InteractionLog, size: Callable[[Tensor], Tensor]) -> float:
    """Compute the mean of the sizes of r̂_ij − r_ij over the ratings that are there."""
    columns = [test.user_ids, test.item_ids, test.ratings]
    missing = test.ratings.isnan()
    if missing.any():
        columns = [column[~missing] for column in columns]
    count = len(columns[0])
    _check_not_empty(count)
    scorer = _scorer_of(model, test.num_items)
    blocks = zip(*(column.split(BLOCK_PAIRS) for column in columns), strict=True)
    sums = [size(scorer.predict_ratings(users, items) - ratings).sum() for users, items, ratings in blocks]
    return torch.stack(sums).sum().item() / count


@torch.no_grad()
def mrr_score(
    model: Model, test: InteractionLog, train: InteractionLog | None = None, users: Tensor | None = None
) -> float:
    """Compute the mean reciprocal rank of test items among all items (Voorhees, 1999), averaged user by user.

    For each user with test ratings all items are ranked by p_ij (equation 1), the user's training items last. Equal
    scores share their average rank, so a model that gives all items the same score ranks each in the middle. The other
    test items of a user stay in the ranking.

    Args:
        model, test: a scorer or a network, and at least one rating.
        train: interactions whose items are ranked last; they share their average rank too.
        users: (n,) int64 IDs of the users to rank; by default all. Users without test ratings are left out.

    Returns:
        mean over these users of the mean of 1 / rank, in (0, 1]; NaN if one of their scores is NaN.

    Raises:
        ValueError: none of the users has test ratings, or the sets differ in their numbers of users or items.
    """
    counts = _counts(test, users)
    # 1 / rank is averaged over the test items of a user, then over users.
    weights = (1.0 / (counts.repeat_interleave(counts) * (counts > 0).sum())).to(test.item_ids.device)
    parts = [(1.0 / ranked.ranks) @ weights[ranked.pairs] for ranked in _ranked(model, test, train, users)]
    return torch.stack(parts).sum().item()


class RankingScores(NamedTuple):
    """Metrics of the k items that a user would be shown; all in [0, 1]."""

    recall: float
    ndcg: float
    hit_rate: float
    coverage: float
    precision: float
    map: float


@overload
def ranking_scores(
    model: Model, test: InteractionLog, train: InteractionLog | None = None, k: int = 10, users: Tensor | None = None
) -> RankingScores: ...


@overload
def ranking_scores(
    model: Model, test: InteractionLog, train: InteractionLog | None, k: Sequence[int], users: Tensor | None = None
) -> dict[int, RankingScores]: ...


def ranking_scores(
    model: Model,
    test: InteractionLog,
    train: InteractionLog | None = None,
    k: int | Sequence[int] = 10,
    users: Tensor | None = None,
) -> RankingScores | dict[int, RankingScores]:
    """Compute recall, NDCG, hit rate, coverage, precision and MAP at k, in the ranking of ``mrr_score``.

    An item is shown if its rank is at most k. Items with equal scores share their average rank, so all or none of them
    are shown. For a user with n test items

        recall@k is  the number of test items that are shown / n,
        NDCG@k       the sum of 1 / log₂(1 + rank) over those shown / the same sum for the ranks 1, 2, …, min(n, k)
                     (Järvelin & Kekäläinen, 2002),
        hit rate@k   1 if any test item is shown, else 0,
        precision@k  the number of test items that are shown / k, also where there are fewer than k items,
        MAP@k        the sum over those shown of (rank among the user's test items / rank) / min(n, k),

    averaged over the users with test ratings. Coverage@k is the share of all items that are shown to at least one of
    these users; the training items of a user are not shown. Precision and MAP are those of Spark's ``RankingMetrics``
    and of ``precision_at_k`` and ``map_at_k`` of microsoft/recommenders. MAP divides by min(n, k), so that its best
    value is 1; other libraries divide by n.

    Args:
        k: the number of items shown, at least 1, or several such numbers, which share one ranking; the others are as
            for ``mrr_score``.

    Returns:
        The six metrics, or those of each k; all are NaN if a score of such a user is NaN.

    Raises:
        ValueError: as for ``mrr_score``; or k is below 1, or empty.
    """
    several = list(k) if isinstance(k, Sequence) else [k]
    if not several or min(several) < 1:
        raise ValueError(f"k is {k}: expected at least 1")
    metrics = scores_of(item_ranks(model, test, train, several, users), several)
    return metrics if isinstance(k, Sequence) else metrics[k]


class ItemRanks(NamedTuple):
    """The ranks of the test items of some users, and the items shown to them, for the metrics of ``ranking_scores``.

    Those of other users in another process can be joined: ranks and counts end to end, and shown items by "or".
    """

    ranks: Tensor  # (pairs,) float64, sorted by user
    counts: Tensor  # (users,) int64, each user's number of test items
    shown: Tensor  # (numbers k, num_items) bool


@torch.no_grad()
def item_ranks(
    model: Model, test: InteractionLog, train: InteractionLog | None, several: Sequence[int], users: Tensor | None
) -> ItemRanks:
    """Rank the items of users; the arguments and errors are those of ``ranking_scores`` with valid numbers k."""
    counts = _counts(test, users)
    ranks = torch.empty(int(counts.sum()), dtype=torch.float64)  # on the CPU, because Apple's GPUs have no float64
    shown = torch.zeros(len(several), test.num_items, dtype=torch.bool, device=test.item_ids.device)
    for ranked in _ranked(model, test, train, users):
        shown |= _shown(ranked.scores[ranked.rows.unique()], several)
        ranks[ranked.pairs] = ranked.ranks.cpu().double()
    return ItemRanks(ranks, counts, shown)


def scores_of(ranked: ItemRanks, several: Sequence[int]) -> dict[int, RankingScores]:
    """Compute the metrics of ``ranking_scores`` for the numbers k that items were ranked for."""
    coverages = ranked.shown.float().mean(1).tolist()
    return {k: _scores_at(k, ranked.ranks, ranked.counts, share) for k, share in zip(several, coverages, strict=True)}


def _scores_at(k: int, ranks: Tensor, counts: Tensor, coverage: float) -> RankingScores:
    """Compute the metrics at k from the ranks of all test items, sorted by user, and each user's number of them."""
    if ranks.isnan().any():  # of a user with a score that is NaN
        return RankingScores._make([torch.nan] * len(RankingScores._fields))
    places = torch.arange(len(counts)).repeat_interleave(counts)
    tested = counts > 0
    hit = (ranks <= k).double()

    def sums(values: Tensor) -> Tensor:
        """Sum the values of test items for each user with test items."""
        return torch.zeros(len(counts), dtype=torch.float64).index_add_(0, places, values)[tested]

    hits, numbers = sums(hit), counts[tested]
    best = (1.0 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64))).cumsum(0)
    precisions = _ranks_among_own(ranks, places) / ranks
    return RankingScores(
        recall=(hits / numbers).mean().item(),
        ndcg=(sums(hit / torch.log2(1.0 + ranks)) / best[numbers.clamp(max=k) - 1]).mean().item(),
        hit_rate=(hits > 0).double().mean().item(),
        coverage=coverage,
        precision=(hits / k).mean().item(),
        map=(sums(hit * precisions) / numbers.clamp(max=k)).mean().item(),
    )


def _ranks_among_own(ranks: Tensor, places: Tensor) -> Tensor:
    """Rank each test item among those of its user, averaged over ties: (pairs,) ranks and users' places, ascending."""
    by_rank = ranks.argsort(stable=True)
    order = by_rank[places[by_rank].argsort(stable=True)]  # by user, then by rank
    is_first = torch.ones(len(ranks), dtype=torch.bool)  # of the test items of a user with the same rank
    is_first[1:] = (places.diff() > 0) | (ranks[order].diff() > 0)
    group = is_first.cumsum(0) - 1
    sizes, of_users = group.bincount(), places.bincount()
    average = sizes.cumsum(0) - (sizes.double() - 1) / 2
    before = of_users.cumsum(0) - of_users  # the number of test items of the users before
    among = torch.empty_like(ranks)
    among[order] = average[group] - before[places]
    return among


def _shown(scores: Tensor, several: Sequence[int]) -> Tensor:
    """Find the items that a row has at ranks of at most k, except at −∞, for each k: (users, items) → (ks, items)."""
    highest = scores.topk(min(max(several), scores.shape[1])).values
    found = []
    for k in several:
        least = highest[:, min(k, scores.shape[1]) - 1].unsqueeze(1)
        above, equal = scores > least, scores == least
        fits = above.sum(1, keepdim=True) + (equal.sum(1, keepdim=True) + 1) / 2 <= k
        found.append(((above | (equal & fits)) & (scores > -torch.inf)).any(0))
    return torch.stack(found)


class _Ranked(NamedTuple):
    """Ranks of some test items, and the scores of their users."""

    pairs: slice  # positions of the items among the test items of all users to rank, sorted by user
    rows: Tensor  # (pairs,) the row of each item's user in the scores
    ranks: Tensor  # (pairs,) float32; NaN if a score of the user is NaN
    scores: Tensor  # (rows, items) p_ij, those of training items −∞


def _ranked(
    model: Model, test: InteractionLog, train: InteractionLog | None, users: Tensor | None
) -> Iterator[_Ranked]:
    """Score users block by block, and rank their test items chunk by chunk."""
    if train is not None and (train.num_users, train.num_items) != (test.num_users, test.num_items):
        raise ValueError(
            f"the test set has {test.num_users} users and {test.num_items} items, "
            f"but the training set has {train.num_users} and {train.num_items}"
        )
    tested = _by_user(test, users)
    seen = None if train is None else _by_user(train, users)
    _check_not_empty(len(tested.item_ids))
    scorer, device = _scorer_of(model, test.num_items), test.item_ids.device
    chunk = max(BLOCK_ROWS, BLOCK_SCORES // test.num_items)
    compared = flags = torch.empty(0)
    for first, last in _user_blocks(torch.tensor(tested.offsets).diff(), test.num_items):
        block = torch.arange(first, last, device=device) if users is None else users[first:last].to(device)
        scores = scorer.predict_all_items(block)
        if len(compared) == 0:  # made once, because allocating memory for each chunk costs more than comparing
            compared = scores.new_empty(chunk, test.num_items)
            flags = torch.empty(chunk, test.num_items, device=device)
        has_nan = scores.amax(1).isnan()
        if seen is not None:
            own = slice(seen.offsets[first], seen.offsets[last])
            scores[seen.user_ids[own] - first, seen.item_ids[own]] = -torch.inf
        for start in range(tested.offsets[first], tested.offsets[last], chunk):
            pairs = slice(start, min(start + chunk, tested.offsets[last]))
            rows = tested.user_ids[pairs] - first
            ranks = _ranks(scores, rows, tested.item_ids[pairs], compared, flags)
            yield _Ranked(pairs, rows, ranks.masked_fill_(has_nan[rows], torch.nan), scores)


def _ranks(scores: Tensor, rows: Tensor, items: Tensor, compared: Tensor, flags: Tensor) -> Tensor:
    """Rank the item of each pair (row, item) in its row of the scores, from 1 for the largest, averaged over ties.

    ``compared`` and ``flags`` are memory for the scores and, in float32, for comparisons: (at least pairs, items) each.
    """
    compared, flags = compared[: len(rows)], flags[: len(rows)]
    torch.index_select(scores, 0, rows, out=compared)
    target = scores[rows, items].unsqueeze(1)
    # Comparisons are written as floats, because summing bools is several times slower; exact up to 2²⁴ items.
    at_least = torch.ge(compared, target, out=flags).sum(1)
    above = torch.gt(compared, target, out=flags).sum(1)
    return (above + at_least + 1) / 2


def _user_blocks(counts: Tensor, num_items: int) -> Iterator[tuple[int, int]]:
    """Cut users with these numbers of test items into blocks [first, last), with a row for each user and test item."""
    block = (counts + 1).cumsum(0) * num_items // max(BLOCK_SCORES, BLOCK_ROWS * num_items)
    lengths = torch.unique_consecutive(block, return_counts=True)[1]
    for first, last in pairwise([0, *lengths.cumsum(0).tolist()]):
        if counts[first:last].any():
            yield first, last


class _ByUser(NamedTuple):
    """Interactions sorted by user; where only some users are ranked, user IDs are places among these."""

    user_ids: Tensor
    item_ids: Tensor
    offsets: list[int]


def _by_user(log: InteractionLog, users: Tensor | None) -> _ByUser:
    """Select the interactions of some users, in this order of users, or those of all users."""
    everyone = _ByUser._make(log.by_user)
    if users is None:
        return everyone
    starts = torch.tensor(everyone.offsets)[users.cpu()]
    counts = _counts(log, users)
    places = torch.arange(len(users)).repeat_interleave(counts)
    ends = counts.cumsum(0)
    positions = torch.arange(len(places)) + (starts - ends + counts)[places]
    item_ids = everyone.item_ids[positions.to(log.item_ids.device)]
    return _ByUser(places.to(item_ids.device), item_ids, [0, *ends.tolist()])


def _counts(log: InteractionLog, users: Tensor | None) -> Tensor:
    """Count the interactions of each user: (users,) int64, on the CPU."""
    counts = torch.tensor(log.by_user[2]).diff()
    return counts if users is None else counts[users.cpu()]


def _scorer_of(model: Model, num_items: int) -> Scorer:
    return ByForward(model, num_items) if isinstance(model, nn.Module) else model


def _check_not_empty(num_ratings: int) -> None:
    if num_ratings == 0:
        raise ValueError("there are no test ratings to score: expected at least one")
