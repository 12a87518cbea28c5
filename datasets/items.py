"""The titles and genres of items, from a file with a line for each item."""

import functools
import io
import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from datasets import columns, formats, jsonlines, layout, records, textfile
from datasets.formats import plain_name
from datasets.ratings import Ratings
from datasets.textfile import InputFile, RowError

GENRES = {"genres", "genre", "class", "category", "categories"}
# The flags at the end of a line of MovieLens 100K's u.item, in the order of its u.genre.
FLAGS = (
    "unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy",
    "Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western",
)  # fmt: skip
TITLES = {"title", "movietitle", "itemtitle", "booktitle", "name", "itemname", "moviename"}
YEARS = {"releaseyear"}
BREAKS = re.compile(r"\s*[\n\r\t\v\f\x1c-\x1e\x85\u2028\u2029]\s*")  # a title is shown in one line of a table


class Item(NamedTuple):
    """A line of the file; "" for a missing field."""

    id: str
    title: str
    year: str
    genres: str


def add_titles(ratings: Ratings, file: InputFile | None, encoding: str = "utf-8", quoting: str = "auto") -> Ratings:
    """Return the ratings with the titles from a file, if there is one; an item without a title is called by its ID.

    Args:
        file: ``u.item``, ``movies.dat``, ``movies.csv``, RecBole's ``.item``, or a table with a header.
        encoding: of the file. A file with another encoding is read as Latin-1, and a line on stderr says so.
        quoting: as for ``reading.read``.

    Raises:
        ValueError: the file is damaged, or has no title of any item.
        OSError: the file cannot be read.
    """
    if file is None:
        return ratings
    decode = functools.partial(_decode, encoding=encoding, file=file)
    title_of = {item.id: BREAKS.sub(" ", item.title) for item in _read(file, decode, quoting) if item.title}
    names = [str(each) for each in ratings.items]
    missing = sum(name not in title_of for name in names)
    if missing == len(names):
        raise ValueError(f"{file}: has no title of any item; the first item's ID is '{names[0]}'")
    if missing:
        said = f"{file}: {missing:,} of {len(names):,} items have no title there, and are called by their ID"
        print(said, file=sys.stderr)
    return ratings._replace(titles=tuple(title_of.get(name, name) for name in names))


def read_genres(file: InputFile, quoting: str = "auto") -> dict[str, str]:
    """Read the genres, with blanks between them, of each item that has some, by its ID; raise as ``add_titles``."""
    found = _read(file, functools.partial(bytes.decode, errors="replace"), quoting)
    return {item.id: " ".join(item.genres.replace("|", " ").split()) for item in found if item.genres}


def _read(file: InputFile, decode: Callable[[bytes], str], quoting: str) -> Iterator[Item]:
    content = file.read()
    if formats.RECORD.match(content):
        return _read_json(file)
    return parse(decode(content), file, quoting)


def _decode(content: bytes, encoding: str, file: InputFile) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError:
        print(f"{file}: not in UTF-8, read as Latin-1", file=sys.stderr)
        return content.decode("latin-1")


def _read_json(file: InputFile) -> Iterator[Item]:
    """Yield the items of JSON Lines; a value may be a list, as of genres."""
    for block in textfile.blocks(file):
        for number, record in enumerate(jsonlines.records(block, file), block.line):
            if record is None:
                continue
            keys = list(record)
            ids = columns.called("item", keys)
            if not ids:
                raise RowError(file, number, f": no key for the item in {', '.join(keys)[:80]}: call one of them item")
            rest = [_value(record, names) for names in (TITLES, YEARS, GENRES)]
            yield Item(str(record[keys[ids[0]]]), *rest)


def _value(record: Mapping[str, Any], names: Collection[str]) -> str:
    """Return the value of the first key with one of these names; "" where there is none."""
    value = next((value for key, value in record.items() if columns.plain(key) in names and value is not None), "")
    return "|".join(map(str, value)) if isinstance(value, list) else str(value).strip()


def parse(text: str, file: InputFile, quoting: str = "auto") -> Iterator[Item]:
    """Yield the items of a file with this content; raise ValueError unless it is a table with IDs and titles."""
    first = next((line for line in text.split("\n") if line.strip()), "").rstrip("\r")
    if "::" in first:
        for number, cells in _split(text, "::"):
            if len(cells) < 2:
                raise RowError(file, number, ": has no title: expected ID::TITLE")
            genres = cells.pop() if len(cells) > 2 else ""
            yield Item(cells[0].strip(), "::".join(cells[1:]).strip(), "", genres)  # a title may contain "::"
        return
    name = plain_name(Path(file.member or file.path.name).name)
    separators = {".csv": ",;", ".tsv": "\t", ".item": "|\t"}.get(Path(name).suffix, "\t|,;")
    separator = next((each for each in separators if each in first), None)
    if separator is None:
        raise ValueError(f"{file}: expected an ID and a title in its first line, and not '{first[:60]}'")
    is_quoted = separator in layout.QUOTED or layout.is_all_quoted(first, separator)
    if is_quoted and '"' in text and quoting != "none":
        rows = records.read_in_fitting_style(functools.partial(_records, text, first, separator, file))
    else:
        rows = list(_split(text, separator))
    yield from _parse_rows(rows, file)


def _split(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number and the columns of each line that is not blank, with quotation marks as characters."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            yield number, line.rstrip("\r").split(separator)


def _records(
    text: str, first: str, separator: str, file: InputFile, style: dict[str, Any]
) -> list[tuple[int, list[str]]]:
    """Return the records of a file with quotation marks, read in one style of quoting."""
    header = layout.split(first, separator, quoted=True)
    place = next(iter(columns.called("item", header)), 0)

    def is_row(cells: list[str], record: list[str]) -> bool:
        """Return whether a line within a record has an ID like that of the record, and is a record itself."""
        has_digit = [re.search(r"\d", each[place]) is not None for each in (cells, record)]
        return bool(cells[place].strip()) and (has_digit[0] or not has_digit[1])

    lines = io.StringIO(text, newline="\n")
    return list(records.parse(lines, separator, len(header), style, is_row, file))


def _parse_rows(rows: list[tuple[int, list[str]]], file: InputFile) -> Iterator[Item]:
    """Yield the items of a table, whose first line may be a header."""
    first = rows[0][1]
    header = [columns.plain(cell) for cell in first]
    ids = columns.called("item", header)
    titles, years, genres = ([i for i, cell in enumerate(header) if cell in names] for names in (TITLES, YEARS, GENRES))
    if ids and len(titles) != 1:
        raise ValueError(f"{file}: no column for the title in {', '.join(first)[:80]}: call one of them title")
    id_place, title_place = (ids[0], titles[0]) if ids else (0, 1)
    for number, row in rows[1:] if ids else rows:
        if len(row) <= max(id_place, title_place):
            raise RowError(file, number, f": has {len(row)} columns: expected an ID and a title")
        genre = _cell(row, genres) if ids else _flagged(row)
        yield Item(row[id_place].strip(), row[title_place].strip(), _cell(row, years), genre)


def _cell(row: list[str], places: list[int]) -> str:
    """Return the cell at the first of these places; "" where there is none."""
    return "".join(row[place] for place in places[:1] if place < len(row))


def _flagged(row: list[str]) -> str:
    """Return the genres of a line of u.item."""
    if len(row) != 5 + len(FLAGS):
        return ""
    return " ".join(name for name, flag in zip(FLAGS, row[5:], strict=True) if flag.strip() == "1")
