"""Submissions on disk: models.py and the files beside it, read from a file, a folder, a zip or a class's download.

Nothing is unpacked: files are read into memory, within limits.
"""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from grading.archives import (
    FILE,
    LARGEST_CLASS,
    LARGEST_INNER,
    Entry,
    Listing,
    Unreadable,
    check_limits,
    check_names,
    failures_as_unreadable,
    list_folder,
    list_zip,
    open_file,
    read,
    read_start,
    shown,
    without_passed_over,
)
from grading.downloads import HANDED_IN, members
from grading.sources import EXPECTED, LARGEST_FILE, read_source

__all__ = ["FILE", "HANDED_OUT", "Submission", "Unreadable", "Upload", "read_submission", "uploads"]

HANDED_OUT = "handout.txt"  # in a student's folder, the list of the files that were handed out
FIRST = ("", "submission")  # the folders that are searched for models.py first
INNER_ZIPS = 2  # zips inside each other
MOST_SOURCES = 256
LARGEST_SOURCES = 2**24  # bytes
ZIP = (b"PK\3\4", b"PK\5\6", b"PK\7\10")  # the first bytes of zips


class Submission(NamedTuple):
    """The Python files of a submission, by their paths. ``note`` tells its author if models.py was made from others."""

    files: dict[str, bytes]
    note: str = ""


@dataclass(frozen=True)
class Upload:
    """A submission that has a name and is read later. ``read`` raises Unreadable like ``read_submission``."""

    name: str
    read: Callable[[], Submission]


def uploads(paths: Sequence[Path]) -> list[Upload]:
    """Name the submissions at these paths: one for each, or all of a class if the only path is an LMS's download."""
    if len(paths) == 1:
        listing = _list(paths[0])
        found = members(listing)
        if found:
            return [Upload(f"{paths[0]}/{name}", partial(_read_member, files)) for name, files in found.items()]
        if listing:  # listed only once
            return [Upload(str(paths[0]), partial(_read_listing, listing))]
    return [Upload(str(path), partial(read_submission, path)) for path in paths]


def _list(path: Path) -> Listing:
    """List a folder or a zip. Return nothing for another path, or if ``read_submission`` will give the reason."""
    try:
        if path.is_dir():
            listing = list_folder(path)
        elif path.is_file() and read_start(path.name, _entry(path)).startswith(ZIP):
            listing = list_zip(partial(open_file, path))
        else:
            return {}
        check_limits(without_passed_over(listing), "the download", LARGEST_CLASS)
    except (Unreadable, OSError):
        return {}
    return listing


def _read_member(listing: Listing) -> Submission:
    """Read a student's files of a class's download. One file is read like a path."""
    if not listing:
        raise Unreadable(f"there is no file, only a text that was typed in: {EXPECTED}")
    only = next(iter(listing))
    if len(listing) == 1 and only.lower().endswith(HANDED_IN):  # of any name
        return _read_file(only, listing[only])
    return _read_listing(listing)


def read_submission(path: Path) -> Submission:
    """Read models.py and the Python files beside and below it, by their paths relative to its folder.

    A submission is a Python file or a notebook of any name, which is graded as models.py; or a folder or zip that
    contains models.py at the top, under submission/, or in one other folder. Without a models.py, the only Python file
    with "models" in its name, the only notebook or the only zip takes its place. With models.py of a student's folder,
    the student's own files beside it are read, too.

    Raises:
        FileNotFoundError: path does not exist.
        Unreadable: anything else is wrong; the message says how to mend it.
    """
    with failures_as_unreadable(f"{shown(path.name)} cannot be read"):
        if path.is_dir():
            return _read_listing(list_folder(path))
        if path.is_file():
            submission = _read_file(path.name, _entry(path))
            return submission._replace(files=_with_sources(submission.files, _own_beside(path), ""))
        if path.exists():
            raise Unreadable(f"{shown(path.name)} is neither a file nor a folder: {EXPECTED}")
    raise FileNotFoundError(f"{path} does not exist: {EXPECTED}")


def _entry(path: Path) -> Entry:
    return Entry(path.stat().st_size, partial(open_file, path))


def _own_beside(path: Path) -> Listing:
    """List the files of a student's folder that were not handed out; none beside any other file."""
    listed = path.parent / HANDED_OUT
    if path.name != FILE or not listed.is_file():
        return {}
    handed_out = set(read(HANDED_OUT, _entry(listed), LARGEST_FILE).decode().splitlines())
    listing = without_passed_over(list_folder(path.parent))
    return {name: entry for name, entry in listing.items() if name not in handed_out}


