"""The split of a file into training, validation and test set, as one of its columns gives it."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from datasets.ratings import TEST, TRAINING, VALIDATION
from datasets.textfile import RowError

# The usual names of the column, in lower case and without anything but letters and digits.
NAMES = ("split", "subset", "partition", "set", "fold")
PARTS = {
    "train": TRAINING, "training": TRAINING, "val": VALIDATION, "valid": VALIDATION, "validation": VALIDATION,
    "dev": VALIDATION, "test": TEST, "testing": TEST,
}  # fmt: skip
OTHER = -1
EXPECTED = "expected train, validation or test"


def find(header: Sequence[str], others: Sequence[int]) -> int | None:
    """Return the place of the column with a usual name, except ``others``; None where there is none.

    Args:
        header: the plain names of all columns.
    """
    return next((header.index(name) for name in NAMES if name in header and header.index(name) not in others), None)


class PartColumn:
    """A column that may hold the part of each interaction, read block by block.

    Args:
        name: its name in messages.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._are_parts = False  # whether one of the cells is the name of a part
        self._wrong: tuple[int, str] | None = None  # the line and the content of the first cell that is not

    def read(self, cells: Any, line_of: Callable[[int], int]) -> NDArray[np.int8]:
        """Return the part of each cell of a block, OTHER for none.

        Args:
            cells: strings; a missing one is None or NaN.
            line_of: returns the line of the cell at a position.
        """
        import pandas as pd

        codes, names = pd.factorize(pd.Series(cells, dtype=object).fillna(""))
        found = np.array([PARTS.get(str(name).strip().lower(), OTHER) for name in names], dtype=np.int8)[codes]
        wrong = found == OTHER
        self._are_parts = self._are_parts or not wrong.all()
        if self._wrong is None and wrong.any():
            place = int(wrong.argmax())
            self._wrong = (line_of(place), str(names[codes[place]]))
        return found

    def reason_against(self, file: object, unit: str = "line") -> str | None:
        """Return the reason for not using the column, None where it holds parts only.

        Raises:
            RowError: some cells are names of parts, and one is not.
        """
        if self._wrong is None:
            return None
        line, cell = self._wrong
        problem = f", column {self.name}: '{cell[:40]}' is not the name of a set: {EXPECTED}"
        if self._are_parts:
            raise RowError(file, line, problem, unit)
        return f"{file}, {unit} {line}{problem}: the column is not read"
