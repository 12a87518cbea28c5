"""A recommender in one file: its network's tensors, its settings and its interactions. Reading executes nothing."""

from collections.abc import Callable
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import nn

from cli import VERSION
from cli.files import write_whole
from data import Interactions
from tracking.checkpoint import save_tensors
from training import network, parts
from training.scale import Scale
from training.settings import Settings

FORMAT = "recommender 1"


class Saved(NamedTuple):
    """The content of a file; ``make`` makes a network of the same class for other numbers of users and items."""

    model: nn.Module
    ratings: Interactions
    settings: Settings
    scale: Scale | None
    make: Callable[[int, int], nn.Module]


def write(path: Path, model: nn.Module, ratings: Interactions, settings: Settings, scale: Scale | None) -> None:
    """Write a recommender; OSError if that fails."""
    content = {
        "format": FORMAT,
        "version": VERSION,
        "network": parts.state_of(model),
        "ratings": {each.name: getattr(ratings, each.name) for each in fields(ratings)},
        "settings": asdict(settings),
        "scale": None if scale is None else scale.numbers,
        "baseline": () if scale is None or scale.baseline is None else scale.baseline.tables,
    }
    write_whole(lambda file: save_tensors(content, file), path)


def read(path: Path, make: Callable[[int, int], nn.Module] | None = None) -> Saved:
    """Read a recommender.

    Args:
        make: makes the network for numbers of users and items; by default that of models.py.

    Raises:
        ValueError: the file is damaged or holds something else, or the network differs from the saved one.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a damaged file can make the reader raise anything
            raise ValueError(f"{path} is damaged or no recommender: {type(error).__name__}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path} holds no recommender: expected a file that Recommender.save wrote")
    try:
        ratings, settings = Interactions(**content["ratings"]), Settings(**content["settings"])
        scale = None if content["scale"] is None else Scale.of_numbers(content["scale"], content["baseline"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged, or another version wrote it: {error}") from None
    make = make or partial(network.make, settings)
    with torch.random.fork_rng(devices=[]):
        model = make(ratings.num_users, ratings.num_items)
    try:
        parts.load_state(model, content["network"])
    except ValueError as error:
        raise ValueError(f"{path} was saved with another network: {error}") from None
    return Saved(model, ratings, settings, scale, make)
