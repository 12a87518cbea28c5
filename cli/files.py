"""Files and folders that a command writes: checked before the work begins, and whole at every moment."""

import contextlib
import io
import os
import secrets
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

STALE_SECONDS = 600  # after which an unfinished file was left behind


def check_folder(folder: Path) -> None:
    """Make a folder, and raise OSError if files cannot be made in it."""
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(f"{folder} is a file: expected a folder, or nothing yet")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise OSError(f"folder {folder} cannot be written: {error.strerror}") from error


def lock(file: IO[str]) -> None:
    """Lock a file for this process, or raise BlockingIOError (PermissionError on Windows) where another one has it."""
    if sys.platform == "win32":
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def write_whole(payload: bytes | Callable[[IO[bytes]], object], path: Path) -> None:
    """Write a file that has its name only once all of it is on disk, whoever else writes it at the same time.

    Args:
        payload: what to write, or what writes it to a file.
        path: where.

    Raises:
        OSError: it cannot be written; what had the name before is still there.
    """
    for stale in path.parent.glob(f".{path.name}.*"):  # of a process that was killed in here
        with contextlib.suppress(FileNotFoundError):
            if time.time() - stale.stat().st_mtime > STALE_SECONDS:
                stale.unlink()
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with partial.open("xb") as file:
            if callable(payload):
                payload(file)
            else:
                file.write(payload)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        raise OSError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # the error above says more
            partial.unlink(missing_ok=True)


def write_zip(files: Mapping[str, bytes], path: Path) -> None:
    """Write a zip as ``write_whole`` does; the same files give the same bytes.

    Args:
        files: contents by their paths within the zip, with "/". Those that begin with "#!" can be executed.
        path: where.

    Raises:
        OSError: it cannot be written; what had the name before is still there.
    """
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (0o755 if content.startswith(b"#!") else 0o644) << 16
            archive.writestr(entry, content)
    write_whole(packed.getvalue(), path)