def _read_file(name: str, entry: Entry, inner_zips: int = INNER_ZIPS) -> Submission:
    """Read a file as its content says, not its name: a zip, a notebook or Python source."""
    start = read_start(name, entry)
    if start.startswith(ZIP):
        source = entry.open if entry.on_disk else partial(io.BytesIO, read(name, entry, LARGEST_INNER))
        return _read_listing(list_zip(source), inner_zips)
    content, note = read_source(name, entry)
    return Submission({FILE: content}, note)


def _read_listing(listing: Listing, inner_zips: int = INNER_ZIPS) -> Submission:
    """Find models.py or the file in its place, and read it with the Python files beside and below it."""
    listing = without_passed_over(listing)
    check_limits(listing, "the submission")
    check_names(listing)
    main = _find(listing)
    if main.lower().endswith(".zip") or read_start(main, listing[main]).startswith(ZIP):
        return _read_inner(main, listing[main], inner_zips)
    home = main.rpartition("/")[0]
    content, note = read_source(main, listing[main])
    if not note and main.rpartition("/")[2] != FILE:
        note = f"{shown(main)} is graded as {FILE}"
    others = {name: entry for name, entry in listing.items() if name != main}
    return Submission(_with_sources({FILE: content}, others, home), note)


def _find(listing: Listing) -> str:
    """Find models.py or the one file in its place.

    Raises:
        Unreadable: there is none, or more than one.
    """
    homes = [name.removesuffix(FILE).rstrip("/") for name in listing if f"/{name}".endswith(f"/{FILE}")]
    if homes:
        return f"{_home(homes)}/{FILE}".lstrip("/")
    python = [name for name in listing if name.endswith(".py")]
    top = min((name.count("/") for name in python), default=0)
    python = [name for name in python if name.count("/") == top]
    renamed = [name for name in python if len(python) == 1 or f"/{name}".lower().endswith(f"/{FILE}")]
    notebooks = [name for name in listing if name.lower().endswith(".ipynb")]
    zips = [name for name in listing if name.lower().endswith(".zip")]
    for found in ([name for name in renamed if "models" in name.lower()], notebooks, zips):
        if len(found) == 1:
            return found[0]
    if not listing:
        raise Unreadable(f"there is no {FILE}, nor another file that is read: {EXPECTED}")
    if "[Content_Types].xml" in listing:
        raise Unreadable(f"it is a Word document or other office file: {EXPECTED}")
    for kind, found in (("notebooks", notebooks), ("zips", zips)):
        if len(found) > 1:
            raise Unreadable(f"there is no {FILE}, but {len(found):,} {kind}, {_some(found)}: expected one")
    raise Unreadable(f"there is no {FILE}, only {_some([*listing])}: {EXPECTED}")


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
    return f"{', '.join(map(shown, names[:3]))}{more}"


def _home(homes: list[str]) -> str:
    """Choose among the folders of several models.py: the first of FIRST, or the one that contains the others."""
    for first in FIRST:
        if first in homes:
            return first
    top = min(homes, key=len)
    if all(f"{home}/".startswith(f"{top}/") for home in homes):
        return top
    raise Unreadable(f"there is more than one {FILE}, in {_some(homes)}: expected one, at the top or under submission/")


def _with_sources(main: dict[str, bytes], listing: Listing, home: str) -> dict[str, bytes]:
    """Add the Python files in a folder and below it to models.py, by their paths relative to it."""
    start = f"{home}/" if home else ""
    names = [name for name in listing if name.endswith(".py") and name.startswith(start)]
    if len(names) > MOST_SOURCES:
        raise Unreadable(f"there are {len(names):,} Python files: expected at most {MOST_SOURCES}, {FILE} and its own")
    files: dict[str, bytes] = {}
    total = 0
    for name in names:
        content = read(name, listing[name], LARGEST_FILE)
        total += len(content)
        if total > LARGEST_SOURCES:
            raise Unreadable(
                f"the Python files are larger than {LARGEST_SOURCES:,} bytes together: keep only those in use"
            )
        files[name.removeprefix(start)] = content
    files |= main
    for name in files:
        parents = [name[:place] for place, character in enumerate(name) if character == "/"]
        if not files.keys().isdisjoint(parents):
            raise Unreadable(f"there are a file and a folder of the same name, above {shown(name)}: rename one")
    return files


def _read_inner(name: str, entry: Entry, inner_zips: int) -> Submission:
    """Read the only zip in a folder or zip."""
    if inner_zips == 0:
        raise Unreadable(f"there are more than {INNER_ZIPS} zips inside each other: {EXPECTED}")
    try:
        return _read_file(name, entry, inner_zips - 1)
    except Unreadable as error:
        place = "" if str(error).startswith(shown(name)) else f"in {shown(name)}: "
        raise Unreadable(f"{place}{error}") from error
