"""The data of a run, noted in its folder: the options that chose the data, and the IDs of its users and items.

LOGDIR/data.npz   written at the start of a run, for recommendations and warm starts; nothing in it is executed
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cli.files import write_whole
from cli.options import option_of
from datasets.source import DataSource
from training.scale import Scale
from training.trainer import Trainer

NAME = "data.npz"
Ids = Tensor | tuple[str, ...]  # of a network's rows, ascending


class RunData(NamedTuple):
    """The data that a run was trained on.

    Attributes:
        source: the options that chose the data, with absolute paths.
        user_ids, item_ids: the source's own ID of each of the network's users and items, ascending.
        scale: the unit of the network's predicted ratings; None if there were no ratings to train on.
    """

    source: DataSource
    user_ids: Ids
    item_ids: Ids
    scale: Scale | None


class Rows(NamedTuple):
    """The rows of the IDs that occur in two lists: ``one[n]`` in the first list is ``other[n]`` in the second."""

    one: Tensor  # (n,) int64
    other: Tensor


def of(source: DataSource, trainer: Trainer) -> RunData:
    """Return the data that a trainer trains on."""
    train = trainer.train
    return RunData(source, train.source_user_ids, train.source_item_ids, trainer.scale if trainer.rates else None)


def write(folder: Path, data: RunData) -> None:
    """Write ``data.npz``; OSError if that fails."""
    source = {each.name: getattr(data.source, each.name) for each in dataclasses.fields(data.source)}
    source |= {name: str(path.absolute()) for name, path in source.items() if isinstance(path, Path)}
    noted = {"source": source, "scale": data.scale}
    users, items = _array_of(data.user_ids), _array_of(data.item_ids)
    write_whole(lambda file: np.savez(file, noted=_packed(noted), users=users, items=items), folder / NAME)


def read(folder: Path) -> RunData | None:
    """Read ``data.npz``; None if there is none.

    Raises:
        ValueError: the file is damaged.
        OSError: it cannot be read.
    """
    path = folder / NAME
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    try:
        with file, np.load(file, allow_pickle=False) as arrays:
            noted = _unpacked(arrays["noted"])
            options = {name: tuple(each) if isinstance(each, list) else each for name, each in noted["source"].items()}
            scale = None if noted["scale"] is None else Scale(*noted["scale"])
            return RunData(source_of(options), _ids_of(arrays["users"]), _ids_of(arrays["items"]), scale)
    except Exception as error:  # a damaged file can make the reader raise anything
        raise ValueError(f"{path} is damaged: {type(error).__name__}: {' '.join(str(error).split())[:100]}") from None


def replaced(source: DataSource, given: Mapping[str, Any]) -> DataSource:
    """Return the options that chose the data of a run, with those that are given now in their place.

    The other options of a file stay when another file is given, which is that file elsewhere or a later version of it.

    Raises:
        ValueError: the options do not go together.
    """
    noted = {each.name: getattr(source, each.name) for each in dataclasses.fields(source)}
    if "dataset" in given:
        noted = {"data_dir": source.data_dir}
    elif "ratings" in given:
        del noted["dataset"]
    return source_of({**noted, **given})


def source_of(options: Mapping[str, Any]) -> DataSource:
    """Make the options of the data, whose paths may be strings; ValueError if they do not go together."""
    values = dict(options)
    for each in dataclasses.fields(DataSource):
        is_path = option_of(each).parse is Path or isinstance(each.default, Path)
        if is_path and isinstance(values.get(each.name), str):
            values[each.name] = Path(values[each.name])
    return DataSource(**values)


def matched(one: Ids, other: Ids) -> Rows:
    """Find the IDs that are in both lists, and return their rows; a number is the same ID as the string of it."""
    _, rows, other_rows = np.intersect1d(*comparable(one, other), assume_unique=True, return_indices=True)
    return Rows(torch.from_numpy(rows), torch.from_numpy(other_rows))


def comparable(one: Ids, other: Ids) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return two lists of IDs as arrays of one type, strings if either list has strings."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return one.numpy(), other.numpy()
    first, second = (np.array([str(each) for each in _listed(ids)], dtype=object) for ids in (one, other))
    return first, second


def _listed(ids: Ids) -> list[int] | list[str]:
    return list(ids) if isinstance(ids, tuple) else ids.tolist()


def _array_of(ids: Ids) -> NDArray[Any]:
    return ids.numpy() if isinstance(ids, Tensor) else _packed(ids)


def _ids_of(array: NDArray[Any]) -> Ids:
    return torch.from_numpy(array) if array.dtype == np.int64 else tuple(_unpacked(array))


def _packed(value: Any) -> NDArray[np.uint8]:
    """Return the bytes of a value's JSON."""
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def _unpacked(array: NDArray[Any]) -> Any:
    return json.loads(array.tobytes())
