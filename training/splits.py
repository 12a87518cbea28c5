"""The rules that split interactions into a training, a validation and a test set.

    random    any interaction, with equal probability
    user      the same share of each user's, at random
    last      each user's latest (leave-one-out)
    time      the latest of all: the network is trained on the past and tested on the future, and nothing leaks
              (Ji et al., TOIS 2023)
    auto      the source's own split, where it has one, else random

With K folds, a random order is cut into K parts, and part seed mod K is the test set. So the seeds 0 to K − 1 have each
interaction in one test set; the next K seeds have another order.

A validation set is taken from the rest by the same rule. An interaction without a time counts as earlier than all
others; of equal times, the later line is later.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

import data
from data import TEST, TRAINING, VALIDATION, Interactions, random_train_test_split
from datasets.source import DataSource
from training.settings import Settings


class Split(NamedTuple):
    """The training set, the validation set that chooses the best epoch, if any, and the test set."""

    train: Interactions
    validation: Interactions | None
    test: Interactions

    @property
    def fingerprint(self) -> str:
        """Return the SHA-256 of the ratings and their split."""
        return data.fingerprint(self.train, self.test, self.validation)

    @property
    def notices(self) -> list[str]:
        """Return lines with the sizes of the sets, and the number of users and items that the training set lacks."""
        sizes = [f"{len(self.train):,} training"]
        lacking, differ = [], False
        for name, part in (("validation", self.validation), ("test", self.test)):
            if part is None:
                continue
            sizes.append(f"{len(part):,} {name}")
            for kind in ("user", "item"):
                there = getattr(part, f"{kind}_ids").unique()
                trained = torch.isin(there, getattr(self.train, f"{kind}_ids").unique())
                differ |= bool(trained.float().mean() < 0.5)
                if not bool(trained.all()):
                    lacking.append(f"{int((~trained).sum()):,} of {len(there):,} {name} {kind}s")
        lines = [f"sets: {' / '.join(sizes)}"]
        if lacking:
            untrained = "the network ranks and rates them by rows that are not trained"
            if differ:
                untrained += "; if that is a surprise, compare how the files write IDs (7 and 0007 differ)"
            lines.append(f"{' and '.join(lacking)} have no interactions in the training set: {untrained}")
        return lines


def check_rule(source: DataSource, settings: Settings) -> None:
    """Raise ValueError if a rule would divide sets that are in files of their own."""
    given = [name for name in ("validation", "test") if getattr(source, name) is not None]
    if given and settings.split != "auto":
        raise ValueError(f"split is {settings.split}, and {given[0]} gives a set: expected split auto, or no such file")


def split(interactions: Interactions, settings: Settings) -> Split:
    """Split interactions by the rule of the settings.

    Raises:
        ValueError: a set is empty, the interactions have no times for a rule that needs them, or there is no
            validation set for the patience of the settings.
    """
    rule, seeds = settings.split, settings.seeds
    parts = interactions.parts if rule == "auto" else None
    rule = "random" if rule == "auto" else rule
    rest, own = interactions, {}
    if parts is not None:
        own = {part: interactions.select(parts == part) for part in (VALIDATION, TEST) if bool((parts == part).any())}
        rest = interactions.select(parts == TRAINING)
        if len(rest) == 0:
            raise ValueError("the split of the data has no training set: expected at least one interaction in it")
    if VALIDATION in own and settings.validation_fraction > 0:
        raise ValueError("the data has a validation set of its own: leave out validation_fraction")
    for part in own.values():
        _check_overlap(rest, part)
    if settings.folds > 0:
        if parts is not None:
            raise ValueError("the data has a split of its own: leave out folds, or give split random as well")
        rest, test = _take_fold(interactions, settings)
    elif TEST in own:
        test = own[TEST]
    else:
        rest, test = _take(rest, rule, "test_fraction", settings.test_fraction, seeds.split)
    validation = own.get(VALIDATION)
    if settings.validation_fraction > 0:
        rest, validation = _take(rest, rule, "validation_fraction", settings.validation_fraction, seeds.validation)
    if settings.patience > 0 and validation is None:
        raise ValueError("patience needs a validation set: give validation_fraction as well, for instance 0.05")
    return Split(rest, validation, test)


def _check_overlap(train: Interactions, part: Interactions) -> None:
    """Raise ValueError if none of the users and items of a set are in the training set."""
    kinds = ("user_ids", "item_ids")
    if not any(bool(torch.isin(getattr(part, kind), getattr(train, kind)).any()) for kind in kinds):
        raise ValueError(
            "no user and no item of the validation or test set is in the training set: expected the same IDs in each"
        )


def _take(
    interactions: Interactions, rule: str, name: str, fraction: float, seed: int
) -> tuple[Interactions, Interactions]:
    """Take a share of the interactions away by a rule; return the rest, and those taken.

    Args:
        name: the setting with the fraction, for messages.
    """
    generator = torch.Generator().manual_seed(seed)
    if rule == "random":
        size = round(fraction * len(interactions))
        _check_sizes(rule, name, fraction, size, len(interactions))
        return random_train_test_split(interactions, fraction, generator)
    if rule == "user":
        is_taken = _share_of_each_user(interactions, fraction, generator)
    else:
        if interactions.times is None or bool(interactions.times.isnan().all()):
            remedy = "name their column, as the fourth of option columns"
            raise ValueError(f"split {rule} needs times, and the interactions have none: {remedy}")
        is_taken = _latest_of_each_user(interactions) if rule == "last" else _latest(interactions, fraction)
    _check_sizes(rule, name, fraction, int(is_taken.sum()), len(interactions))
    return interactions.select(~is_taken), interactions.select(is_taken)


def _take_fold(interactions: Interactions, settings: Settings) -> tuple[Interactions, Interactions]:
    """Take the fold of the seed away; return the rest, and the fold."""
    total = len(interactions)
    if settings.folds > total:
        raise ValueError(f"folds is {settings.folds}: expected at most {total}, the number of interactions")
    repetition, fold = divmod(settings.seed, settings.folds)
    generator = torch.Generator().manual_seed(replace(settings, seed=repetition).seeds.split)
    is_taken = torch.zeros(total, dtype=torch.bool)
    is_taken[torch.randperm(total, generator=generator)[fold :: settings.folds]] = True
    return interactions.select(~is_taken), interactions.select(is_taken)


def _check_sizes(rule: str, name: str, fraction: float, taken: int, total: int) -> None:
    """Raise ValueError if none or all of the interactions are taken away."""
    if not 0 < taken < total:
        empty = name.removesuffix("_fraction") if taken == 0 else "training"
        reason = "; interactions of the same time stay together" if rule == "time" else ""
        raise ValueError(f"{name} {fraction} of {total} ratings leaves the {empty} set empty (split {rule}{reason})")


def _share_of_each_user(interactions: Interactions, fraction: float, generator: torch.Generator) -> Tensor:
    """Mark a share of each user's interactions, rounded to the nearest number, but never all of them: (n,) bool."""
    order = torch.randperm(len(interactions), generator=generator)
    rank, count = _ranks(interactions, order)
    return rank < (fraction * count.double() + 0.5).floor().clamp(max=count - 1)


