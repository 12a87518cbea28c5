"""How a file of ratings is laid out: what stands between its columns, whether it has a header, which columns count."""

import csv
import math
import re
from pathlib import Path
from typing import NamedTuple

SEPARATORS = ("::", "\t", ";", ",", "|")
BLANKS = " "  # one or more, where a line has none of these
NAMES = ("user", "item", "rating")
# What such columns are usually called, in small letters and without anything that is no letter or digit.
USUAL = (
    {"user", "userid", "uid", "users", "reviewer", "reviewerid", "customer", "customerid", "member", "memberid"},
    {"item", "itemid", "iid", "items", "movie", "movieid", "product", "productid", "asin", "isbn", "book", "bookid"},
    {"rating", "ratings", "score", "scores", "star", "stars", "starrating", "overall", "bookrating"},
)
MISSING = frozenset({"", "na", "n/a", "#n/a", "nan", "-nan", "<na>", "null", "none", "\\n"})
ASK = "say which columns they are: --columns USER,ITEM,RATING, by name or number"


class Layout(NamedTuple):
    """How to read a line.

    Attributes:
        separator: between the columns of a line; one of SEPARATORS, or BLANKS.
        quoted: whether a column may stand in quotation marks, with the separator in it.
        width: how many columns a line has.
        places: of the user, the item and the rating, from 0.
        names: how to call these three in a message.
        header: whether the first line that is not blank is one of names.
    """

    separator: str
    quoted: bool
    width: int
    places: tuple[int, int, int]
    names: tuple[str, str, str]
    header: bool

    def split(self, line: str) -> list[str]:
        """The columns of one line."""
        if self.separator == BLANKS:
            return re.split("[ \t]+", line.strip(" \t"))
        if not self.quoted:
            return line.split(self.separator)
        return next(csv.reader([line], delimiter=self.separator, skipinitialspace=True), [])


def is_number(cell: str) -> bool:
    """Whether a cell holds a finite number, as a computer writes it."""
    try:
        return "_" not in cell and math.isfinite(float(cell))
    except ValueError:
        return False


def is_missing(cell: str) -> bool:
    """Whether a cell is empty, or has one of the usual words for nothing."""
    return cell.strip().lower() in MISSING


def plain(name: str) -> str:
    """A column's name as it is compared: RecBole's ``user_id:token`` and ``User ID`` are both ``userid``."""
    return re.sub(r"[\W_]+", "", re.sub(r":(token|float)(_seq)?$", "", name.strip()).lower())


def separated(line: str, separator: str, quoted: bool) -> list[str]:
    """The columns of a line for one possible separator."""
    return Layout(separator, quoted, 0, (0, 1, 2), NAMES, False).split(line)


def understand(path: Path, lines: list[tuple[int, str]], columns: str | None) -> Layout:
    """The layout of a file, from its first lines.

    Args:
        path: for messages, and for its ending.
        lines: the number and the text of the first lines that are not blank; at least one.
        columns: what the user said, ``USER,ITEM,RATING``, names or numbers from 1.

    Raises:
        ValueError: it cannot be told, or what the user said is not so.
    """
    separator, quoted = _separator(path, lines)
    rows = [separated(line, separator, quoted) for _, line in lines]
    first = [cell.strip() for cell in rows[0]]
    if columns is not None:
        places, header = chosen(columns, first, f"{path}, line {lines[0][0]}")
    elif not any(map(is_number, first)) and any(plain(cell) in set.union(*USUAL) for cell in first):
        places, header = usual(first, f"{path}, line {lines[0][0]}"), True
    else:
        fits = len(first) in (3, 4) and all(
            is_number(cell) for row in rows for cell in row[2:4] if not is_missing(cell)
        )
        if not fits and len(rows) > 1 and not any(map(is_number, first)):
            raise ValueError(f"{path}, line {lines[0][0]}: none of the columns {', '.join(first)} is known: {ASK}")
        if len(first) not in (3, 4) or not is_number(first[2]):
            raise ValueError(f"{path}, line {lines[0][0]}: no header, and not user, item, rating in this order: {ASK}")
        if len(first) == 4 and not is_number(first[3]):
            raise ValueError(f"{path}, line {lines[0][0]}: column 4 is '{first[3]}', and no time in seconds: {ASK}")
        places, header = (0, 1, 2), False
    names = [re.sub(r":(token|float)(_seq)?$", "", first[place]) if header else str(place + 1) for place in places]
    return Layout(separator, quoted, len(first), places, (names[0], names[1], names[2]), header)


