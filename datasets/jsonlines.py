"""JSON Lines as a table: each record becomes a line with tabs between its values, below a header of keys."""

import contextlib
import functools
import json
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from datasets import columns
from datasets.formats import RECORD
from datasets.textfile import Block, InputFile

BREAK = re.compile(r"[\0\t\r\n]")
MISSING = "null"
NESTED = "{…}"  # neither a time nor the name of a set
DECODER = json.JSONDecoder(parse_float=str, parse_int=str, parse_constant=str)  # numbers keep all their digits


def as_table(
    blocks: Iterator[Block],
    file: InputFile,
    find_needed: Callable[[list[str], str], set[str]],
    watched: frozenset[str] = frozenset(),
) -> Iterator[Block]:
    """Yield the blocks of a file: as they are, or as a table where each line of the file is a JSON object.

    The keys in the first block are the columns. A missing key and an empty string are null.

    Args:
        find_needed: returns the keys that are needed among all keys; other values may be nested, and are left out. Its
            second argument is the place for messages.
        watched: the plain names of keys that must be in the first block if they are in the file.

    Raises:
        ValueError: a line is not a JSON object, or a needed value is nested.
    """
    header: list[str] = []
    needed: set[str] = set()
    for block in blocks:
        if header:
            yield Block(_lines(_rows(block, file, header, needed, watched)), block.line)
        elif not block.content.strip():
            continue
        elif RECORD.match(block.content):
            header = list(dict.fromkeys(key for record in records(block, file) for key in record or ()))
            needed = find_needed(header, f"{file}, line {block.line}")
            rows = _lines(_rows(block, file, header, needed, watched))
            names = _lines([[BREAK.sub(" ", key) for key in header]])
            yield Block(names + rows, block.line - 1)  # so that the rows keep their numbers
        else:
            yield block
            yield from blocks
            return


def _rows(
    block: Block, file: InputFile, header: list[str], needed: set[str], watched: frozenset[str]
) -> Iterator[list[str]]:
    """Yield the cells of each line; [] for a blank line."""
    for number, record in enumerate(records(block, file), block.line):
        if record is None:
            yield []
            continue
        where = f"{file}, line {number}"
        _check_late(record, header, watched, where)
        yield [_cell(record.get(key), key in needed, f"{where}, key {key}") for key in header]


def records(block: Block, file: InputFile) -> Iterator[dict[str, Any] | None]:
    """Yield the record of each line; None for a blank line."""
    for number, line in enumerate(block.content.decode().removesuffix("\n").split("\n"), block.line):
        if not line.strip():
            yield None
            continue
        record = None
        with contextlib.suppress(ValueError, RecursionError):
            record = DECODER.decode(line)
        if not isinstance(record, dict) or not record:
            raise ValueError(
                f"{file}, line {number}: is not a JSON object with keys: expected a whole record in each line"
            )
        yield record


_plain = functools.lru_cache(columns.plain)


def _check_late(record: dict[str, Any], header: list[str], watched: frozenset[str], where: str) -> None:
    """Raise ValueError if a record has a watched key that is not among the columns."""
    late = [key for key in record if key not in header and _plain(key) in watched]
    if late:
        raise ValueError(
            f"{where}: has the key {late[0]}, and the records above do not: add it to the first one, as null"
        )


def _cell(value: Any, is_needed: bool, where: str) -> str:
    while isinstance(value, dict) and len(value) == 1 and next(iter(value)).startswith("$"):
        value = next(iter(value.values()))  # MongoDB's {"$date": …}
    if value is None:
        return MISSING
    if isinstance(value, dict | list) and not is_needed:
        return NESTED
    if isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError(f"{where}: is nested: expected a string or a number; choose another key with option columns")
    if is_needed and BREAK.search(value):
        raise ValueError(f"{where}: has a line break, a tab or a zero in it: expected a string without them")
    return BREAK.sub(" ", value) if value.strip() else MISSING


def _lines(rows: Iterable[list[str]]) -> bytes:
    return "".join("\t".join(row) + "\n" for row in rows).encode(errors="backslashreplace")
