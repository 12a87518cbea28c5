"""Test MSE of the rating head and test MRR of the ranking head.

    mse_score(model, test)           mean of (r̂_ij − r_ij)² over the test ratings
    mrr_score(model, test, train)    mean over users of the mean over their test items of 1 / rank

No Python loop runs over users or items: users are ranked in blocks, and a block's test items in chunks, so that memory
is bounded whatever the data, and small enough for a processor's cache.
"""

from typing import Protocol

import torch
from torch import Tensor

BLOCK_SCORES = 2**20  # float32 scores held at a time, of which there are three such blocks: 4 MiB each
BLOCK_ROWS = 64  # at least so many users and test items, so that the items' table is not read for each anew
BLOCK_PAIRS = 2**16


class Recommender(Protocol):
    """What is scored: a network, or anything that predicts ratings and interaction logits as it does."""

    def predict_ratings(self, user_ids: Tensor, item_ids: Tensor, /) -> Tensor: ...

    def predict_all_items(self, user_ids: Tensor, /) -> Tensor:
        """(users,) → (users, items), a new tensor, which is written into."""


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
def mse_score(model: Recommender, test: InteractionLog) -> float:
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
def mrr_score(model: Recommender, test: InteractionLog, train: InteractionLog | None = None) -> float:
    """Mean reciprocal rank of the test items among all items (Voorhees, 1999), averaged user by user.

    For each user with test ratings all items are ranked by p_ij (equation 1), the user's training items last. Equal
    scores share their average rank, so a model that cannot tell items apart ranks all of them in the middle. A user's
    other test items stay in the ranking.

    Args:
        model: its ``predict_all_items`` gives p_ij of a block of users.
        test: at least one rating.
        train: interactions whose items are put last; they too share their average rank.

    Returns:
        mean over users with test ratings of the mean of 1 / rank, in (0, 1]; NaN where a score of such a user is.

    Raises:
        ValueError: there are no test ratings, or the sides have other numbers of users or items.
    """
    _check_not_empty(test)
    if train is not None and (train.num_users, train.num_items) != (test.num_users, test.num_items):
        raise ValueError(
            f"the test side has {test.num_users} users and {test.num_items} items, "
            f"but the training side has {train.num_users} and {train.num_items}"
        )
    item_ids, offsets = test.by_user.item_ids, test.by_user.offsets
    tested = torch.tensor(offsets).diff()
    num_users_tested = int((tested > 0).sum())
    # 1 / rank is averaged over a user's test items, then over users: each item weighs 1 / its user's number of them.
    weights = (1.0 / (tested.repeat_interleave(tested) * num_users_tested)).to(item_ids.device)
    rows = torch.arange(len(tested)).repeat_interleave(tested).to(item_ids.device)

    chunk = max(BLOCK_ROWS, BLOCK_SCORES // test.num_items)
    buffers = None
    parts = []
    for first, last in _user_blocks(tested, test.num_items):
        scores = model.predict_all_items(torch.arange(first, last, device=item_ids.device))
        if buffers is None:  # made once, because new memory for each block costs more than what is done in it
            buffers = scores.new_empty(chunk, test.num_items), torch.empty(chunk, test.num_items, device=scores.device)
        defined = scores.amax(1).isnan().logical_not_()
        if train is not None:
            seen = slice(train.by_user.offsets[first], train.by_user.offsets[last])
            scores[train.by_user.user_ids[seen] - first, train.by_user.item_ids[seen]] = -torch.inf
        for start in range(offsets[first], offsets[last], chunk):
            pairs = slice(start, min(start + chunk, offsets[last]))
            own = rows[pairs] - first
            reciprocal = 1.0 / _ranks(scores, own, item_ids[pairs], *buffers)
            parts.append(torch.where(defined[own], reciprocal, torch.nan) @ weights[pairs])
    return torch.stack(parts).sum().item()


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
