"""The releases of MovieLens: their archives and digests, and how they are found, fetched, checked and read.

The README of each describes it, and F. M. Harper and J. A. Konstan, "The MovieLens Datasets: History and Context", ACM
Transactions on Interactive Intelligent Systems 5(4), 2015. Their licence forbids redistribution, so they are fetched:
from GroupLens's server, and MovieLens 100K also from the package index, because RecBole's wheel carries it.
"""

import contextlib
import functools
import hashlib
import io
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from cli.files import check_folder, write_whole
from datasets import download, items, reading
from datasets.cache import cached
from datasets.ids import IdColumn, Ids
from datasets.items import Item
from datasets.ratings import Ratings, each_pair_once
from datasets.textfile import InputFile

URL = "https://files.grouplens.org/datasets/movielens/"
DEFAULT = "ml-100k"
ZIP_SHA256 = "50d2a982c66986937beb9ffb3aa76efe955bf3d5c6b761f4e3a7cd717c6a3229"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"
# SHA-256 of MovieLens 100K's (user, item, rating) triples in the source's order and IDs, as little-endian int32.
RATINGS_SHA256 = "360a20f6a6103988bcf221e50b873335450875d7b065b3fa26f3f8a0b34b9ca2"


class Archive(NamedTuple):
    """A published archive that holds a release."""

    filename: str
    folder: str  # in the archive, with the two files
    ratings: str = "ratings.csv"  # the names of the two files
    titles: str = "movies.csv"
    md5: str = ""  # of both digests none where GroupLens replaces the archive, or publishes a digest only beside it
    sha256: str = ""
    size: int = 0  # bytes; 0 where it can change
    encoding: str = "utf-8"  # of the titles

    @property
    def url(self) -> str:
        return f"{URL}{self.filename}"


class Place(NamedTuple):
    """An archive on disk, or its unzipped folder."""

    archive: Archive
    path: Path


def _dat(name: str, folder: str, md5: str, encoding: str = "utf-8") -> tuple[Archive, ...]:
    return (Archive(f"{name}.zip", folder, "ratings.dat", "movies.dat", md5, encoding=encoding),)


# The archives that hold a release, GroupLens's own first.
RELEASES = {
    DEFAULT: (
        Archive("ml-100k.zip", "ml-100k", "u.data", "u.item", sha256=ZIP_SHA256, size=4_924_029, encoding="latin-1"),
        Archive(
            "recbole-1.2.1-py3-none-any.whl",
            "recbole/dataset_example/ml-100k",
            "ml-100k.inter",
            "ml-100k.item",
            sha256=WHEEL_SHA256,
            size=2_130_151,
        ),
    ),
    "ml-latest-small": (Archive("ml-latest-small.zip", "ml-latest-small"),),
    "ml-1m": _dat("ml-1m", "ml-1m", "c4d9eecfca2ab87c1945afe126590906", "latin-1"),
    "ml-10m": _dat("ml-10m", "ml-10M100K", "ce571fd55effeba0271552578f2648bd"),
    "ml-20m": (Archive("ml-20m.zip", "ml-20m", md5="cd245b17a1ae2cc31bb14903e1204af3"),),
    "ml-25m": (Archive("ml-25m.zip", "ml-25m", md5="6b51fb2759a8657d3bfcbfc42b592ada"),),
    "ml-32m": (Archive("ml-32m.zip", "ml-32m"),),
    "ml-latest": (Archive("ml-latest.zip", "ml-latest"),),
}


def read(name: str, data_dir: Path) -> Ratings:
    """Read a release of MovieLens, which is fetched where it is not in ``data_dir``; raise as ``data.read``."""
    if name == DEFAULT:
        return _read_100k(data_dir)
    found = find(name, data_dir)
    place = found[0] if found else _fetch(RELEASES[name][0], data_dir)
    sources = list(dict.fromkeys(file.path for file in files_in(place) if file is not None))
    return cached(data_dir, sources, name, functools.partial(_read_place, place))


def find(name: str, data_dir: Path) -> list[Place]:
    """Return the folders and archives in ``data_dir`` that hold a release, in the order of preference."""
    places = _places(name, data_dir)
    return [place for place in places if place.path.is_file() or (place.path / place.archive.ratings).exists()]


