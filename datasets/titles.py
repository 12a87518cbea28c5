"""Items' titles and genres: a file with a line an item, its id and its title among the columns."""

import csv
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from datasets import layout
from datasets.blocks import Source
from datasets.source import Ids

GENRES = {"genres", "genre", "class", "category", "categories"}
# The flags that end a line of MovieLens 100K's u.item, in the order of its u.genre.
FLAGS = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
USUAL = {"title", "movietitle", "itemtitle", "booktitle", "name", "itemname", "moviename"}


def read(source: Source, items: Ids, encoding: str = "utf-8") -> tuple[str, ...]:
    """The title of each item; its id for one that has none.

    Args:
        source: ``u.item``, ``movies.dat``, ``movies.csv``, RecBole's ``.item``, or a table with a header.
        items: the ids.
        encoding: of the file; where it is UTF-8 and the file is not, Latin-1, with a line about it on stderr.

    Raises:
        ValueError: it cannot be read, or has none of the items.
        OSError: it cannot be read.
    """
    content = _content(source)
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError:
        print(f"{source}: not in UTF-8, read as Latin-1", file=sys.stderr)
        text = content.decode("latin-1")
    title_of = {key: title for key, title, _ in _rows(text, source) if title}
    known = [str(item) for item in items]
    missing = sum(item not in title_of for item in known)
    if missing == len(known):
        raise ValueError(f"{source}: has the title of none of the items; their first id is '{known[0]}'")
    if missing:
        print(
            f"{source}: {missing:,} of {len(known):,} items have no title there, and are called by their id",
            file=sys.stderr,
        )
    return tuple(title_of.get(item, item) for item in known)


def genres(source: Source) -> dict[str, str]:
    """The genres of each item that has some, by its id, with spaces between them.

    Raises:
        ValueError, OSError: as ``read``.
    """
    try:
        found = list(_rows(_content(source).decode("utf-8", errors="replace"), source))
    except (csv.Error, KeyError) as error:  # KeyError: the archive has no such member
        raise ValueError(f"{source}: {error}") from None
    return {key: " ".join(text.replace("|", " ").split()) for key, _, text in found if text}


def _content(source: Source) -> bytes:
    with source.open() as file:
        return file.read().removeprefix(b"\xef\xbb\xbf")


def _rows(text: str, source: Source) -> Iterator[tuple[str, str, str]]:
    """Id, title and genres of each line, the last "" where there are none."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    name = Path(source.member or source.path.name).name.removesuffix(".gz").lower()
    by_name = {".csv": ",;", ".tsv": "\t", ".item": "|\t"}.get(Path(name).suffix, "\t|,;")
    if "::" in first:
        for line in text.split("\n"):
            if len(parts := line.rstrip("\r").split("::")) >= 2:  # a title may itself have the separator in it
                last = parts.pop() if len(parts) > 2 else ""
                yield parts[0].strip(), "::".join(parts[1:]).strip(), last
        return
    separator = next((each for each in by_name if each in first), None)
    if separator is None:
        raise ValueError(f"{source}: no id and title in its first line '{first[:60]}'")
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if name.endswith((".csv", ".tsv")) else csv.QUOTE_NONE
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, quoting=quoting)
    head = [layout.plain(cell) for cell in next(csv.reader([first], delimiter=separator, quoting=quoting))]
    places, genre = (0, 1), -1
    header = any(cell in layout.USUAL[1] for cell in head)
    if header:
        titles = [place for place, cell in enumerate(head) if cell in USUAL]
        if len(titles) != 1:
            raise ValueError(f"{source}: no column for the title in {first[:80]}: call one of them title")
        places = (next(place for place, cell in enumerate(head) if cell in layout.USUAL[1]), titles[0])
        genre = next((place for place, cell in enumerate(head) if cell in GENRES), -1)
    for number, row in enumerate(row for row in rows if row):
        if len(row) > max(places) and not (header and number == 0):
            kinds = row[genre] if 0 <= genre < len(row) else ""
            if not header and len(row) == 5 + len(FLAGS):
                kinds = " ".join(name for name, flag in zip(FLAGS, row[5:], strict=True) if flag.strip() == "1")
            yield row[places[0]].strip(), row[places[1]].strip(), kinds
