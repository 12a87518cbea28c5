"""What every source of ratings gives: ratings with the source's own ids."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from cli.options import option


class SourceRatings(NamedTuple):
    """Ratings as their source has them, in the source's order: aligned 1-D arrays.

    Attributes:
        users, items: (n,) int64, the source's own ids.
        ratings: (n,) float32, in stars.
        title_of: the title of each item that occurs, by its id; {} where the source has none.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    ratings: NDArray[np.float32]
    title_of: dict[int, str]


Ids = NDArray[np.int64] | tuple[str, ...]


class CodedRatings(NamedTuple):
    """Ratings whose ids are 0, 1, … in the order of the source's ids, each pair once.

    Attributes:
        user_ids, item_ids: (n,) int32.
        ratings: (n,) float32, finite.
        users, items: the source's own id of each: int64, or texts.
        titles: each item's title, or () where the source has none.
        names: what the columns of the user, the item and the rating are called.
        repeated: how many ratings were dropped because a later one is of the same user and item.
    """

    user_ids: NDArray[np.int32]
    item_ids: NDArray[np.int32]
    ratings: NDArray[np.float32]
    users: Ids
    items: Ids
    titles: tuple[str, ...]
    names: tuple[str, ...]
    repeated: int


@dataclass(frozen=True)
class DataSource:
    dataset: str = option("ml-100k", "release of MovieLens", group="data and split", metavar="NAME")
    ratings: Path | None = option(None, "ratings of your own", group="data and split", metavar="FILE", parse=Path)
    columns: str | None = option(None, "columns", group="data and split", parse=str)
    titles: Path | None = option(None, "titles", group="data and split", metavar="FILE", parse=Path)
    data_dir: Path = option(Path("data"), "folder for the data", group="data and split", metavar="DIR", parse=Path)

    @property
    def name(self) -> str:
        return self.ratings.name if self.ratings is not None else self.dataset