def files_in(place: Place) -> tuple[InputFile, InputFile | None]:
    """Return the file of ratings and, where there is one, of titles; raise ValueError where the archive is damaged."""
    archive, path = place
    if not path.is_file():
        titles = InputFile(path / archive.titles)
        return InputFile(path / archive.ratings), titles if titles.path.exists() else None
    try:
        with zipfile.ZipFile(path) as opened:
            members = opened.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{path} is damaged: {error}; remove it and fetch {archive.url} again") from None
    ratings, titles = (InputFile(path, f"{archive.folder}/{name}") for name in (archive.ratings, archive.titles))
    if ratings.member not in members:
        raise ValueError(f"{path} has no {ratings.member} in it: expected the archive {archive.url}")
    return ratings, titles if titles.member in members else None


def check_archive(archive: Archive, path: Path, final: Path) -> None:
    """Raise ValueError where a file's digest differs from the published one, which may be beside its final path."""
    beside = final.with_name(f"{final.name}.md5")
    if not archive.md5 and beside.exists():
        archive = archive._replace(md5=_digest_in(beside.read_bytes()))
    if not archive.md5:
        return
    try:
        _check_digest(archive, path.open("rb"))
    except ValueError as error:
        raise ValueError(
            f"{final}: {error}: remove it and fetch {archive.url} again; "
            "to use another release as it is, unzip it beside"
        ) from None


def _places(name: str, data_dir: Path) -> list[Place]:
    """Return the places where a release can be: GroupLens's folder by both its names, and the archives."""
    archives = RELEASES[name]
    folders = dict.fromkeys((data_dir / name, data_dir / archives[0].folder))
    return [Place(archives[0], folder) for folder in folders] + [Place(a, data_dir / a.filename) for a in archives]


def _read_place(place: Place) -> Ratings:
    if place.path.is_file():
        check_archive(place.archive, place.path, place.path)
    ratings_file, titles_file = files_in(place)
    ratings = each_pair_once(reading.read(ratings_file))
    return items.add_titles(ratings, titles_file, place.archive.encoding)


def _fetch(archive: Archive, data_dir: Path) -> Place:
    """Download an archive and, where its digest is only published beside it, that digest."""
    path = data_dir / archive.filename
    check_folder(data_dir)
    try:
        if not archive.md5:
            digest = download.from_url(f"{archive.url}.md5", 2**12)
            if not _digest_in(digest):
                raise OSError(f"{archive.url}.md5 has no digest in it")
            write_whole(digest, data_dir / f"{archive.filename}.md5")
        download.to_file(archive.url, path, lambda partial: check_archive(archive, partial, path))
    except OSError as error:
        raise FileNotFoundError(
            f"MovieLens {path.stem} is not in {data_dir}, and could not be fetched: {error}. "
            f"To place it by hand, put {archive.url} at {path}, or unzip it there"
        ) from error
    return Place(archive, path)


def _check_digest(archive: Archive, opened: IO[bytes]) -> None:
    """Raise ValueError where the digest of a file is not that of the archive; close the file."""
    expected = archive.sha256 or archive.md5
    digest = hashlib.sha256() if archive.sha256 else hashlib.md5(usedforsecurity=False)
    with opened as file:
        start = file.read(2**10)
        file.seek(0)
        while part := file.read(2**20):
            digest.update(part)
        length = file.tell()
    if digest.hexdigest() != expected:
        page = " (a web page; is there a login page in between?)" if start.lstrip()[:1] == b"<" else ""
        kind = "SHA-256" if archive.sha256 else "MD5"
        size = f"{archive.size:,} with " if archive.size else ""
        raise ValueError(f"{length:,} bytes with {kind} {digest.hexdigest()}{page}, expected {size}{expected}")


def _digest_in(content: bytes) -> str:
    found = re.search(rb"\b[0-9a-fA-F]{32}\b", content)
    return found.group().decode().lower() if found else ""


