"""A run of main.py, read from its checkpoint: its ratings and its evaluated network."""

import shlex
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

import data
from datasets.releases import DEFAULT, RELEASES
from datasets.source import DataSource
from tracking.checkpoint import BEST, load_checkpoint
from training import parts, setup
from training.rated_items import RatedItems
from training.settings import Settings


class LoadedRun(NamedTuple):
    """A run after its best epoch if it has a ``best.pt``, otherwise after its last.

    Attributes:
        model: the network, on the CPU.
        ratings: all ratings.
        split: the training, validation and test set.
        settings: the settings of the run.
        epochs: the number of epochs trained.
    """

    model: nn.Module
    ratings: data.Interactions
    split: setup.Split
    settings: Settings
    epochs: int


def load_run(
    logdir: Path,
    data_dir: Path,
    ratings: Path | None = None,
    columns: str | None = None,
    titles: Path | None = None,
    quoting: str = "auto",
) -> LoadedRun:
    """Read a run from its checkpoint.

    Args:
        logdir: the run's folder.
        data_dir: the folder of the ratings, which are fetched into it if they are missing.
        ratings, columns, titles, quoting: as given to main.py, for a run on your own ratings.

    Raises:
        ValueError: the checkpoint is damaged, the ratings or models.py differ from the run's, or the ratings have a
            mistake.
        OSError: there is no checkpoint, or the ratings are missing and cannot be fetched.
    """
    found = load_checkpoint(logdir, BEST) or load_checkpoint(logdir)
    if found is None:
        raise FileNotFoundError(
            f"{logdir} holds no checkpoint: expected the --logdir of a run of main.py that has finished an epoch; "
            "if it was trained on ratings of your own, give --ratings FILE"
        )
    try:
        settings = Settings(**found.run.settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{logdir} holds a run that main.py did not make: {error}") from None
    dataset = found.run.dataset
    own = found.run.own
    if ratings is None and (own or dataset not in RELEASES):
        flags = " ".join(f"--{name} {shlex.quote(value)}" for name, value in (own or {"ratings": dataset}).items())
        raise ValueError(f"the run in {logdir} was trained on {dataset}: give that file again, as {flags}")
    source = DataSource(DEFAULT if ratings is not None else dataset, ratings, columns, titles, quoting, data_dir)
    interactions = data.read(source)
    split = setup.split(interactions, settings)
    if data.fingerprint(split.train, split.test) != found.run.data:
        chosen = f", with --columns {own['columns']}" if "columns" in own else ""
        raise ValueError(
            f"the ratings of {source.name} differ from those of the run in {logdir}: "
            f"give the {dataset} that the run was trained on{chosen}, or train again"
        )
    with torch.random.fork_rng(devices=[]):
        cpu = torch.device("cpu")
        model = setup.make_network(settings, interactions.num_users, interactions.num_items, cpu)
    try:
        parts.load_state(model, found.tensors)
    except ValueError as error:
        raise ValueError(f"the run in {logdir} was trained with another models.py: {error}") from None
    if "average" in found.tensors and found.tensors["average"].any():  # the mean over the last epochs, see ``Settings``
        parts.flatten(model).data.copy_(found.tensors["average"])
    if settings.watched_items:
        RatedItems(split.train).fold_into(model)
    return LoadedRun(model, interactions, split, settings, len(found.history))
