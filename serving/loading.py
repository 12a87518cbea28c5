"""A run of main.py read back: its ratings, and its network as it recommends."""

import argparse
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

import data
from datasets import choice, releases
from tracking import checkpoint
from tracking.checkpoint import BEST
from training import parts, preparation
from training.adam import flatten
from training.flags import SETTINGS, parse_arguments
from training.preparation import Sides
from training.watched import Watched


class LoadedRun(NamedTuple):
    """A run after its best epoch where it has a ``best.pt``, else after its last.

    Attributes:
        model: the network, on the CPU.
        ratings: all ratings.
        sides: the training, validation and test set.
        options: the flags of the run.
        epochs: the number of epochs trained.
    """

    model: nn.Module
    ratings: data.Interactions
    sides: Sides
    options: argparse.Namespace
    epochs: int


def load_run(
    logdir: Path, data_dir: Path, ratings: Path | None = None, columns: str | None = None, titles: Path | None = None
) -> LoadedRun:
    """Read a run from its checkpoint.

    Args:
        logdir: the run's folder.
        data_dir: the folder of the ratings, which are fetched into it where they are missing.
        ratings, columns, titles: as main.py was given them, for a run on ratings of one's own.

    Raises:
        ValueError: the checkpoint is damaged, or of other ratings or another models.py, or something in the ratings
            is wrong.
        OSError: there is no checkpoint, or the ratings are not there and cannot be fetched.
    """
    found = checkpoint.load(logdir, BEST) or checkpoint.load(logdir)
    if found is None:
        raise FileNotFoundError(
            f"{logdir} holds no checkpoint: expected the --logdir of a run of main.py that has finished an epoch"
        )
    settings = {**checkpoint.ADDED_LATER, **found.settings}
    if missing := [name for name in SETTINGS if name not in settings]:
        raise ValueError(f"{logdir} holds a run that main.py did not make: its checkpoint has no {missing[0]}")
    options = parse_arguments([])
    vars(options).update({name: settings[name] for name in SETTINGS}, data_dir=data_dir, columns=columns)
    options.ratings, options.titles = ratings, titles
    dataset = settings.get("dataset", choice.DEFAULT)
    if ratings is None and dataset not in (choice.DEFAULT, *releases.RELEASES):
        raise ValueError(f"the run in {logdir} was trained on {dataset}: give that file again, as --ratings {dataset}")
    options.dataset = dataset
    known = data.from_flags(options)
    sides = preparation.split_in_three(known, options)
    if data.fingerprint(sides.train, sides.test) != found.data:
        raise ValueError(
            f"the run in {logdir} was trained on other ratings than {choice.name(options)} has now: "
            f"give the {dataset} that it was trained on, or train again"
        )
    with torch.random.fork_rng(devices=[]):
        model = preparation.make_network(options, known, torch.device("cpu"))
    try:
        parts.load_state(model, found.tensors)
    except ValueError as error:
        raise ValueError(f"the run in {logdir} was trained with another models.py: {error}") from None
    if "average" in found.tensors and found.tensors["average"].any():  # of the last epochs, see training.recipe
        flatten(model).data.copy_(found.tensors["average"])
    if options.watched_items:
        Watched(sides.train).fold_into(model)
    return LoadedRun(model, known, sides, options, len(found.history))