def _read_100k(data_dir: Path) -> Ratings:
    """Read MovieLens 100K from the first source that has it whole; ``data.load`` documents the sources."""
    grouplens, wheel = RELEASES[DEFAULT]
    package = "recbole==1.2.1"
    sources: dict[str, Callable[[], Ratings]] = {
        str(place.path): functools.partial(_read_verified, place) for place in _places(DEFAULT, data_dir)
    }
    sources[grouplens.url] = lambda: _keep(grouplens, download.from_url(grouplens.url, grouplens.size), data_dir)
    sources[f"pip download {package}"] = lambda: _keep(
        wheel, download.from_package_index(package, wheel.filename, wheel.size, wheel.sha256), data_dir
    )
    passed_over: dict[str, str] = {}
    for name, read_source in sources.items():
        if name == grouplens.url:
            check_folder(data_dir)
        try:
            ratings = read_source()
        except (OSError, ValueError) as error:
            reason = "not there" if isinstance(error, FileNotFoundError) else str(error) or type(error).__name__
            passed_over[name] = " ".join(reason.split())
        else:
            for source, reason in passed_over.items():
                if reason != "not there":
                    print(f"MovieLens 100K: passed over {source}: {reason}", file=sys.stderr)
            return ratings
    with contextlib.suppress(OSError):
        data_dir.rmdir()  # if it is empty, it was made for a download that failed
    raise FileNotFoundError(
        f"MovieLens 100K was not found: {'; '.join(f'{name}: {reason}' for name, reason in passed_over.items())}. "
        f"To place it by hand, put {grouplens.url} at {data_dir / grouplens.filename}"
    )


def _keep(archive: Archive, content: bytes, data_dir: Path) -> Ratings:
    """Check an archive that was fetched, keep it in ``data_dir``, and read it."""
    _check_digest(archive, io.BytesIO(content))
    write_whole(content, data_dir / archive.filename)
    return _read_verified(Place(archive, data_dir / archive.filename))


def _read_verified(place: Place) -> Ratings:
    """Read MovieLens 100K, and check the archive and the ratings against their digests."""
    if place.path.is_file():
        _check_digest(place.archive, place.path.open("rb"))
    ratings_file, titles_file = files_in(place)
    content = ratings_file.read()
    if not content.strip():
        raise ValueError("no ratings in the file")
    header_lines = 0 if content[:1].isdigit() else 1  # only RecBole's file has a header
    # numpy and not pandas, whose import takes twenty times as long as these 100,000 lines.
    rows = np.loadtxt(io.BytesIO(content), dtype=np.int64, usecols=(0, 1, 2, 3), skiprows=header_lines, ndmin=2)
    if hashlib.sha256(rows[:, :3].astype("<i4").tobytes()).hexdigest() != RATINGS_SHA256:
        raise ValueError(f"{len(rows):,} ratings that are not the 100,000 of MovieLens 100K")
    users = IdColumn()
    users.add(rows[:, 0])
    movies = IdColumn()
    movies.add(rows[:, 1])
    user_ids, source_users = users.finish()
    item_ids, source_movies = movies.finish()
    stars, times = rows[:, 2].astype(np.float32), rows[:, 3].astype(np.float64)
    ratings = Ratings(user_ids, item_ids, stars, source_users, source_movies, times=times)
    return ratings._replace(titles=_read_titles(place.archive, titles_file, ratings.items))


def _read_titles(archive: Archive, file: InputFile | None, ids: Ids) -> tuple[str, ...]:
    """Read the titles of MovieLens 100K; () where the file is absent, or damaged, with a warning."""
    if file is None:
        return ()
    try:
        title_of = {item.id: _title(item) for item in items.parse(file.read().decode(archive.encoding), file)}
        return tuple(title_of[str(each)] for each in ids)
    except (ValueError, LookupError) as error:
        name = f"{archive.folder}/{archive.titles}"
        print(f"MovieLens 100K: no titles, because {name} is damaged: {error!r}", file=sys.stderr)
        return ()


def _title(item: Item) -> str:
    """Return the title as GroupLens has it: RecBole keeps the year in a column of its own, and has one typo."""
    if item.title == "unkonwn":
        return "unknown"
    return f"{item.title} ({item.year})" if item.year else item.title
