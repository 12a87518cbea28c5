"""Test MSE of the rating head and test MRR of the ranking head.

    mse_score(model, test)           mean of (r̂_ij − r_ij)² over the test ratings
    mrr_score(model, test, train)    mean over users of the mean over their test items of 1 / rank
    ranking_scores(model, test, train, k)    recall, NDCG, hit rate and coverage of the k first

No Python loop runs over users or items: users are ranked in blocks, and a block's test items in chunks, so that memory
is bounded whatever the data, and small enough for a processor's cache.
"""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

BLOCK_SCORES = 2**20  # float32 scores held at a time, of which there are three such blocks: 4 MiB each
BLOCK_ROWS = 64  # at least so many users and test items, so that the items' table is not read for each anew
BLOCK_PAIRS = 2**16
BLOCK_FORWARD = 2**13  # pairs that a network is given at a time to rank all items: their MLP inputs fit into a cache


class Recommender(Protocol):
    """Anything that predicts ratings and interaction logits."""

    def predict_ratings(self, user_ids: Tensor, item_ids: Tensor, /) -> Tensor:
        """Predict r̂_ij: (batch,) user IDs and item IDs → (batch,)."""

    def predict_all_items(self, user_ids: Tensor, /) -> Tensor:
        """Compute p_ij for every item: (users,) → (users, items), a new tensor, which is written into."""


class ByForward:
    """The recommender of any network with ``forward(user_ids, item_ids)`` → (predictions, score), in eval mode.

    Args:
        model: the network; it need not have anything else.
        num_items: item IDs are in [0, num_items).
    """

    def __init__(self, model: nn.Module, num_items: int) -> None:
        self.model, self.num_items = model, num_items

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


def recommender_of(model: Recommender | nn.Module, num_items: int) -> Recommender:
    """Return a recommender as it is, and a network's ``ByForward``."""
    return ByForward(model, num_items) if isinstance(model, nn.Module) else model


class LogByUser(Protocol):
    """Interactions sorted by user: user i's are at [offsets[i], offsets[i + 1])."""

    @property
    def user_ids(self) -> Tensor: ...

    @property
    def item_ids(self) -> Tensor: ...

    @property
    def offsets(self) -> list[int]: ...


class InteractionLog(Protocol):
    """Aligned (n,) tensors of ids and ratings, on the model's device."""

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
    def by_user(self) -> LogByUser: ...


@torch.no_grad()
def mse_score(model: Recommender | nn.Module, test: InteractionLog) -> float:
    """Mean squared error of the predicted ratings, equation 5 over all of ``test``.

    Args:
        model: a recommender, or a network with ``forward(user_ids, item_ids)`` → (predictions, score).
        test: at least one rating.

    Returns:
        mean of (r̂_ij − r_ij)², in squared stars; NaN where a prediction is.

    Raises:
        ValueError: there are no ratings.
    """
    _check_not_empty(test)
    recommender = recommender_of(model, test.num_items)
    sums = [
        (recommender.predict_ratings(users, items) - ratings).square().sum()
        for users, items, ratings in zip(
            test.user_ids.split(BLOCK_PAIRS),
            test.item_ids.split(BLOCK_PAIRS),
            test.ratings.split(BLOCK_PAIRS),
            strict=True,
        )
    ]
    return torch.stack(sums).sum().item() / len(test.ratings)


