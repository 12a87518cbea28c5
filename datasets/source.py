"""What every source of ratings gives: an interaction log with the source's own ids."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class SourceRatings(NamedTuple):
    """An interaction log as its source has it, in the source's order: aligned 1-D arrays.

    Attributes:
        users, items: (n,) int64, the source's own ids.
        ratings: (n,) float32, in stars.
        title_of: the title of each item that occurs, by its id; {} where the source has none.
    """

    users: NDArray[np.int64]
    items: NDArray[np.int64]
    ratings: NDArray[np.float32]
    title_of: dict[int, str]
