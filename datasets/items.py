"""The titles and genres of items, from a file with a line for each item."""

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from datasets import layout
from datasets.formats import plain_name
from datasets.ratings import Ratings
from datasets.textfile import InputFile

GENRES = {"genres", "genre", "class", "category", "categories"}
# The flags at the end of a line of MovieLens 100K's u.item, in the order of its u.genre.
FLAGS = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
TITLES = {"title", "movietitle", "itemtitle", "booktitle", "name", "itemname", "moviename"}
YEARS = {"releaseyear"}


class Item(NamedTuple):
    """A line of the file; "" for a missing field."""

    id: str
    title: str
    year: str
    genres: str


def add_titles(ratings: Ratings, file: InputFile | None, encoding: str = "utf-8") -> Ratings:
    """Return the ratings with the titles from a file, if there is one; an item without a title is called by its ID.

    Args:
        file: ``u.item``, ``movies.dat``, ``movies.csv``, RecBole's ``.item``, or a table with a header.
        encoding: of the file. A file with another encoding is read as Latin-1, and a line on stderr says so.

    Raises:
        ValueError: the file is damaged, or has no title of any item.
        OSError: the file cannot be read.
    """
    if file is None:
        return ratings
    content = file.read()
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        print(f"{file}: not in UTF-8, read as Latin-1", file=sys.stderr)
        text = content.decode("latin-1")
    title_of = {item.id: item.title for item in parse(text, file) if item.title}
    names = [str(each) for each in ratings.items]
    missing = sum(name not in title_of for name in names)
    if missing == len(names):
        raise ValueError(f"{file}: has no title of any item; the first item's ID is '{names[0]}'")
    if missing:
        said = f"{file}: {missing:,} of {len(names):,} items have no title there, and are called by their ID"
        print(said, file=sys.stderr)
    return ratings._replace(titles=tuple(title_of.get(name, name) for name in names))


def read_genres(file: InputFile) -> dict[str, str]:
    """Read the genres, with blanks between them, of each item that has some, by its ID; raise as ``add_titles``."""
    found = parse(file.read().decode("utf-8", errors="replace"), file)
    return {item.id: " ".join(item.genres.replace("|", " ").split()) for item in found if item.genres}


def parse(text: str, file: InputFile) -> Iterator[Item]:
    """Yield the items of a file with this content; raise ValueError unless it is a table with IDs and titles."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    if "::" in first:
        for line in text.split("\n"):
            cells = line.rstrip("\r").split("::")
            if len(cells) >= 2:
                genres = cells.pop() if len(cells) > 2 else ""
                yield Item(cells[0].strip(), "::".join(cells[1:]).strip(), "", genres)  # a title may contain "::"
        return
    name = plain_name(Path(file.member or file.path.name).name)
    separators = {".csv": ",;", ".tsv": "\t", ".item": "|\t"}.get(Path(name).suffix, "\t|,;")
    separator = next((each for each in separators if each in first), None)
    if separator is None:
        raise ValueError(f"{file}: expected an ID and a title in its first line, and not '{first[:60]}'")
    try:
        quoted = name.endswith((".csv", ".tsv"))
        lines = io.StringIO(text, newline="")
        rows = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE)
        yield from _parse_rows((row for row in rows if "".join(row).strip()), file)
    except csv.Error as error:
        raise ValueError(f"{file}: {error}") from None


def _parse_rows(rows: Iterator[list[str]], file: InputFile) -> Iterator[Item]:
    """Yield the items of a table, whose first line may be a header."""
    first = next(rows)
    header = [layout.plain(cell) for cell in first]
    kinds = (layout.USUAL[1], TITLES, YEARS, GENRES)
    ids, titles, years, genres = ([i for i, cell in enumerate(header) if cell in names] for names in kinds)
    if not ids:
        for row in [first, *rows]:
            if len(row) >= 2:
                yield Item(row[0].strip(), row[1].strip(), "", _flagged(row))
        return
    if len(titles) != 1:
        raise ValueError(f"{file}: no column for the title in {', '.join(first)[:80]}: call one of them title")
    for row in rows:
        if len(row) > max(ids[0], titles[0]):
            yield Item(row[ids[0]].strip(), row[titles[0]].strip(), _cell(row, years), _cell(row, genres))


def _cell(row: list[str], places: list[int]) -> str:
    """Return the cell at the first of these places; "" where there is none."""
    return "".join(row[place] for place in places[:1] if place < len(row))


def _flagged(row: list[str]) -> str:
    """Return the genres of a line of u.item."""
    if len(row) != 5 + len(FLAGS):
        return ""
    return " ".join(name for name, flag in zip(FLAGS, row[5:], strict=True) if flag.strip() == "1")