@torch.no_grad()
def mrr_score(model: Recommender | nn.Module, test: InteractionLog, train: InteractionLog | None = None) -> float:
    """Mean reciprocal rank of the test items among all items (Voorhees, 1999), averaged user by user.

    For each user with test ratings all items are ranked by p_ij (equation 1), the user's training items last. Equal
    scores share their average rank, so a model that cannot tell items apart ranks all of them in the middle. A user's
    other test items stay in the ranking.

    Args:
        model: a recommender, or a network with ``forward(user_ids, item_ids)`` → (predictions, score).
        test: at least one rating.
        train: interactions whose items are put last; they too share their average rank.

    Returns:
        mean over users with test ratings of the mean of 1 / rank, in (0, 1]; NaN where a score of such a user is.

    Raises:
        ValueError: there are no test ratings, or the sides have other numbers of users or items.
    """
    item_ids, tested = test.by_user.item_ids, _tested(test)
    num_users_tested = int((tested > 0).sum())
    # 1 / rank is averaged over a user's test items, then over users: each item weighs 1 / its user's number of them.
    weights = (1.0 / (tested.repeat_interleave(tested) * num_users_tested)).to(item_ids.device)
    ranks = (ranked for _, _, ranked in _ranked_blocks(model, test, train))
    parts = [(1.0 / ranked) @ weights[pairs] for block in ranks for pairs, ranked in block]
    return torch.stack(parts).sum().item()


class RankingScores(NamedTuple):
    """How good the k items are that a user would be shown; all in [0, 1]."""

    recall: float
    ndcg: float
    hit_rate: float
    coverage: float


@torch.no_grad()
def ranking_scores(
    model: Recommender | nn.Module, test: InteractionLog, train: InteractionLog | None = None, k: int = 10
) -> RankingScores:
    """Recall, NDCG (Järvelin & Kekäläinen, 2002), hit rate and coverage at k, in the ranking of ``mrr_score``.

    An item is shown where its rank is at most k; of items with equal scores, which share their average rank, all are
    or none is. With n test items a user's

        recall@k is  the number of them that are shown / n,
        NDCG@k       the sum of 1 / log₂(1 + rank) over those shown / the same sum if they had the ranks 1, 2, …, n ≤ k,
        hit rate@k   1 if any of them is shown, else 0,

    averaged over the users with test ratings. Coverage@k is the share of all items that is shown to one of these users,
    their training items left out.

    Args:
        model, test, train: as for ``mrr_score``.
        k: how many items are shown, at least 1.

    Returns:
        The four scores; NaN, all of them, where a score of such a user is.

    Raises:
        ValueError: as ``mrr_score``; or k is below 1.
    """
    if k < 1:
        raise ValueError(f"k is {k}: expected at least 1")
    device, tested = test.by_user.item_ids.device, _tested(test)
    users = torch.arange(len(tested)).repeat_interleave(tested)
    sums = torch.zeros(2, len(tested), dtype=torch.float64)  # on the CPU: Apple's GPUs have no float64
    shown = torch.zeros(test.num_items, dtype=torch.bool, device=device)
    failed = torch.zeros((), dtype=torch.bool, device=device)
    for first, scores, ranks in _ranked_blocks(model, test, train):
        here = torch.arange(first, first + len(scores), device=device)[
            (tested[first : first + len(scores)] > 0).to(device)
        ]
        shown |= _shown(scores[here - first], k).any(0)
        for pairs, ranked in ranks:
            failed |= ranked.isnan().any()
            place = ranked.cpu().double()
            hits = (place <= k).double()
            for row, gain in enumerate((hits, hits / torch.log2(1.0 + place))):
                sums[row].index_add_(0, users[pairs], gain)
    if failed:
        return RankingScores(*[float("nan")] * 4)
    counts = tested[tested > 0]
    hits, gains = (row[tested > 0] for row in sums)
    best = (1.0 / torch.log2(torch.arange(2, k + 2, dtype=torch.float64))).cumsum(0)
    return RankingScores(
        (hits / counts).mean().item(),
        (gains / best[counts.clamp(max=k) - 1]).mean().item(),
        (hits > 0).double().mean().item(),
        shown.float().mean().item(),
    )


def _shown(scores: Tensor, k: int) -> Tensor:
    """Which items have a rank of at most k in their row, those at −∞ left out: (users, items) bool."""
    least = scores.topk(min(k, scores.shape[1])).values[:, -1:]
    above, equal = scores > least, scores == least
    fits = above.sum(1, keepdim=True) + (equal.sum(1, keepdim=True) + 1) / 2 <= k
    return (above | (equal & fits)) & (scores > -torch.inf)


def _tested(test: InteractionLog) -> Tensor:
    """(num_users,) how many test items each user has."""
    return torch.tensor(test.by_user.offsets).diff()