def _latest_of_each_user(interactions: Interactions) -> Tensor:
    """Mark the latest interaction of each user with more than one: (n,) bool."""
    rank, count = _ranks(interactions, _by_time(interactions))
    return (rank == count - 1) & (count > 1)


def _latest(interactions: Interactions, fraction: float) -> Tensor:
    """Mark the latest share of all interactions, and those at the same time as its first one: (n,) bool."""
    times = _known_times(interactions)
    size = max(1, round(fraction * len(times)))
    first = times.sort().values[len(times) - size]
    return times >= first


def _ranks(interactions: Interactions, order: Tensor) -> tuple[Tensor, Tensor]:
    """Rank each user's interactions in an order of all: (n,) ranks from 0, and (n,) numbers of that user's."""
    users = interactions.user_ids.cpu()
    by_user = order[users[order].argsort(stable=True)]
    counts = torch.bincount(users, minlength=interactions.num_users)
    starts = counts.cumsum(0) - counts
    ranks = torch.empty_like(users)
    ranks[by_user] = torch.arange(len(users)) - starts[users[by_user]]
    return ranks, counts[users]


def _by_time(interactions: Interactions) -> Tensor:
    """Return the positions of the interactions from the earliest to the latest: (n,) int64."""
    return _known_times(interactions).argsort(stable=True)


def _known_times(interactions: Interactions) -> Tensor:
    """Return the times, −∞ where there is none: (n,) float64."""
    assert interactions.times is not None
    return interactions.times.nan_to_num(nan=-torch.inf)
