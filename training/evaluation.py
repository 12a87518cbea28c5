"""Test metrics that never dominate: which epochs are evaluated, and for which users.

Ranking all items for all users grows with users × items, training with the ratings: at MovieLens 32M an evaluation of
all users would take several times as long as the training between two of them. So where it would take more than a
fifth, a fixed sample of the users is ranked, over all items as before. How long either takes is estimated from sizes
alone: a clock would choose other users each time, and the run would not repeat.
"""

from dataclasses import replace

import torch
from torch import Tensor, nn

from data import Interactions
from metrics import ByForward, RankingScores, Recommender, mrr_score, mse_score, ranking_scores
from training import parts
from training.parallel import ALONE, Group, mean

SHOWN = 10  # items, for the metrics of what a user would be shown
SHARE = 0.2  # of the training time, for the ranking
FEWEST_USERS = 1000  # a sample has at least so many, whatever it takes
# What it takes to compare one item's score with all others', in multiply-adds an item (measured on one core).
COMPARISON = 20
# What it takes to look up and update an element of an embedding, in the same unit.
LOOKUP = 256


class Evaluation:
    """The test metrics of a network: MRR over all test users or a sample of them, MSE over all test ratings.

    Args:
        recommender: of the network that will be evaluated, or the network, which then ranks by ``forward``.
        train, test: on the network's device.
        users: "all", "auto" or how many to rank; the sample is the same for the same seed.
        every: evaluate after each so-many-th epoch, and after the last.
        seed: of the sample.
        group: the processes that share the work out, each ranking some of the users.
        clamp: cut predicted ratings to the range of the training ratings.

    Attributes:
        ranked, tested: how many users are ranked, of how many with test ratings.
    """

    def __init__(
        self,
        recommender: ByForward | nn.Module,
        train: Interactions,
        test: Interactions,
        users: str | int = "auto",
        every: int = 1,
        seed: int = 0,
        group: Group = ALONE,
        clamp: bool = False,
    ) -> None:
        if isinstance(recommender, nn.Module):
            recommender = ByForward(recommender, train.num_items)
        self.group = group
        self.rater: Recommender = Clamped(recommender, train.ratings) if clamp else recommender
        self.recommender, self.train, self.test, self.every = recommender, train, test, every
        tested = torch.bincount(test.user_ids, minlength=test.num_users).nonzero().squeeze(1).cpu()
        self.tested = len(tested)
        wanted = {"all": self.tested, "auto": _how_many(recommender.model, train, test, self.tested)}.get(str(users))
        self.ranked = min(int(users) if wanted is None else wanted, self.tested)
        users_here: Tensor | None = None
        if self.ranked < self.tested:
            generator = torch.Generator().manual_seed((seed + 1) % 2**64)  # not the one that shuffles
            users_here = tested[torch.randperm(self.tested, generator=generator)[: self.ranked]].sort()[0]
        self.everybody = None if users_here is None else users_here.to(test.user_ids.device)
        self.whole_test = test
        if group.size > 1:
            users_here = (tested if users_here is None else users_here)[group.rank :: group.size]
            part = slice(group.rank, None, group.size)
            self.test = replace(
                test, user_ids=test.user_ids[part], item_ids=test.item_ids[part], ratings=test.ratings[part]
            )
        self.users = None if users_here is None else users_here.to(test.user_ids.device)
        if self.users is not None:
            self.sampled = _of_users(test, self.users), _of_users(train, self.users)

    @property
    def notice(self) -> str:
        """What to tell the user where a sample is ranked, else nothing."""
        sample = f"ranking a sample of {self.ranked:,} of {self.tested:,} test users (--eval_users)"
        return sample if self.ranked < self.tested else ""

    def is_due(self, epoch: int, epochs: int) -> bool:
        """Whether to evaluate after this epoch, counted from 0, of so many."""
        return (epoch + 1) % self.every == 0 or epoch == epochs - 1

    def mrr(self) -> float:
        """MRR over the users that are ranked; for those it is exact."""
        if self.users is None:
            return mrr_score(self.recommender, self.test, self.train)
        here = len(self.users)
        score = mrr_score(_Renumbered(self.recommender, self.users), *self.sampled) if here else 0.0
        return score if self.group.size == 1 else mean(self.group, here * score, here)

    def ranking(self, k: int = SHOWN) -> RankingScores:
        """Recall, NDCG, hit rate and coverage at k, over the users that are ranked; by this process alone."""
        if self.everybody is None:
            return ranking_scores(self.recommender, self.whole_test, self.train, k)
        sides = _of_users(self.whole_test, self.everybody), _of_users(self.train, self.everybody)
        return ranking_scores(_Renumbered(self.recommender, self.everybody), *sides, k)

    def mse(self) -> float:
        """MSE over all test ratings: a forward pass of the MLP a rating, a third of what training one costs."""
        if self.group.size == 1:
            return mse_score(self.rater, self.test)
        here = len(self.test)
        return mean(self.group, here * mse_score(self.rater, self.test) if here else 0, here)


class Clamped:
    """A recommender whose predicted ratings are cut to the range of some ratings."""

    def __init__(self, recommender: Recommender, ratings: Tensor) -> None:
        self.recommender, self.lowest, self.highest = recommender, ratings.min().item(), ratings.max().item()

    def predict_ratings(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        return self.recommender.predict_ratings(user_ids, item_ids).clamp(self.lowest, self.highest)

    def predict_all_items(self, user_ids: Tensor) -> Tensor:
        return self.recommender.predict_all_items(user_ids)


class _Renumbered:
    """A recommender whose user k is the k-th of some users."""

    def __init__(self, recommender: Recommender, users: Tensor) -> None:
        self.recommender, self.users = recommender, users

    def predict_ratings(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        return self.recommender.predict_ratings(self.users[user_ids], item_ids)

    def predict_all_items(self, user_ids: Tensor) -> Tensor:
        return self.recommender.predict_all_items(self.users[user_ids])


def _of_users(side: Interactions, users: Tensor) -> Interactions:
    """What these users rated, with the users renumbered 0, 1, … in the order given."""
    number = torch.full((side.num_users,), -1, device=users.device)
    number[users] = torch.arange(len(users), device=users.device)
    theirs = side.select((number[side.user_ids] >= 0).nonzero().squeeze(1))
    ids = side.source_user_ids
    return replace(
        theirs,
        user_ids=number[theirs.user_ids],
        num_users=len(users),
        source_user_ids=tuple(ids[user] for user in users.tolist()) if isinstance(ids, tuple) else ids[users.cpu()],
    )


def _how_many(model: nn.Module, train: Interactions, test: Interactions, tested: int) -> int:
    """How many users can be ranked in SHARE of an epoch's training time, by the multiply-adds of both."""
    weights = sum(layer.weight.numel() for layer in parts.linear_layers(model))
    embedding_dim = max((table.embedding_dim for table in parts.embeddings(model)), default=0)
    training = len(train) * (3 * weights + LOOKUP * embedding_dim)  # forwards, and backwards twice
    a_user = test.num_items * (embedding_dim + COMPARISON * len(test) / tested)
    return max(FEWEST_USERS, int(SHARE * training / a_user))


def check_eval_users(text: str) -> str | int:
    """What ``--eval_users`` may be: "auto", "all" or a positive whole number.

    Raises:
        ValueError: it is something else.
    """
    if text in ("auto", "all"):
        return text
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"eval_users is {text}: expected a positive whole number, all or auto")
    return int(text)
