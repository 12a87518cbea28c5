"""Listings of folders and zips: files by their names, within limits, without unpacking.

Folders and zips give the same kind of listing, in linear time. Every error of the operating system or of ``zipfile``
becomes ``Unreadable``, with one line for the author.
"""

import contextlib
import io
import itertools
import os
import re
import stat
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, NamedTuple

from cli.text import printable

FILE = "models.py"
LARGEST_DIRECTORY = 2**23  # bytes of a zip's directory, of which zipfile makes one object for each entry
MOST_LISTED = 65_535  # files and folders, including those that are passed over
MOST_FILES = 20_000
LARGEST_SUBMISSION = 2**30  # bytes that all files of a submission would unpack to
LARGEST_CLASS = 2**36
LARGEST_INNER = 2**26  # bytes of a zip in a zip, which is unpacked into memory
DEEPEST = 32  # folders inside each other
LONGEST_NAME = 200  # bytes, of a file or a folder
LONGEST_PATH = 1000
SMALLER = "leave out data and runs"
SHOWN = 100  # characters of a name in a message
CHUNK = 2**20
LOCAL_HEADER = 30  # bytes before the name and the content of a file in a zip
DIRECTORY_HEADER = 46  # bytes before its name in the zip's directory
LARGEST_EXTRA = 1024  # bytes of an entry's extra fields; zipfile takes time in the square of it

# These names and those that begin with a dot are passed over. The last one is the icon of a folder on macOS.
PASSED_OVER = ("__MACOSX", "__pycache__", "site-packages", "node_modules", "Icon\r")
ENVIRONMENT = ("pyvenv.cfg", "conda-meta/history")  # a folder with one of these is a virtual environment

_ODD = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class Unreadable(Exception):
    """A submission that cannot be used, with the reason for its author."""


class Entry(NamedTuple):
    """A file in a folder or a zip. ``trouble`` says why its name is refused; "" if it is not."""

    size: int
    open: Callable[[], IO[bytes]]
    on_disk: bool = True
    trouble: str = ""


Listing = dict[str, Entry]  # by clean POSIX names, relative to the top


def shown(text: str) -> str:
    """Make a string from an upload fit for a message: short, on one line, and printable."""
    readable = printable(text[: SHOWN + 1])
    return readable if len(readable) <= SHOWN else f"{readable[: SHOWN - 1]}…"


@contextlib.contextmanager
def failures_as_unreadable(message: str) -> Iterator[None]:
    """Raise Unreadable in place of every other exception, because damaged zips raise nearly all that exist."""
    try:
        yield
    except Unreadable:
        raise
    except Exception as error:
        reason = str((error.strerror if isinstance(error, OSError) else "") or error) or type(error).__name__
        raise Unreadable(f"{message} ({shown(reason)})") from error


def read(name: str, entry: Entry, limit: int) -> bytes:
    """Read a file of at most this many bytes. The declared size is not trusted."""
    too_large = Unreadable(f"{shown(name)} is larger than {limit:,} bytes")
    if entry.size > limit:
        raise too_large
    content = io.BytesIO()
    with failures_as_unreadable(f"{shown(name)} cannot be read"), entry.open() as file:
        for chunk in iter(partial(file.read, CHUNK), b""):
            content.write(chunk)
            if content.tell() > limit:
                raise too_large
    return content.getvalue()


def read_start(name: str, entry: Entry) -> bytes:
    """Read the bytes of a file that tell its kind."""
    with failures_as_unreadable(f"{shown(name)} cannot be read"), entry.open() as file:
        return file.read(512)


def open_file(path: Path) -> IO[bytes]:
    return path.open("rb")


def check_limits(listing: Listing, subject: str, largest: int = LARGEST_SUBMISSION) -> None:
    """Raise Unreadable where a listing is too long or too large."""
    if len(listing) > MOST_FILES:
        raise Unreadable(f"{subject} holds {len(listing):,} files: expected at most {MOST_FILES:,}; {SMALLER}")
    total = sum(entry.size for entry in listing.values())
    if total > largest:
        raise Unreadable(f"{subject} would unpack to {total:,} bytes: expected at most {largest:,}; {SMALLER}")


