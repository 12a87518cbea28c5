"""The other releases of MovieLens: where they are, how each is laid out, and by which digest it is known.

They are described in the README of each; all are in https://files.grouplens.org/datasets/movielens/.
"""

import hashlib
import re
import zipfile
from pathlib import Path
from typing import NamedTuple

from cli.files import check_folder, write_whole
from datasets import download
from datasets.blocks import Source

URL = "https://files.grouplens.org/datasets/movielens/"


class Release(NamedTuple):
    """A release of MovieLens.

    Attributes:
        folder: in which its archive has the files.
        ending: of ``ratings`` and ``movies``.
        md5: of the archive; None where GroupLens replaces the release, or publishes the digest beside it only.
        encoding: of the titles.
    """

    folder: str
    ending: str
    md5: str | None = None
    encoding: str = "utf-8"


RELEASES = {
    "ml-latest-small": Release("ml-latest-small", "csv"),
    "ml-1m": Release("ml-1m", "dat", "c4d9eecfca2ab87c1945afe126590906", "latin-1"),
    "ml-10m": Release("ml-10M100K", "dat", "ce571fd55effeba0271552578f2648bd"),
    "ml-20m": Release("ml-20m", "csv", "cd245b17a1ae2cc31bb14903e1204af3"),
    "ml-25m": Release("ml-25m", "csv", "6b51fb2759a8657d3bfcbfc42b592ada"),
    "ml-32m": Release("ml-32m", "csv"),
    "ml-latest": Release("ml-latest", "csv"),
}


def find(name: str, data_dir: Path) -> Path | None:
    """The unzipped folder or else the archive of a release in a folder, or None."""
    release = RELEASES[name]
    for folder in (data_dir / name, data_dir / release.folder):
        if (folder / f"ratings.{release.ending}").exists():
            return folder
    archive = data_dir / f"{name}.zip"
    return archive if archive.exists() else None


def fetch(name: str, data_dir: Path) -> Path:
    """Download a release's archive and, where GroupLens has it, the digest beside it; returns the archive.

    Raises:
        FileNotFoundError: it cannot be had; the message says why, and what to do.
        ValueError: what came has another digest.
        OSError: it cannot be kept.
    """
    archive = data_dir / f"{name}.zip"
    check_folder(data_dir)
    try:
        if RELEASES[name].md5 is None:
            digest = download.from_url(f"{URL}{name}.zip.md5", 2**12)
            if _digest_in(digest) is None:
                raise OSError(f"{URL}{name}.zip.md5 has no digest in it")
            write_whole(digest, data_dir / f"{name}.zip.md5")
        download.to_file(f"{URL}{name}.zip", archive, lambda path: check_digest(name, path, archive))
    except OSError as error:
        raise FileNotFoundError(
            f"MovieLens {name} is not in {data_dir}, and could not be fetched: {error}. "
            f"To place it by hand, put {URL}{name}.zip at {archive}, or unzip it there"
        ) from error
    return archive


def check_digest(name: str, path: Path, archive: Path) -> None:
    """Raise ValueError unless an archive has the published digest, if there is one to be had.

    Args:
        name: the release.
        path: the file to check.
        archive: where it is or is to be; the digest may be beside it.
    """
    expected, beside = RELEASES[name].md5, archive.with_name(f"{archive.name}.md5")
    if expected is None and beside.exists():
        expected = _digest_in(beside.read_bytes())
    if expected is None:
        return
    md5 = hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while part := file.read(2**20):
            md5.update(part)
    if md5.hexdigest() != expected:
        raise ValueError(
            f"{archive}: {path.stat().st_size:,} bytes with MD5 {md5.hexdigest()}, expected {expected}: "
            f"remove it and fetch {URL}{name}.zip again; to use another release as it is, unzip it beside"
        )


def files(name: str, place: Path) -> tuple[Source, Source | None]:
    """The ratings and the titles in a release's folder or archive.

    Raises:
        ValueError: the archive is damaged or of something else.
    """
    release = RELEASES[name]
    ratings, titles = f"ratings.{release.ending}", f"movies.{release.ending}"
    if place.is_dir():
        return Source(place / ratings), Source(place / titles) if (place / titles).exists() else None
    check_digest(name, place, place)
    try:
        with zipfile.ZipFile(place) as archive:
            members = archive.namelist()
    except zipfile.BadZipFile as error:
        raise ValueError(f"{place} is damaged: {error}; fetch {URL}{name}.zip again") from None
    if f"{release.folder}/{ratings}" not in members:
        raise ValueError(f"{place} has no {release.folder}/{ratings} in it: it is no archive of {name}")
    titles = f"{release.folder}/{titles}"
    return Source(place, f"{release.folder}/{ratings}"), Source(place, titles) if titles in members else None


def titles_file(name: str, place: Path) -> Source | None:
    """The titles in a release's folder or archive, whose digest was checked when its ratings were read."""
    release = RELEASES[name]
    if not place.is_dir():
        member = f"{release.folder}/movies.{release.ending}"
        with zipfile.ZipFile(place) as archive:
            return Source(place, member) if member in archive.namelist() else None
    path = place / f"movies.{release.ending}"
    return Source(path) if path.exists() else None


def _digest_in(content: bytes) -> str | None:
    found = re.search(rb"\b[0-9a-fA-F]{32}\b", content)
    return found.group().decode().lower() if found else None
