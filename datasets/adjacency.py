"""Adjacency lists as pairs: a line holds a user and the items of the user, as in ``train.txt`` of LightGCN and NGCF."""

import itertools
import re
from collections.abc import Iterator

from datasets.textfile import Block, InputFile, RowError

SAMPLE = 100  # lines from which lists are recognized
WIDEST_ROW = 4  # columns of a line with user, item, rating and time
LIST = re.compile(rb"[ \t]*\d+([ \t]+\d+)*\s*")
PAIRS = b"user\titem\n"  # the header of the pairs
NOTE = "each line is read as a user and the items of the user"


def are_lists(block: Block) -> bool:
    """Return whether the first lines of a file can only be adjacency lists.

    They hold whole numbers with blanks between them, their lengths differ, one is longer than a row of a table can be,
    and none begins with the same user as another.
    """
    lines = [line for line in itertools.islice(block.content.split(b"\n"), SAMPLE) if line.strip()]
    if not all(map(LIST.fullmatch, lines)):
        return False
    rows = [line.split() for line in lines]
    lengths = set(map(len, rows))
    return len(lengths) > 1 and max(lengths) > WIDEST_ROW and len({row[0] for row in rows}) == len(rows)


def as_pairs(blocks: Iterator[Block], file: InputFile) -> Iterator[Block]:
    """Yield a table of users and items, with a header; a user without items has no line there.

    Raises:
        RowError: a line holds something other than whole numbers.
    """
    header = PAIRS
    for block in blocks:
        pairs = [header]
        for number, line in enumerate(block.content.split(b"\n"), block.line):
            if not line.strip():
                continue
            if not LIST.fullmatch(line):
                found = next(cell for cell in line.split() if not cell.isdigit()).decode()
                problem = f": '{found[:40]}' in a list of items: expected whole numbers with blanks between them"
                raise RowError(file, number, problem)
            user, *items = line.split()
            pairs.extend(b"%b\t%b\n" % (user, item) for item in items)
        yield Block(b"".join(pairs), block.line)
        header = b""
