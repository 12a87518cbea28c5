"""The header of a file of ratings: whether there is one, and the kinds of the columns where there is none."""

from typing import NamedTuple

from datasets import columns, times
from datasets.cells import is_missing, is_number
from datasets.columns import ALL_USUAL, ASK, FileOptions, Places, plain
from datasets.ids import is_whole


class Header(NamedTuple):
    """The columns of a file by its first line."""

    places: Places
    is_there: bool  # whether the line holds the names of the columns
    note: str = ""  # a doubt, for stderr


def read(rows: list[list[str]], options: FileOptions, where: str, is_json: bool = False) -> Header:
    """Find the columns of a file.

    Args:
        rows: the columns of the first lines.
        where: the first line in messages.
        is_json: whether the first line holds the keys of JSON Lines.

    Raises:
        ValueError: the columns are in doubt.
    """
    first = [cell.strip() for cell in rows[0]]
    is_there: bool | None
    if options.columns is not None:
        places, by_name = columns.chosen(options, first, where)
        is_there = True if by_name or is_json else _has_names(rows, places)
    else:
        is_there = not any(map(is_number, first)) and any(plain(cell) in ALL_USUAL for cell in first)
        places = columns.usual(first, options.counts, where) if is_there else _without_names(rows, options, where)
    if is_there:
        return Header(places.find_others(first), True)
    doubt = ""
    if is_there is None:
        doubt = f"{where}: is read as an interaction; if it is a header, choose the columns by name"
    elif first == [str(place) for place in range(len(first))]:
        doubt = f"{where}: is read as an interaction; if it numbers the columns, remove it"
    elif options.columns is None and places.time == 3 and not times.are_times(_cells(rows, 3)):
        doubt = f"{where}: column 4 is read as the time; if it is none, give option columns 1,2,3"
    return Header(places, False, doubt)


def _has_names(rows: list[list[str]], places: Places) -> bool | None:
    """Return whether the first line holds the names of columns that are chosen by number; None where it is unclear."""
    first = [cell.strip() for cell in rows[0]]
    if any(is_number(first[place]) for place in places if place is not None):
        return False
    if any(plain(cell) in ALL_USUAL for cell in first):
        return True
    if any(map(is_number, first)):
        return False
    known = [first[place] for place in (places.rating, places.time) if place is not None]
    if any(times.is_date(cell) for cell in known):
        return False
    if any(not is_missing(cell) for cell in known):
        return True
    for place in (places.user, places.item):
        below = [row[place].strip() for row in rows[1:] if len(row) > place]
        if below and all(map(is_whole, below)):
            return True
    return None


def _without_names(rows: list[list[str]], options: FileOptions, where: str) -> Places:
    """Return the places of the columns of a file without a header.

    Raises:
        ValueError: the lines cannot be user, item, and possibly a rating and a time, in this order.
    """
    first = [cell.strip() for cell in rows[0]]
    width = len(first)
    third, fourth = _cells(rows, 2), _cells(rows, 3)
    no_names = f"{where}: none of the columns {', '.join(first)} has a usual name: {ASK}"
    fits = all(map(is_number, third)) and all(is_number(cell) or times.is_date(cell) for cell in fourth)
    if width == 3 and times.are_times(third) and not options.counts:
        if is_missing(first[2]) and not _are_ids(rows):
            raise ValueError(no_names)
        return Places(0, 1, None, 2)
    if (width not in (2, 3, 4) or not fits) and len(rows) > 1 and not any(map(is_number, first)):
        raise ValueError(no_names)
    if width == 4 and fits and times.are_times(third):
        raise ValueError(f"{where}: column 3 looks like times: name the columns with option columns, 1,2,4,3 or 1,2,,3")
    for place in (0, 1):
        if times.are_times(_cells(rows, place)):
            raise ValueError(f"{where}: column {place + 1} looks like times, and not like IDs: {ASK}")
    if options.counts and width == 2:
        raise ValueError(f"{where}: has no column for the count: {ASK}")
    if width not in (2, 3, 4) or (width > 2 and not is_number(first[2]) and not is_missing(first[2])):
        is_list = width > 4 and all(is_whole(cell.strip()) for row in rows for cell in row)
        remedy = "; if it has all items of a user, write a line for each of them" if is_list else ""
        raise ValueError(f"{where}: no header, and not user, item, rating in this order: {ASK}{remedy}")
    if width == 4 and not (is_number(first[3]) or times.is_date(first[3]) or is_missing(first[3])):
        raise ValueError(f"{where}: column 4 is '{first[3]}', and not a time: {ASK}")
    if not any(is_number(cell) or times.is_date(cell) for cell in first[2:]) and not _are_ids(rows):
        raise ValueError(no_names)
    return Places(0, 1, *(place if place < width else None for place in (2, 3)))


def _cells(rows: list[list[str]], place: int) -> list[str]:
    """Return the cells of a column that are not missing."""
    return [row[place].strip() for row in rows if len(row) > place and not is_missing(row[place])]


def _are_ids(rows: list[list[str]]) -> bool:
    """Return whether the first two columns of the first line look like IDs, and not like the names of columns."""
    first = [cell.strip() for cell in rows[0][:2]]
    for place, cell in enumerate(first):
        below = [row[place].strip() for row in rows[1:] if len(row) > place]
        if below and all(map(is_whole, below)) and not is_whole(cell):
            return False
    return any(character.isdigit() for character in "".join(first))
