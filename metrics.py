"""Test MSE of the rating head and test MRR of the ranking head.

    mse_score(model, test)           mean of (r̂_ij − r_ij)² over the test ratings
    mrr_score(model, test, train)    mean over users of the mean over their test items of 1 / rank

No Python loop runs over users or items: users are ranked in blocks, each small enough to stay in the processor's
cache.
"""

from typing import Protocol

import torch
from torch import Tensor

BLOCK_SCORES = 2**20  # float32 scores held at a time, of which there are three such blocks: 4 MiB each
BLOCK_PAIRS = 2**16


class Model(Protocol):
    """The two heads of a network."""

    def predict_ratings(self, user_ids: Tensor, item_ids: Tensor, /) -> Tensor: ...

    def predict_all_items(self, user_ids: Tensor, /) -> Tensor: ...


class ByUser(Protocol):
    """Interactions sorted by user: user i's are at [offsets[i], offsets[i + 1])."""

    @property
    def user_ids(self) -> Tensor: ...

    @property
    def item_ids(self) -> Tensor: ...

    @property
    def offsets(self) -> list[int]: ...


class Interactions(Protocol):
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
    def by_user(self) -> ByUser: ...


@torch.no_grad()
def mse_score(model: Model, test: Interactions) -> float:
    """Mean squared error of the predicted ratings, equation 5 over all of ``test``.

    Args:
        model: its ``predict_ratings`` gives r̂_ij.
        test: at least one rating.

    Returns:
        mean of (r̂_ij − r_ij)², in squared stars; NaN where a prediction is.

    Raises:
        ValueError: there are no ratings.
    """
    _check_not_empty(test)
    sums = [
        (model.predict_ratings(users, items) - ratings).square().sum()
        for users, items, ratings in zip(
            test.user_ids.split(BLOCK_PAIRS),
            test.item_ids.split(BLOCK_PAIRS),
            test.ratings.split(BLOCK_PAIRS),
            strict=True,
        )
    ]
    return torch.stack(sums).sum().item() / len(test.ratings)


@torch.no_grad()
def mrr_score(model: Model, test: Interactions, train: Interactions | None = None) -> float:
    """Mean reciprocal rank of the test items among all items (Voorhees, 1999), averaged user by user.

    For each user with test ratings all items are ranked by p_ij (equation 1), the user's training items last. Equal
    scores share their average rank, so a model that cannot tell items apart ranks all of them in the middle. A user's
    other test items stay in the ranking.

    Args:
        model: its ``predict_all_items`` gives p_ij of a block of users.
        test: at least one rating.
        train: interactions whose items are put last; they too share their average rank.

    Returns:
        mean over users with test ratings of the mean of 1 / rank, in (0, 1]; NaN where a score is.

    Raises:
        ValueError: there are no test ratings.
    """
    _check_not_empty(test)
    item_ids, offsets = test.by_user.item_ids, test.by_user.offsets
    tested = torch.tensor(offsets).diff()
    num_users_tested = int((tested > 0).sum())
    # 1 / rank is averaged over a user's test items, then over users: each item weighs 1 / its user's number of them.
    weights = (1.0 / (tested.repeat_interleave(tested) * num_users_tested)).to(item_ids.device)
    rows = torch.arange(len(tested)).repeat_interleave(tested).to(item_ids.device)

    blocks = _user_blocks(tested, test.num_items)
    most = max(offsets[last] - offsets[first] for first, last in blocks)
    buffers = torch.empty(2, most, test.num_items, device=item_ids.device)  # new memory for each block costs more
    parts = []
    for first, last in blocks:
        pairs = slice(offsets[first], offsets[last])
        scores = model.predict_all_items(torch.arange(first, last, device=item_ids.device))
        undefined = scores.amax().isnan()
        if train is not None:
            seen = slice(train.by_user.offsets[first], train.by_user.offsets[last])
            scores[train.by_user.user_ids[seen] - first, train.by_user.item_ids[seen]] = -torch.inf
        reciprocal = 1.0 / _ranks(scores, rows[pairs] - first, item_ids[pairs], buffers)
        parts.append(torch.where(undefined, torch.nan, reciprocal) @ weights[pairs])
    return torch.stack(parts).sum().item()


def _ranks(scores: Tensor, rows: Tensor, items: Tensor, buffers: Tensor) -> Tensor:
    """Rank of one item in its row, from 1 for the largest and averaged over ties.

    Args:
        scores: (users, items).
        rows, items: (pairs,) which of them.
        buffers: (2, at least pairs, items) memory to work in.

    Returns:
        (pairs,) whole and half numbers.
    """
    compared = torch.index_select(scores, 0, rows, out=buffers[0, : len(rows)])
    target = scores[rows, items].unsqueeze(1)
    # Comparisons are written as floats: summing bools is several times slower. Counts are exact up to 2²⁴ items.
    at_least = torch.ge(compared, target, out=buffers[1, : len(rows)]).sum(1)
    above = compared.gt_(target).sum(1)
    return (above + at_least + 1) / 2


def _user_blocks(tested: Tensor, num_items: int) -> list[tuple[int, int]]:
    """Cut the users into runs [first, last) whose rows of scores, one a user and one a test item, fit a block."""
    block = (tested + 1).cumsum(0) * num_items // BLOCK_SCORES
    lengths = torch.unique_consecutive(block, return_counts=True)[1]
    ends = lengths.cumsum(0).tolist()
    return [(first, last) for first, last in zip([0, *ends], ends, strict=False) if int(tested[first:last].sum()) > 0]


def _check_not_empty(test: Interactions) -> None:
    if len(test.ratings) == 0:
        raise ValueError("there are no test ratings to score: expected at least one")