def usual(header: list[str], where: str) -> tuple[int, int, int]:
    """The places of the columns with usual names.

    Raises:
        ValueError: one of the three is not there, or there twice.
    """
    places = []
    for kind, names in zip(NAMES, USUAL, strict=True):
        found = [place for place, name in enumerate(header) if plain(name) in names]
        if len(found) != 1:
            which = " and ".join(header[place] for place in found)
            what = f"{which} could each be the {kind}" if found else f"no column for the {kind} in {', '.join(header)}"
            raise ValueError(f"{where}: {what}: {ASK}")
        places += found
    return places[0], places[1], places[2]


def chosen(columns: str, first: list[str], where: str) -> tuple[tuple[int, int, int], bool]:
    """The places of the columns that the user named, and whether the first line is a header.

    Raises:
        ValueError: these are not three columns of the file.
    """
    asked = [each.strip() for each in columns.split(",")]
    if len(asked) != 3 or len(set(asked)) != 3 or not all(asked):
        raise ValueError(f"columns is '{columns}': expected three, USER,ITEM,RATING, by name or by number from 1")
    if all(each.isdecimal() for each in asked):
        places = [int(each) - 1 for each in asked]
        if not all(0 <= place < len(first) for place in places):
            raise ValueError(f"{where}: has {len(first)} columns, and columns is '{columns}'")
        return (places[0], places[1], places[2]), not is_number(first[places[2]])
    bare = [re.sub(r":(token|float)(_seq)?$", "", name) for name in first]
    for each in asked:
        if each not in bare and each not in first:
            raise ValueError(
                f"{where}: no column is called '{each}' among {', '.join(first)}; by number: 1 to {len(first)}"
            )
    places = [bare.index(each) if each in bare else first.index(each) for each in asked]
    return (places[0], places[1], places[2]), True


def _separator(path: Path, lines: list[tuple[int, str]]) -> tuple[str, bool]:
    """What stands between the columns, and whether they may be quoted."""
    name = path.name.removesuffix(".gz").lower()
    quotes = {
        each: each in (",", ";", "|", "\t") and not name.endswith((".inter", ".dat", "u.data")) for each in SEPARATORS
    }
    expected = {".csv": ",", ".tsv": "\t", ".inter": "\t", ".dat": "::"}.get(Path(name).suffix)
    number, first = lines[0]
    fitting = [each for each in SEPARATORS if len(separated(first, each, quotes[each])) >= 3]
    if len(fitting) > 1:
        widths = {each: {len(separated(line, each, quotes[each])) for _, line in lines} for each in fitting}
        fitting = [each for each in fitting if len(widths[each]) == 1] or fitting
    if len(fitting) > 1 and expected in fitting:
        fitting = [expected]
    if not any(each in first for each in SEPARATORS) and len(separated(first, BLANKS, False)) >= 3:
        return BLANKS, False
    if not fitting:
        raise ValueError(
            f"{path}, line {number}: fewer than three columns in '{first[:60]}': "
            "expected user, item and rating, with a comma, a tab, ';', '|', '::' or blanks between them"
        )
    if len(fitting) > 1:
        raise ValueError(f"{path}, line {number}: both {fitting[0]!r} and {fitting[1]!r} could separate the columns")
    return fitting[0], quotes[fitting[0]]