def _clean(name: str) -> str:
    """Write a name with single slashes in place of Windows's backslashes, and without lone surrogates."""
    text = name.replace("\\", "/").encode("utf-8", "backslashreplace").decode()
    return "/".join(part for part in text.split("/") if part not in ("", "."))


def _trouble(name: str) -> str:
    """Say why a file of this name is refused, in a folder of any name; "" if it is not."""
    parts = name.replace("\\", "/").split("/")
    if parts[0] == "" or ".." in parts or (name[:1].isalpha() and name[1:2] == ":"):
        return f"the path {shown(name)} leads out of the submission: make the zip from the files in your folder"
    if _ODD.search(name.replace("Icon\r", "")):
        return f"the path {shown(name)} has odd characters: rename it"
    return ""


def check_names(listing: Listing) -> None:
    """Raise Unreadable where a name is refused."""
    for name, entry in listing.items():
        if entry.trouble:
            raise Unreadable(entry.trouble)
        parts = name.split("/")
        if len(parts) > DEEPEST + 1:  # the folders and the file
            raise Unreadable(f"there are more than {DEEPEST} folders inside each other, at {shown(name)}")
        sizes = [len(part.encode()) for part in parts]
        if max(sizes) > LONGEST_NAME or sum(sizes) > LONGEST_PATH:
            raise Unreadable(
                f"the path {shown(name)} is too long: expected at most {LONGEST_NAME} bytes for a name and "
                f"{LONGEST_PATH} for a path; rename it"
            )


def list_folder(folder: Path) -> Listing:
    """List the files of a folder. Links to folders are not followed.

    A folder that is passed over or lies too deep is listed as if it were a file.
    """
    listing: Listing = {}
    waiting = [""]
    with failures_as_unreadable("the folder cannot be read"):
        while waiting:
            place = waiting.pop()
            with os.scandir(folder / place) as entries:
                for each in entries:
                    if len(listing) + len(waiting) > MOST_LISTED:
                        raise Unreadable(f"the folder holds more than {MOST_LISTED:,} files: {SMALLER}")
                    name = f"{place}/{each.name}" if place else each.name
                    if each.is_dir(follow_symlinks=False) and _is_searched(folder, name):
                        waiting.append(name)
                    else:
                        size = each.stat(follow_symlinks=False).st_size
                        _add(listing, name, Entry(size, partial(_open_file, folder, name), True, _trouble(name)))
    return dict(sorted(listing.items()))


def _is_searched(folder: Path, name: str) -> bool:
    too_deep = name.count("/") > DEEPEST or len(name) > 3 * LONGEST_PATH
    return not (too_deep or is_passed_over(name.rpartition("/")[2]))


def _add(listing: Listing, name: str, entry: Entry) -> None:
    clean = _clean(name)
    if not clean:
        return
    trouble = entry.trouble
    if clean in listing:
        trouble = f"there are two files of the name {shown(clean)}: remove or rename one"
    listing[clean] = Entry(entry.size, partial(_refuse, trouble), entry.on_disk, trouble) if trouble else entry


def _refuse(trouble: str) -> IO[bytes]:
    raise Unreadable(trouble)


def is_passed_over(name: str) -> bool:
    """Tell whether a file or folder of this name is no part of a submission."""
    return (name.startswith(".") and name != "..") or name in PASSED_OVER


def _open_file(folder: Path, name: str) -> IO[bytes]:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise Unreadable(f"{shown(name)} is a link that leads out of the submission: expected the file itself")
    if not path.is_file():  # to open a named pipe would take forever
        raise Unreadable(f"{shown(name)} is not a regular file")
    return open_file(path)


