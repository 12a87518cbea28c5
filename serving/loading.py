"""A run of main.py, read from its folder: its evaluated network, and its ratings, which may have changed since."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import data
from data import Interactions, SourceIds
from datasets.source import FILES, DataSource
from serving import changed
from tracking import run_data, trained
from tracking.trained import TrainedRun
from training import network, parts, setup
from training.rated_items import SUMS, RatedItems
from training.rows import Rows, copy_rows, matched
from training.scale import Scale
from training.settings import Settings


@dataclass(frozen=True)
class LoadedRun:
    """A run after its best epoch if it has a ``best.pt``, otherwise after its last.

    Attributes:
        model: the network, on the CPU.
        ratings: all ratings of items that the network has, with its users and items.
        settings: the settings of the run.
        epochs: the number of epochs trained.
        scale: the unit of the network's predicted ratings; None if it was trained without ratings.
        split: the training, validation and test set; None if the ratings have changed since.
        source_ratings: all ratings as they are now.
        new_users: rows of the network that have no trained embeddings, because the users are new.
        notice: a line for the user if the ratings have changed, see ``Changed``; otherwise "".
        rating_range: the lowest and the highest training rating; () if there were none.
    """

    model: nn.Module
    ratings: Interactions
    settings: Settings
    epochs: int
    scale: Scale | None
    split: setup.Split | None
    source_ratings: Interactions
    new_users: tuple[int, ...] = ()
    notice: str = ""
    rating_range: tuple[float, ...] = ()


def load_run(logdir: Path, options: Mapping[str, Any]) -> LoadedRun:
    """Read a run from its folder, and its ratings from their source.

    Args:
        logdir: the run's folder.
        options: the options of ``DataSource`` to use in place of the run's, by name.

    Raises:
        ValueError: the checkpoint is damaged, models.py differs from the run's, or the ratings have a mistake or
            none of the run's users and items.
        OSError: there is no checkpoint, or the ratings are missing and cannot be fetched.
    """
    run = trained.read(logdir)
    source = _source_of(run, options)
    ratings = data.read(source)
    split = _unchanged_split(run, ratings)
    if split is None:
        return _load_changed(run, source, ratings)
    model = run.network(ratings.num_users, ratings.num_items)
    if run.settings.watched_items:
        RatedItems(split.train).fold_into(model)
    return LoadedRun(model, ratings, run.settings, len(run.checkpoint.history), run.data.scale, split, ratings)


def _source_of(run: TrainedRun, options: Mapping[str, Any]) -> DataSource:
    """Return the options of the ratings: those of the run, with those that are given in their place."""
    source = run_data.replaced(run.data.source, options)
    for name in FILES:
        path = getattr(source, name)
        if path is not None and not path.exists() and name not in options:
            raise FileNotFoundError(
                f"a file of the run in {run.folder} is not there: expected {path}, or its new path as option {name}"
            )
    return source


def _unchanged_split(run: TrainedRun, ratings: Interactions) -> setup.Split | None:
    """Return the split of the run; None if its ratings, users or items have changed."""
    now = (ratings.source_user_ids, ratings.source_item_ids)
    if not all(map(_equal, (run.data.user_ids, run.data.item_ids), now)):
        return None
    try:
        split = setup.split(ratings, run.settings)
    except ValueError:  # the run's ratings could be split
        return None
    return split if split.fingerprint == run.checkpoint.run.data else None


def _equal(one: SourceIds, other: SourceIds) -> bool:
    return isinstance(one, tuple) == isinstance(other, tuple) and np.array_equal(np.asarray(one), np.asarray(other))


def _load_changed(run: TrainedRun, source: DataSource, now: Interactions) -> LoadedRun:
    """Load a run whose ratings have changed; users and items are matched by their IDs, and new users get rows."""
    run.data.check_unit(now.ratings, source.name)
    ratings, new_users, notice = changed.match(run.data, now, source.name)
    if len(ratings) == 0:
        raise ValueError(
            f"{source.name} has no item of the run in {run.folder}, which was trained on "
            f"{run.checkpoint.run.dataset}: give the ratings of the run, with the same columns"
        )
    make = partial(network.make, run.settings)
    old = run.network(len(run.data.user_ids), len(run.data.item_ids))
    with torch.random.fork_rng(devices=[]):
        model = make(ratings.num_users, ratings.num_items)
    users = matched(run.data.user_ids, ratings.source_user_ids)
    items = matched(run.data.item_ids, ratings.source_item_ids)
    copy_rows(parts.state_of(old), model, users, items, make)
    if run.settings.watched_items:  # of users over the items that they rated until now, of items as in the run
        item_sums = {name: sums for name, sums in run.checkpoint.tensors.items() if name.startswith(SUMS)}
        RatedItems(ratings).fold_into(model, item_sums)
    epochs = len(run.checkpoint.history)
    scale, limits = _scale_now(run.data.scale, ratings, users), run.data.rating_range
    return LoadedRun(model, ratings, run.settings, epochs, scale, None, now, tuple(new_users), notice, limits)


def _scale_now(scale: Scale | None, ratings: Interactions, users: Rows) -> Scale | None:
    """Return the scale of a run with the baseline of today's ratings, or of the run's if none has a rating today.

    Args:
        users: the rows of the run's users, in the run and in ``ratings``.
    """
    if scale is None or scale.baseline is None:
        return scale
    if bool(ratings.rated.any()):
        return scale._replace(baseline=scale.baseline.of_later(ratings, scale.mean))
    baseline = scale.baseline

    def rows_of(table: Tensor) -> Tensor:
        found = torch.zeros(ratings.num_users, *table.shape[1:], dtype=table.dtype)
        found[users.other] = table[users.one]
        return found

    factors = baseline.factors._replace(users=rows_of(baseline.factors.users))
    return scale._replace(baseline=baseline._replace(users=rows_of(baseline.users), factors=factors))
