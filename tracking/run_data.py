"""The data of a run, noted in its folder: the options that chose the data, the IDs of users and items, their biases.

LOGDIR/data.npz   written at the start of a run, for recommendations and warm starts; nothing in it is executed
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cli.files import write_whole
from data import SourceIds
from datasets.cache import packed, unpacked
from datasets.source import DataSource
from training.scale import Scale
from training.trainer import Trainer

NAME = "data.npz"
TABLES = "user_biases", "item_biases", "user_factors", "item_factors", "factor_dampings"  # of a baseline


class RunData(NamedTuple):
    """The data that a run was trained on.

    Attributes:
        source: the options that chose the data, with absolute paths.
        user_ids, item_ids: the source's own ID of each of the network's users and items, ascending.
        scale: the unit of the network's predicted ratings, and their baseline; None if there were no ratings to train
            on.
        rating_range: the lowest and the highest training rating; () if there were none.
    """

    source: DataSource
    user_ids: SourceIds
    item_ids: SourceIds
    scale: Scale | None
    rating_range: tuple[float, ...] = ()

    def check_unit(self, ratings: Tensor, name: str) -> None:
        """Raise ValueError if ratings, NaN for none, are far outside the range that the run was trained on.

        Args:
            name: that of the ratings, for the message.
        """
        known = ratings[~ratings.isnan()]
        if not self.rating_range or len(known) == 0:
            return
        lowest, highest = self.rating_range
        width = highest - lowest
        if known.min() < lowest - width or known.max() > highest + width:
            raise ValueError(
                f"the ratings of {name} are from {known.min():g} to {known.max():g}, and the run was trained on "
                f"{lowest:g} to {highest:g}: expected ratings in the same unit"
            )


def of(source: DataSource, trainer: Trainer) -> RunData:
    """Return the data that a trainer trains on."""
    train, scale = trainer.train, trainer.scale
    if not trainer.rates:
        return RunData(source, train.source_user_ids, train.source_item_ids, None)
    return RunData(source, train.source_user_ids, train.source_item_ids, scale, trainer.rating_range)


def write(folder: Path, data: RunData) -> None:
    """Write ``data.npz``; OSError if that fails."""
    options = asdict(data.source)
    source = {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in options.items()}
    scale = data.scale
    noted = {"source": source, "scale": None if scale is None else scale.numbers, "rating_range": data.rating_range}
    arrays: dict[str, Any] = {"users": _array_of(data.user_ids), "items": _array_of(data.item_ids)}
    if scale is not None and scale.baseline is not None:
        arrays |= dict(zip(TABLES, (each.numpy() for each in scale.baseline.tables), strict=True))
    write_whole(lambda file: np.savez(file, noted=packed(noted), **arrays), folder / NAME)


def read(folder: Path) -> RunData:
    """Read ``data.npz``.

    Raises:
        ValueError: the file is damaged or missing.
        OSError: it cannot be read.
    """
    path = folder / NAME
    try:
        file = path.open("rb")
    except FileNotFoundError:
        raise ValueError(f"{folder} has no {NAME} with the run's users and items: train it again") from None
    try:
        with file, np.load(file, allow_pickle=False) as arrays:
            noted = unpacked(arrays["noted"])
            tables = [torch.from_numpy(arrays[name]) for name in TABLES if name in arrays]
            scale = None if noted["scale"] is None else Scale.of_numbers(noted["scale"], tables)
            users, items = _ids_of(arrays["users"]), _ids_of(arrays["items"])
            return RunData(DataSource(**noted["source"]), users, items, scale, tuple(noted["rating_range"]))
    except Exception as error:  # a damaged file can make the reader raise anything
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
        raise ValueError(f"{path} is damaged, or another version wrote it: {reason}") from None


def replaced(source: DataSource, given: Mapping[str, Any]) -> DataSource:
    """Return the options that chose the data of a run, with those that are given now in their place.

    The other options of a file stay when another file is given, which is that file elsewhere or a later version of it.

    Raises:
        ValueError: the options do not go together.
    """
    noted = asdict(source)
    if "dataset" in given:
        noted = {"data_dir": source.data_dir}
    elif "ratings" in given:
        del noted["dataset"]
    return DataSource(**{**noted, **given})


def _array_of(ids: SourceIds) -> NDArray[Any]:
    return ids.numpy() if isinstance(ids, Tensor) else packed(ids)


def _ids_of(array: NDArray[Any]) -> SourceIds:
    ids: tuple[str, ...] | NDArray[Any] = unpacked(array)
    return ids if isinstance(ids, tuple) else torch.from_numpy(ids)