def _ranked_blocks(
    model: Recommender | nn.Module, test: InteractionLog, train: InteractionLog | None
) -> Iterator[tuple[int, Tensor, Iterator[tuple[slice, Tensor]]]]:
    """Score users block by block, and rank their test items.

    Yields:
        first: the first user of the block.
        scores: (users, items) p_ij of the block, those of training items −∞.
        ranks: chunk by chunk where the chunk is in ``test.by_user``, and the (pairs,) ranks there, NaN where one of the
            user's scores is.

    Raises:
        ValueError: there are no test ratings, or the sides have other numbers of users or items.
    """
    _check_not_empty(test)
    if train is not None and (train.num_users, train.num_items) != (test.num_users, test.num_items):
        raise ValueError(
            f"the test side has {test.num_users} users and {test.num_items} items, "
            f"but the training side has {train.num_users} and {train.num_items}"
        )
    item_ids, offsets, tested = test.by_user.item_ids, test.by_user.offsets, _tested(test)
    rows = torch.arange(len(tested)).repeat_interleave(tested).to(item_ids.device)
    chunk = max(BLOCK_ROWS, BLOCK_SCORES // test.num_items)
    recommender = recommender_of(model, test.num_items)
    buffers: list[Tensor] = []  # made once, because new memory for each block costs more than what is done in it

    def ranks(first: int, last: int, scores: Tensor, defined: Tensor) -> Iterator[tuple[slice, Tensor]]:
        for start in range(offsets[first], offsets[last], chunk):
            pairs = slice(start, min(start + chunk, offsets[last]))
            own = rows[pairs] - first
            ranked = _ranks(scores, own, item_ids[pairs], *buffers)
            yield pairs, torch.where(defined[own], ranked, torch.nan)

    for first, last in _user_blocks(tested, test.num_items):
        scores = recommender.predict_all_items(torch.arange(first, last, device=item_ids.device))
        buffers = buffers or [
            scores.new_empty(chunk, test.num_items),
            torch.empty(chunk, test.num_items, device=scores.device),
        ]
        defined = scores.amax(1).isnan().logical_not_()
        if train is not None:
            seen = slice(train.by_user.offsets[first], train.by_user.offsets[last])
            scores[train.by_user.user_ids[seen] - first, train.by_user.item_ids[seen]] = -torch.inf
        yield first, scores, ranks(first, last, scores, defined)


def _ranks(scores: Tensor, rows: Tensor, items: Tensor, compared: Tensor, flags: Tensor) -> Tensor:
    """Rank of one item in its row, from 1 for the largest and averaged over ties.

    Args:
        scores: (users, items).
        rows, items: (pairs,) which of them.
        compared, flags: (at least pairs, items) memory to work in, of the scores' type and float32.

    Returns:
        (pairs,) float32 whole and half numbers.
    """
    compared, flags = compared[: len(rows)], flags[: len(rows)]
    torch.index_select(scores, 0, rows, out=compared)
    target = scores[rows, items].unsqueeze(1)
    # Comparisons are written as floats: summing bools is several times slower. Counts are exact up to 2²⁴ items.
    at_least = torch.ge(compared, target, out=flags).sum(1)
    above = torch.gt(compared, target, out=flags).sum(1)
    return (above + at_least + 1) / 2


def _user_blocks(tested: Tensor, num_items: int) -> list[tuple[int, int]]:
    """Cut the users into runs [first, last) whose rows of scores, one a user and one a test item, fill a block."""
    block = (tested + 1).cumsum(0) * num_items // max(BLOCK_SCORES, BLOCK_ROWS * num_items)
    lengths = torch.unique_consecutive(block, return_counts=True)[1]
    ends = lengths.cumsum(0).tolist()
    return [(first, last) for first, last in zip([0, *ends], ends, strict=False) if int(tested[first:last].sum()) > 0]


def _check_not_empty(test: InteractionLog) -> None:
    if len(test.ratings) == 0:
        raise ValueError("there are no test ratings to score: expected at least one")
