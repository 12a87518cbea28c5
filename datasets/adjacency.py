"""Adjacency lists as pairs: a line holds a user and the items of the user, as in ``train.txt`` of LightGCN and NGCF."""

import re
from collections import Counter
from collections.abc import Iterator

from datasets import textfile
from datasets.textfile import Block, InputFile, RowError

SAMPLE = 100  # lines from which lists are recognized
START = 2**20  # bytes in which these lines are looked for
WIDEST_ROW = 4  # columns of a line with user, item, rating and time
REGULAR = 0.9  # share of lines of one length from which on a file is a table with mistakes
LIST = re.compile(rb"\d+( +\d+)* *\r?")
NUMBER = re.compile("[0-9]+")
PAIRS = b"user\titem\n"  # the header of the pairs
NOTE = "each line is read as a user and the items of the user"


def are_lists(file: InputFile) -> bool:
    """Return whether the first lines of a file are adjacency lists and no table.

    Their lengths vary, one is longer than a row of a table can be, and none begins with the same user as another.
    """
    rows = [line.split() for line in _sample(file) or ()]
    lengths = Counter(map(len, rows))
    if not rows or max(lengths) <= WIDEST_ROW or max(lengths.values()) > REGULAR * len(rows):
        return False
    return len({row[0] for row in rows}) == len(rows)


def can_be_lists(file: InputFile) -> bool:
    """Return whether the first lines of a file have the form of adjacency lists, as those of a table can have."""
    return _sample(file) is not None


def _sample(file: InputFile) -> list[bytes] | None:
    """Return the first lines of a file that are not blank, or None if one is no list of whole numbers."""
    start = next(textfile.blocks(file, START), Block(b"", 1))
    lines = [line for line in start.content.split(b"\n", SAMPLE)[:SAMPLE] if line.strip()]
    return lines if all(map(LIST.fullmatch, lines)) else None


def as_pairs(file: InputFile) -> Iterator[Block]:
    """Yield a table of users and items, with a header; a user without items has no line there.

    Raises:
        RowError: a line holds something other than whole numbers.
    """
    header = PAIRS
    for block in textfile.blocks(file):
        pairs = [header]
        for number, line in enumerate(block.content.split(b"\n"), block.line):
            if not line.strip():
                continue
            if not LIST.fullmatch(line):
                cells = line.decode().split()
                wrong = next((cell for cell in cells if not NUMBER.fullmatch(cell)), line.decode())
                problem = f": {wrong[:40]!r} in a list of items: expected whole numbers with blanks between them"
                raise RowError(file, number, problem)
            user, *items = line.split()
            pairs.extend(b"%b\t%b\n" % (user, item) for item in items)
        yield Block(b"".join(pairs), block.line)
        header = b""
