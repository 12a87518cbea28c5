"""The line on stderr that says how ratings were read, and the line on users and items without training."""

import numpy as np
from numpy.typing import NDArray

from datasets.ratings import TEST, TRAINING, VALIDATION, Ratings

SETS = {TRAINING: "training", VALIDATION: "validation", TEST: "test"}


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
    split = f"split by {ratings.split_by}: {_sizes(ratings)}" if len(ratings.parts) else ""
    return "; ".join([found, f"column {', '.join(ratings.columns)}", *filter(None, [split]), *ratings.notes])


def describe_untrained(ratings: Ratings) -> str:
    """Count the users and items of the validation and test set that have no interactions in the training set."""
    found = []
    for part in (VALIDATION, TEST):
        for ids, kind in ((ratings.user_ids, "users"), (ratings.item_ids, "items")):
            trained = np.unique(ids[ratings.parts == TRAINING])
            there = np.unique(ids[ratings.parts == part])
            missing = len(there) - int(np.isin(there, trained).sum())
            if missing:
                found.append(f"{missing:,} of {len(there):,} {SETS[part]} {kind}")
    if not found:
        return ""
    return (
        f"{' and '.join(found)} have no interactions in the training set: "
        "the network ranks and rates them by rows that are not trained"
    )


def _range(ratings: NDArray[np.float32]) -> str:
    return f"{ratings.min():g} to {ratings.max():g}"


def _sizes(ratings: Ratings) -> str:
    return " / ".join(f"{int((ratings.parts == part).sum()):,} {name}" for part, name in SETS.items())
