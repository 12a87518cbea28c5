"""Output folders that are checked before the work begins, and output files that are never half written."""

import contextlib
import errno
import functools
import io
import os
import secrets
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

STALE_SECONDS = 600  # an older unfinished file was left by a killed process
# Of a file system that lacks an operation, such as some network shares and folders that a virtual machine shares.
UNSUPPORTED = (errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EINVAL)
NO_LOCKS = (errno.ENOLCK, *UNSUPPORTED)
NO_REPLACING = (errno.EBUSY, errno.EXDEV, errno.EEXIST, *UNSUPPORTED)  # the first two are of a file that is mounted


def check_folder(folder: Path) -> None:
    """Make a folder if it does not exist, and raise OSError if no file can be written in it."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: expected a folder, or a name that does not exist")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"folder {folder} cannot be written: {error.strerror}") from error


def lock(file: IO[str]) -> None:
    """Lock a file for this process; a line on stderr says so where the file system has no locks.

    Raises:
        BlockingIOError: another process holds the lock; on Windows PermissionError.
    """
    try:
        if sys.platform == "win32":
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _say_once(
            f"{Path(file.name).parent} is on a file system without locks ({error.strerror}): "
            "make sure that no other process writes there"
        )


@functools.cache
def _say_once(line: str) -> None:
    """Print a line on stderr, once in this process."""
    print(line, file=sys.stderr)


def write_whole(payload: bytes | Callable[[IO[bytes]], object], path: Path) -> None:
    """Write a file under a temporary name, and rename it once all of it is on disk.

    Several processes may write the same file at the same time; one of them wins. A device or a pipe, such as
    /dev/stdout, is written directly. Where the file system cannot replace a file, the file is written a second time,
    under its name, and a line on stderr says so.

    Args:
        payload: the content, or a function that writes it to a file.
        path: the name of the file.

    Raises:
        OSError: the file cannot be written; an earlier file of this name is unchanged.
    """
    if path.exists() and not path.is_file():
        with _named_errors(path), path.open("wb") as file:
            _write(payload, file)
        return
    for stale in path.parent.glob(f".{path.name}.*"):  # left by a killed process
        with contextlib.suppress(FileNotFoundError):
            if time.time() - stale.stat().st_mtime > STALE_SECONDS:
                stale.unlink()
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with _named_errors(path):
            with partial.open("xb") as file:
                _write(payload, file)
                file.flush()
                _wait_for_disk(file)
            _rename(partial, path)
    finally:
        with contextlib.suppress(OSError):  # the first error matters
            partial.unlink(missing_ok=True)


def _wait_for_disk(file: IO[bytes]) -> None:
    try:
        os.fsync(file.fileno())
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise


def _rename(partial: Path, path: Path) -> None:
    """Give a whole file its name, in place of an earlier file."""
    try:
        partial.replace(path)
    except OSError as error:
        if error.errno not in NO_REPLACING:
            raise
        _say_once(
            f"files in {path.parent} cannot be replaced ({error.strerror}), and are overwritten: "
            "one may be damaged if this process is killed"
        )
        with partial.open("rb") as whole, path.open("wb") as file:
            shutil.copyfileobj(whole, file)
            file.flush()
            _wait_for_disk(file)


def _write(payload: bytes | Callable[[IO[bytes]], object], file: IO[bytes]) -> None:
    if callable(payload):
        payload(file)
    else:
        file.write(payload)


@contextlib.contextmanager
def _named_errors(path: Path) -> Iterator[None]:
    """Name the file in an error of the operating system."""
    try:
        yield
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error


def write_zip(files: Mapping[str, bytes], path: Path) -> None:
    """Write a zip with ``write_whole``; the same files give the same bytes.

    Args:
        files: contents by their paths within the zip, with "/". Files that start with "#!" become executable.
        path: the name of the zip.

    Raises:
        OSError: the zip cannot be written; an earlier file of this name is unchanged.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if content.startswith(b"#!") else 0o644) << 16
            archive.writestr(entry, content)
    write_whole(packed.getvalue(), path)
