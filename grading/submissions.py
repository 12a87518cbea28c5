"""Finding a submission's models.py: in a file, a folder, or a zip as a student uploads it.

Nothing is unpacked: what is needed is read into memory, within limits.
"""

import stat
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

FILE = "models.py"
BESIDE = ("", "submission")  # the folders of a submission in which it is looked for
LARGEST_FILE = 2**20  # bytes
LARGEST_SOURCES = 2**24
LARGEST_ZIP = 2**30  # bytes that a zip would unpack to
MOST_ENTRIES = 20_000


class Unreadable(ValueError):
    """The submission cannot be used; says why, to its author."""


class Missing(Unreadable):
    """It holds no models.py."""


def read(path: Path) -> dict[str, bytes]:
    """The Python files of a submission.

    Args:
        path: a Python file of any name, which is graded as models.py; or a folder or a zip that holds models.py at its
            top or under submission/, or has a single folder in which that is so.

    Returns:
        models.py, and what lies beside it and below, by their paths relative to models.py's folder.

    Raises:
        FileNotFoundError: there is nothing at path.
        Missing: there is no models.py.
        Unreadable: it is too large, damaged, or a zip with paths that lead out of it.
    """
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: expected a models.py, a folder or a zip")
    if zipfile.is_zipfile(path):
        return _read_zip(path)
    return {FILE: _read_file(path)}


def _home(names: Iterable[str]) -> str:
    """The folder of models.py among files, "" for the top.

    Raises:
        Missing: there is none.
    """
    files = {name for name in names if not name.startswith("__MACOSX/")}
    tops = {name.partition("/")[0] for name in files}
    single = [tops.pop()] if len(tops) == 1 else []
    for folder in [*BESIDE, *("/".join(filter(None, (top, each))) for top in single for each in BESIDE)]:
        if (f"{folder}/{FILE}" if folder else FILE) in files:
            return folder
    raise Missing(f"there is no {FILE}: expected it at the top or under submission/")


def _read_folder(folder: Path) -> dict[str, bytes]:
    entries = {each.name: each for each in folder.iterdir()}
    names = [FILE] if FILE in entries else []
    visible = [each for name, each in entries.items() if not name.startswith((".", "__"))]
    for inner in [folder / "submission", *(visible if len(visible) == 1 else [])]:
        names += [
            (inner / place / FILE).relative_to(folder).as_posix()
            for place in BESIDE
            if (inner / place / FILE).is_file()
        ]
    home = folder / _home(names)
    files: dict[str, bytes] = {}
    for path in _python_files(home):
        files[path.relative_to(home).as_posix()] = _read_file(path)
        _check_total(files)
    return files


def _python_files(folder: Path, depth: int = 3) -> Iterable[Path]:
    """Python files in a folder and in packages below it; links to folders are not followed."""
    for path in sorted(folder.iterdir()):
        if path.is_file() and path.suffix == ".py":
            yield path
        elif depth and path.is_dir() and not path.is_symlink() and (path / "__init__.py").is_file():
            yield from _python_files(path, depth - 1)


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(LARGEST_FILE + 1)
    if len(content) > LARGEST_FILE:
        raise Unreadable(f"{path.name} is larger than {LARGEST_FILE:,} bytes")
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
                    # What an entry says of its size need not be true.
                    with archive.open(entry) as file:
                        content = file.read(LARGEST_FILE + 1)
                    if len(content) > LARGEST_FILE:
                        raise Unreadable(f"{name} is larger than {LARGEST_FILE:,} bytes")
                    files[place.relative_to(home).as_posix()] = content
                    _check_total(files)
            return files
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise Unreadable(f"the zip cannot be read: {error}") from error


def _check_entry(entry: zipfile.ZipInfo) -> None:
    parts = PurePosixPath(entry.filename.replace("\\", "/")).parts
    if entry.filename.startswith(("/", "\\")) or ".." in parts or ":" in entry.filename.partition("/")[0]:
        raise Unreadable(f"the zip holds the path {entry.filename!r}, which leads out of it")
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise Unreadable(f"the zip holds a link, {entry.filename!r}")


def _check_total(files: dict[str, bytes]) -> None:
    if sum(map(len, files.values())) > LARGEST_SOURCES:
        raise Unreadable(f"the Python files are larger than {LARGEST_SOURCES:,} bytes together")