def list_zip(source: Callable[[], IO[bytes]]) -> Listing:
    """List the files of a zip.

    Args:
        source: a function that opens the zip; its files are closed after each read.
    """
    with failures_as_unreadable("the zip is damaged: make it again"):
        archive = zipfile.ZipFile(_Window(source))
        _check_overlaps(archive.infolist())
        listing: Listing = {}
        for info in archive.infolist():
            name = info.orig_filename  # zipfile cuts the other one, filename, at a NUL
            trouble = _trouble(name)
            if trouble or not name.endswith(("/", "\\")):
                _add(listing, name, Entry(info.file_size, partial(_open_entry, archive, info), False, trouble))
    return listing


class _Window:
    """The bytes of a zip for zipfile, by reads of bounded size. The file is open only while it is read."""

    def __init__(self, source: Callable[[], IO[bytes]]) -> None:
        self._source = source
        self._place = 0
        with source() as file:
            self._size = file.seek(0, io.SEEK_END)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        place = offset + (0, self._place, self._size)[whence]
        if place < 0:
            raise OSError("the zip is cut off")
        self._place = place
        return place

    def tell(self) -> int:
        return self._place

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        left = max(0, self._size - self._place)
        size = left if size < 0 else min(size, left)
        if size > LARGEST_DIRECTORY:
            raise Unreadable(f"the zip's directory is larger than {LARGEST_DIRECTORY:,} bytes: {SMALLER}")
        with self._source() as file:
            file.seek(self._place)
            content = file.read(size)
        self._place += len(content)
        _check_directory(content)
        return content


def _check_directory(content: bytes) -> None:
    """Raise Unreadable where a zip's directory would take zipfile long; other parts of a zip pass."""
    place = 0
    for _ in range(MOST_LISTED):
        if not content.startswith(b"PK\1\2", place) or len(content) < place + DIRECTORY_HEADER:
            return
        name_size, extra_size, comment_size = struct.unpack_from("<3H", content, place + 28)
        if extra_size > LARGEST_EXTRA:
            raise Unreadable(f"the zip is damaged: an entry has {extra_size:,} bytes of extra fields: make it again")
        place += DIRECTORY_HEADER + name_size + extra_size + comment_size
    raise Unreadable(f"the zip holds {MOST_LISTED:,} files or more: {SMALLER}")


def without_passed_over(listing: Listing) -> Listing:
    """Leave out hidden files, caches, and virtual environments that have no models.py beside their mark."""
    marked = {name.removesuffix(f"/{mark}") for name in listing for mark in ENVIRONMENT if name.endswith(f"/{mark}")}
    environments = {folder for folder in marked if f"{folder}/{FILE}" not in listing}
    own: Listing = {}
    for name, entry in listing.items():
        parts = name.split("/")
        if any(map(is_passed_over, parts)):
            continue
        folders = itertools.accumulate(parts, "{}/{}".format) if environments else ()
        if environments.isdisjoint(folders):
            own[name] = entry
    return own


def _check_overlaps(entries: list[zipfile.ZipInfo]) -> None:
    end = 0
    for info in sorted(entries, key=lambda info: info.header_offset):
        if info.header_offset < end:
            raise Unreadable(f"the zip is damaged: {shown(info.filename)} overlaps another file: make it again")
        end = info.header_offset + LOCAL_HEADER + info.compress_size


def _open_entry(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    name = shown(info.orig_filename)
    if stat.S_ISLNK(info.external_attr >> 16):
        raise Unreadable(f"{name} is a link: expected the file itself in the zip")
    if info.flag_bits & 1:
        raise Unreadable(f"{name} is encrypted: make the zip without a password")
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # zipfile unpacks others without a bound
        raise Unreadable(f"{name} is compressed by method {info.compress_type}: make an ordinary zip (method Deflate)")
    if info.compress_size > info.file_size * 1.01 + 1000:  # as no program does; it would take long to read
        raise Unreadable(f"{name} cannot be read: the zip declares {info.file_size:,} bytes, which is too few")
    return archive.open(info)
