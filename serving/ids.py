"""IDs of the ratings' source, which are whole numbers or text, and the rows of a network that they stand for."""

import bisect
import re

import torch
from torch import Tensor

Id = int | str


def named(ids: Tensor | tuple[str, ...], rows: Tensor) -> list[int] | list[str]:
    """Look up the source's IDs of rows."""
    if isinstance(ids, tuple):
        return [ids[row] for row in rows.tolist()]
    found: list[int] = ids[rows].tolist()
    return found


def row_of(ids: Tensor | tuple[str, ...], wanted: Id, kind: str) -> int:
    """Find the row of a source's ID; IDs and rows are both in ascending order.

    Raises:
        ValueError: the ratings have no such ID.
    """
    if isinstance(ids, tuple):
        found = bisect.bisect_left(ids, str(wanted))
        if found < len(ids) and ids[found] == str(wanted):
            return found
        raise ValueError(f"{kind} {wanted!r} is not in the ratings: expected one of their ids, as {ids[0]!r}")
    if re.fullmatch(r"-?\d{1,19}", str(wanted)) and abs(int(wanted)) < 2**63:
        found = int(torch.searchsorted(ids, int(wanted)))
        if found < len(ids) and ids[found] == int(wanted):
            return found
    raise ValueError(
        f"{kind} {wanted} is not in the ratings: their {kind}s have whole numbers from {ids[0]} to {ids[-1]}"
    )
