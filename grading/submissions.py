"""Submissions on disk: models.py and the files beside it, read from a file, a folder or a zip.

Nothing is unpacked: files are read into memory, within limits.
"""

import lzma
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO

FILE = "models.py"
HANDED_OUT = "handout.txt"  # in a student's folder, the list of the files that were handed out
FIRST = (".", "submission")  # the folders that are searched for models.py first
DEEPEST = 3  # levels of packages beside models.py
LARGEST_FILE = 2**20  # bytes
LARGEST_SOURCES = 2**24
LARGEST_ZIP = 2**30  # bytes that a zip would unpack to
MOST_ENTRIES = 20_000
LONGEST_NAME = 200  # bytes, of a file or a folder


class Unreadable(Exception):
    """A submission that cannot be used, with the reason for its author."""


def read_submission(path: Path) -> dict[str, bytes]:
    """Read models.py and the Python files beside and below it, by their paths relative to its folder.

    A submission is a Python file of any name, which is graded as models.py; or a folder or zip that contains models.py
    at the top, under submission/, or in one other folder. With models.py of a student's folder, the student's own files
    beside it are read, too.

    Raises:
        FileNotFoundError: path does not exist.
        Unreadable: models.py is missing, too large, damaged or a link; or a zip has a path that leads out of it.
    """
    if path.is_dir():
        files = _read_folder(path)
    elif not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: expected a models.py, a folder or a zip")
    elif zipfile.is_zipfile(path):
        files = _read_zip(path)
    else:
        files = {FILE: _read_file(path)} | _own_beside(path)
    if b"\0" in files[FILE]:
        raise Unreadable(f"{path.name} is neither Python source nor a zip")
    return files


def _own_beside(path: Path) -> dict[str, bytes]:
    """Read the Python files of a student's folder that were not handed out; none beside any other file."""
    listed = path.parent / HANDED_OUT
    if path.name != FILE or not listed.is_file():
        return {}
    handed_out = set(listed.read_text("utf-8").splitlines())
    found = {each.relative_to(path.parent).as_posix(): each for each in _python_files(path.parent)}
    return {name: _read_file(each) for name, each in found.items() if name not in handed_out}


def _home(names: Iterable[str]) -> str:
    """Find the folder of models.py among files, "." for the top.

    Raises:
        Unreadable: there is none, or more than one.
    """
    found = [path for path in map(PurePosixPath, names) if path.name == FILE]
    places = sorted({path.parent.as_posix() for path in found if not path.parts[0].startswith((".", "__MACOSX"))})
    for place in [*FIRST, *(places if len(places) == 1 else [])]:
        if place in places:
            return place
    several = f"more than one, in {', '.join(places[:3])}{' and more' if len(places) > 3 else ''}"
    raise Unreadable(f"there is {several if places else 'none'}: expected one {FILE}, at the top or under submission/")


def _read_folder(folder: Path) -> dict[str, bytes]:
    patterns = (FILE, f"*/{FILE}", f"*/submission/{FILE}")
    home = folder / _home(
        path.relative_to(folder).as_posix() for each in patterns for path in folder.glob(each) if path.is_file()
    )
    files: dict[str, bytes] = {}
    for path in _python_files(home):
        if not path.resolve().is_relative_to(folder.resolve()):
            raise Unreadable(f"{path.name} is a link that leads out of the submission")
        files[path.relative_to(home).as_posix()] = _read_file(path)
        _check_total(files)
    return files


def _python_files(folder: Path, depth: int = DEEPEST) -> Iterator[Path]:
    """List the Python files in a folder and in packages below it, without following links to folders."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix == ".py":
            yield path
        elif depth and path.is_dir() and not path.is_symlink() and (path / "__init__.py").is_file():
            yield from _python_files(path, depth - 1)


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        return _read(file, path.name)


def _read(file: IO[bytes], name: str) -> bytes:
    content = file.read(LARGEST_FILE + 1)  # the size that an entry of a zip declares can be false
    if len(content) > LARGEST_FILE:
        raise Unreadable(f"{name} is larger than {LARGEST_FILE:,} bytes")
    return content


def _read_zip(path: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            if len(entries) > MOST_ENTRIES:
                raise Unreadable(f"the zip holds {len(entries):,} files: expected at most {MOST_ENTRIES:,}")
            if (total := sum(entry.file_size for entry in entries)) > LARGEST_ZIP:
                raise Unreadable(f"the zip would unpack to {total:,} bytes: expected at most {LARGEST_ZIP:,}")
            for entry in entries:
                _check_entry(entry)
            contents = {entry.filename: entry for entry in entries if not entry.is_dir()}
            home = _home(contents)
            files: dict[str, bytes] = {}
            for name, entry in contents.items():
                place = PurePosixPath(name)
                if place.suffix == ".py" and place.is_relative_to(home):
                    with archive.open(entry) as file:
                        files[place.relative_to(home).as_posix()] = _read(file, name)
                    _check_total(files)
    except (
        zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError, NotImplementedError, RuntimeError, ValueError
    ) as error:  # fmt: skip
        raise Unreadable(f"the zip cannot be read: {error}") from error
    for name in files:
        if any(parent.as_posix() in files for parent in PurePosixPath(name).parents):
            raise Unreadable(f"the zip holds a file and a folder of the same name, above {name}")
    return files


def _check_entry(entry: zipfile.ZipInfo) -> None:
    name = entry.filename
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if name.startswith(("/", "\\")) or ".." in parts or ":" in name.partition("/")[0]:
        raise Unreadable(f"the zip holds the path {name!r}, which leads out of it")
    if not name.isprintable() or max((len(part.encode()) for part in parts), default=0) > LONGEST_NAME:
        raise Unreadable(f"the zip holds a path that is too long or has odd characters, {name[:LONGEST_NAME]!r}")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise Unreadable(f"the zip holds a link, {name!r}")


def _check_total(files: dict[str, bytes]) -> None:
    if sum(map(len, files.values())) > LARGEST_SOURCES:
        raise Unreadable(f"the Python files are larger than {LARGEST_SOURCES:,} bytes together")
