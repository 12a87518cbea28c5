"""Downloads over a network that may be slow, absent or in the way.

Each function returns the whole file, or raises OSError after at most ``TIMEOUT`` seconds without an answer. A small
file stays in memory until the caller has checked and written it. A large file is written under another name, from
which a later call resumes, and gets its own name after the check.
"""

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple, NoReturn

from tqdm import tqdm

from cli import files

TIMEOUT = 8.0  # seconds without an answer
SLOWEST = 2**13  # bytes per second; a slower source counts as silent
CHUNK = 2**16  # bytes


def from_url(url: str, size: int) -> bytes:
    """Read a URL with a progress bar; of a longer answer, at most one chunk more than ``size`` bytes.

    Raises:
        OSError: no connection, no answer within TIMEOUT, or a refusal.
    """
    payload = bytearray()
    with _progress_bar(url.rpartition("/")[2], size) as bar:
        for chunk in _answer(url)[1]:
            payload += chunk
            bar.update(len(chunk))
            if len(payload) > size:
                break
    return bytes(payload)


def to_file(url: str, path: Path, check: Callable[[Path], None]) -> None:
    """Read a URL into a file, and resume a download that an earlier call did not finish.

    Of several processes that need the same file, one downloads it and the others wait. Until it is whole and checked,
    it is ``PATH.part``. It is removed where ``check`` raises ValueError.

    Raises:
        OSError: no connection, no answer within TIMEOUT, a refusal, or an answer that broke off.
        ValueError: by ``check``.
    """
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        _wait_for(lock, path)
        if not path.exists():
            _fetch(url, path, check)


def _wait_for(lock: IO[str], path: Path) -> None:
    """Wait until no other process is downloading the file, and print a line about it once."""
    said = False
    while True:
        try:
            files.lock(lock)
            return
        except (BlockingIOError, PermissionError):
            if not said:
                print(f"another process is fetching {path}: waiting for it", file=sys.stderr)
            said = True
            time.sleep(0.1)


def _fetch(url: str, path: Path, check: Callable[[Path], None]) -> None:
    partial = path.with_name(f"{path.name}.part")
    try:
        head, chunks = _answer(url, partial.stat().st_size if partial.exists() else 0)
    except OSError as error:
        refusal = error.__cause__
        if not (partial.exists() and isinstance(refusal, urllib.error.HTTPError) and refusal.code == 416):
            raise
        partial.unlink()  # it is longer than the file
        head, chunks = _answer(url)
    with partial.open("ab") as file:
        if not head.resumes:
            file.truncate(0)
        came = file.tell() if head.resumes else 0
        total = came + head.length if head.length is not None else None
        with _progress_bar(path.name, total, came) as bar:
            for chunk in chunks:
                file.write(chunk)
                bar.update(len(chunk))
                came += len(chunk)
    if total is not None and came < total:
        raise OSError(f"the connection broke off after {came:,} of {total:,} bytes; start again to resume there")
    try:
        check(partial)
    except ValueError:
        partial.unlink()
        raise
    partial.replace(path)


class _Head(NamedTuple):
    """The head of an answer: its number of bytes, and whether they start at the requested byte."""

    length: int | None
    resumes: bool


def _answer(url: str, start: int = 0) -> tuple[_Head, Iterator[bytes]]:
    """Request a URL, from the byte ``start`` where the server can; raise OSError here and while chunks are read."""
    parts: queue.Queue[Any] = queue.Queue(maxsize=16)  # the head, chunks until an empty one; an exception ends it

    def read() -> None:
        try:
            request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
            with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
                length = response.headers.get("Content-Length")
                parts.put(_Head(int(length) if length else None, response.status == 206))
                while chunk := response.read1(CHUNK):
                    parts.put(chunk)
            parts.put(b"")
        except Exception as error:
            parts.put(error)

    # In a thread, because resolving the name of a host has no time limit.
    threading.Thread(target=read, daemon=True).start()
    started, came = time.monotonic(), 0

    def part() -> Any:
        left = TIMEOUT + came / SLOWEST - (time.monotonic() - started)
        try:
            found = parts.get(timeout=max(0.0, min(left, TIMEOUT)))
        except queue.Empty:
            raise TimeoutError(f"no answer for {TIMEOUT:g} s, or a trickle") from None
        if isinstance(found, Exception):
            raise OSError(str(found) or type(found).__name__) from found
        return found

    def chunks() -> Iterator[bytes]:
        nonlocal came
        while chunk := part():
            came += len(chunk)
            yield chunk

    return part(), chunks()


def from_package_index(requirement: str, filename: str, size: int, sha256: str) -> bytes:
    """Download one wheel with pip from the index it is configured for, and install nothing.

    Raises:
        OSError: pip is missing, failed (the message is its last line), or made no progress for TIMEOUT.
    """
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--retries=0"]
    with tempfile.TemporaryDirectory() as name, _progress_bar(filename, size) as bar:
        folder = Path(name)
        (folder / "requirements").write_text(f"{requirement} --hash=sha256:{sha256}\n")
        options += [f"--timeout={TIMEOUT:g}", f"--dest={folder}", f"--requirement={folder / 'requirements'}"]
        with (folder / "log").open("wb") as log:
            pip = subprocess.Popen(
                [sys.executable, "-m", "pip", "download", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": name},  # pip's partial file is then in the folder that is watched
            )
            try:
                sizes: list[int] = []
                last_progress = time.monotonic()
                while pip.poll() is None:
                    time.sleep(0.05)
                    if (now := _file_sizes(folder)) != sizes:
                        sizes, last_progress = now, time.monotonic()
                        bar.update(min(max(sizes), size) - bar.n)
                    if time.monotonic() - last_progress > TIMEOUT:
                        raise TimeoutError(f"no answer for {TIMEOUT:g} s")
            finally:
                pip.kill()
                pip.wait()
        if pip.returncode != 0:
            lines = (folder / "log").read_text(errors="replace").strip().splitlines()
            raise OSError(lines[-1] if lines else f"pip exited with status {pip.returncode}")
        return (folder / filename).read_bytes()


def _progress_bar(name: str, size: int | None, came: int = 0) -> "tqdm[NoReturn]":
    return tqdm(total=size, initial=came, desc=name, unit="B", unit_scale=True, disable=None)


def _file_sizes(folder: Path) -> list[int]:
    """Return the sizes of all files below a folder in which another process makes and removes files."""
    sizes = []
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(FileNotFoundError):
                sizes.append(os.path.getsize(os.path.join(parent, name)))
    return sizes
