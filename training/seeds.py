"""One seed for everything that is random in a run, and none of its uses moves another."""

from typing import NamedTuple

import numpy as np


class Seeds(NamedTuple):
    """Seeds of the split, the initial weights, the shuffles and negative items, and the validation side: below 2⁶⁴."""

    split: int
    model: int
    trainer: int
    validation: int


def spawn(seed: int) -> Seeds:
    """Independent seeds from one, so that none of them moves when another draws more.

    Args:
        seed: at least 0.
    """
    return Seeds(*np.random.SeedSequence(seed).generate_state(4, np.uint64).tolist())
