"""The line on stderr that says how ratings were read."""

import numpy as np
from numpy.typing import NDArray

from datasets.ratings import Ratings


def describe(ratings: Ratings) -> str:
    """Say how many interactions, items and users there are, and how their file was read."""
    number = len(ratings.ratings)
    rated = ratings.ratings[~np.isnan(ratings.ratings)]
    whose = f"{len(ratings.items):,} items by {len(ratings.users):,} users"
    if len(rated) == 0:
        found = f"{number:,} interactions without ratings of {whose}"
    elif len(rated) < number:
        found = f"{number:,} interactions of {whose}, {len(rated):,} of them with a rating from {_range(rated)}"
    else:
        found = f"{number:,} ratings of {whose}, {_range(rated)} stars"
    least = rated.min() if len(rated) else 1
    if least in (-1, 0) and rated[rated > least].min(initial=np.inf) >= 1:
        found += f" (if {least:g} means no rating, give option unrated {least:g})"
    split = f"own split by {ratings.split_by}" if len(ratings.parts) else ""
    return "; ".join([found, f"column {', '.join(ratings.columns)}", *filter(None, [split]), *ratings.notes])


def _range(ratings: NDArray[np.float32]) -> str:
    return f"{ratings.min():g} to {ratings.max():g}"
