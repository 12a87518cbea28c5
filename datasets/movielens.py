"""MovieLens 100K from whichever source can be had, checked against published digests.

    ratings = movielens.load(Path("data"))       # a SourceRatings; data.load makes Interactions of it

It is described in F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", ACM Transactions on
Interactive Intelligent Systems 5(4), 2015. Its licence forbids passing it on, so it is fetched: from GroupLens's
server, or from the package index, where RecBole's wheel carries the same ratings. Another release of MovieLens gets its
archive, its digest and its format here.
"""

import contextlib
import hashlib
import io
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from cli import files
from datasets import download
from datasets.blocks import Source
from datasets.source import SourceRatings


class Archive(NamedTuple):
    """A published file that carries MovieLens 100K."""

    filename: str
    size: int  # bytes
    sha256: str
    ratings: str  # its member with a line a rating: user, item, rating, time
    titles: str  # its member with a line a movie
    read_titles: Callable[[bytes], dict[int, str]]
    header_lines: int


def _grouplens_titles(member: bytes) -> dict[int, str]:
    """u.item, described in the archive's README: Latin-1, id|title (year)|…"""
    rows = (line.split("|") for line in member.decode("latin-1").split("\n") if line.strip())
    return {int(row[0]): row[1].strip() for row in rows}


def _recbole_titles(member: bytes) -> dict[int, str]:
    """An atomic file of RecBole: UTF-8, a header, then id, title and year between tabs. Its one typo is undone."""
    rows = (line.split("\t") for line in member.decode("utf-8").split("\n")[1:] if line.strip())
    return {int(row[0]): "unknown" if row[1] == "unkonwn" else f"{row[1]} ({row[2]})" for row in rows}


GROUPLENS_URL = "https://files.grouplens.org/datasets/movielens/ml-100k.zip"
GROUPLENS = Archive(
    "ml-100k.zip",
    4_924_029,
    "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229",
    "ml-100k/u.data",
    "ml-100k/u.item",
    _grouplens_titles,
    header_lines=0,
)
RECBOLE = Archive(
    "recbole-1.2.1-py3-none-any.whl",
    2_130_151,
    "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407",
    "recbole/dataset_example/ml-100k/ml-100k.inter",
    "recbole/dataset_example/ml-100k/ml-100k.item",
    _recbole_titles,
    header_lines=1,
)
# Of the (user, item, rating) triples in the source's order and ids, as little-endian int32.
RATINGS_SHA256 = "360a20f6a6103988bcf221e50b873335450875d7b065b3fa26f3f8a0b34b9ca2"


def load(folder: Path) -> SourceRatings:
    """The 100,000 ratings of MovieLens 100K in the source's order; ``data.load`` documents where they come from.

    Raises:
        FileNotFoundError: no source works. The message says why, source by source, and what to do.
        OSError: there is no data in ``folder``, and none can be put there.
    """
    here: dict[str, Callable[[], SourceRatings]] = {
        str(folder / "ml-100k"): lambda: _read_folder(folder / "ml-100k"),
        str(folder / GROUPLENS.filename): lambda: _read_archive(GROUPLENS, (folder / GROUPLENS.filename).read_bytes()),
        str(folder / RECBOLE.filename): lambda: _read_archive(RECBOLE, (folder / RECBOLE.filename).read_bytes()),
    }
    elsewhere: dict[str, Callable[[], SourceRatings]] = {
        GROUPLENS_URL: lambda: _keep(GROUPLENS, download.from_url(GROUPLENS_URL, GROUPLENS.size), folder),
        "pip download recbole==1.2.1": lambda: _keep(
            RECBOLE,
            download.from_package_index("recbole==1.2.1", RECBOLE.filename, RECBOLE.size, RECBOLE.sha256),
            folder,
        ),
    }
    failures: list[str] = []
    for name, read in {**here, **elsewhere}.items():
        if name == GROUPLENS_URL:
            files.check_folder(folder)
        try:
            ratings = read()
        except (OSError, ValueError) as error:
            reason = "not there" if name in here and isinstance(error, FileNotFoundError) else error
            failures.append(f"{name}: {' '.join(str(reason).split()) or type(error).__name__}")
        else:
            for failure in failures:
                if not failure.endswith(": not there"):
                    print(f"MovieLens 100K: passed over {failure}", file=sys.stderr)
            return ratings
    with contextlib.suppress(OSError):
        folder.rmdir()  # if it is empty, it was made for what did not come
    raise FileNotFoundError(
        f"MovieLens 100K was not found: {'; '.join(failures)}. "
        f"To place it by hand, put {GROUPLENS_URL} at {folder / GROUPLENS.filename}"
    )


def titles_files(folder: Path) -> list[Source]:
    """The files with a line a movie, in the order in which ``load`` looks for ratings."""
    archives = [Source(folder / each.filename, each.titles) for each in (GROUPLENS, RECBOLE)]
    return [each for each in (Source(folder / "ml-100k" / "u.item"), *archives) if each.path.exists()]


def _read_folder(folder: Path) -> SourceRatings:
    titles = folder / "u.item"
    return _read_members(GROUPLENS, (folder / "u.data").read_bytes(), titles.read_bytes() if titles.exists() else b"")


def _read_archive(archive: Archive, payload: bytes) -> SourceRatings:
    """Check an archive as a whole, then read its two members in memory: no path in it ever reaches the disk."""
    sha256 = hashlib.sha256(payload).hexdigest()
    if (len(payload), sha256) != (archive.size, archive.sha256):
        page = " (a web page; is there a login page in between?)" if payload.lstrip()[:1] == b"<" else ""
        raise ValueError(
            f"{len(payload):,} bytes with SHA-256 {sha256[:12]}…{page}, "
            f"expected {archive.size:,} with {archive.sha256[:12]}…"
        )
    with zipfile.ZipFile(io.BytesIO(payload)) as members:
        return _read_members(archive, members.read(archive.ratings), members.read(archive.titles))


def _read_members(archive: Archive, ratings: bytes, titles: bytes) -> SourceRatings:
    """Parse the two members of an archive."""
    if not ratings.strip():
        raise ValueError("no ratings in the file")
    # numpy and not pandas, whose import takes twenty times as long as these 100,000 lines.
    rows = np.loadtxt(io.BytesIO(ratings), dtype=np.int64, usecols=(0, 1, 2), skiprows=archive.header_lines, ndmin=2)
    if hashlib.sha256(rows.astype("<i4").tobytes()).hexdigest() != RATINGS_SHA256:
        raise ValueError(f"{len(rows):,} ratings that are not the 100,000 of MovieLens 100K")
    users, items, stars = rows.T
    return SourceRatings(users, items, stars.astype(np.float32), _read_titles(archive, titles, set(items.tolist())))


def _read_titles(archive: Archive, member: bytes, items: set[int]) -> dict[int, str]:
    """The title of each item, or {} with a warning: ratings are not given up for them."""
    try:
        title_of = archive.read_titles(member) if member else {}
        return {item: title_of[item] for item in items} if title_of else {}
    except (ValueError, LookupError) as error:
        print(f"MovieLens 100K: no titles, because {archive.titles} is damaged: {error!r}", file=sys.stderr)
        return {}


def _keep(archive: Archive, payload: bytes, folder: Path) -> SourceRatings:
    """Read what was fetched and, now that it is known to be right, keep it in ``folder``."""
    ratings = _read_archive(archive, payload)
    files.write_whole(payload, folder / archive.filename)
    return ratings
