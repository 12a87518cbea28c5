"""Fetching a file over a network that may be slow, absent or in the way.

Every source gives the whole file, or raises OSError after at most ``TIMEOUT`` seconds without an answer. A small file
comes in memory, and nothing is on disk until the caller has checked what came and writes it. A large one goes to disk
under another name, from which a later call goes on, and gets its own name once it was checked.
"""

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
from typing import IO, NamedTuple, NoReturn

from tqdm import tqdm

from cli import files

TIMEOUT = 8.0  # seconds without an answer
SLOWEST = 2**13  # bytes a second; a source that stays below this counts as silent
CHUNK = 2**16  # bytes


def from_url(url: str, size: int) -> bytes:
    """Read a URL with a progress bar; from an answer that is too long, at most one chunk more than ``size`` bytes.

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
    """Read a URL into a file, going on from what an earlier call left behind.

    Of several processes that want the same file one fetches it, and the others wait for that.

    Args:
        url: of a file that does not change, or whose change ``check`` notices.
        path: the file; until it is whole and checked, it is ``PATH.part``.
        check: raises ValueError where what came is not what should have come; it is then removed.

    Raises:
        OSError: no connection, no answer within TIMEOUT, a refusal, or an answer that broke off.
        ValueError: by ``check``.
    """
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        _wait_for(lock, path)
        if not path.exists():
            _fetch(url, path, check)


def _wait_for(lock: IO[str], path: Path) -> None:
    """Wait until no other process is fetching a file, and say so once."""
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
        if not (
            partial.exists() and isinstance(error.__cause__, urllib.error.HTTPError) and error.__cause__.code == 416
        ):
            raise
        partial.unlink()  # it is longer than the file
        head, chunks = _answer(url)
    with partial.open("ab") as file:
        if not head.goes_on:
            file.truncate(0)
        came = file.tell() if head.goes_on else 0
        total = came + head.length if head.length is not None else None
        with _progress_bar(path.name, total, came) as bar:
            for chunk in chunks:
                file.write(chunk)
                bar.update(len(chunk))
                came += len(chunk)
    if total is not None and came < total:
        raise OSError(f"the connection broke off after {came:,} of {total:,} bytes; start again to go on from there")
    try:
        check(partial)
    except ValueError:
        partial.unlink()
        raise
    partial.replace(path)


class _Head(NamedTuple):
    """How an answer begins: how many bytes it has, and whether they are those from the start that was asked for."""

    length: int | None
    goes_on: bool


def _answer(url: str, start: int = 0) -> tuple[_Head, Iterator[bytes]]:
    """The answer of a server, from a byte on if it can do that.

    Raises:
        OSError: here and while the chunks are read.
    """
    parts: queue.Queue[_Head | bytes | Exception] = queue.Queue(maxsize=16)

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

    # In a thread, because looking up a host's name has no time limit of its own.
    threading.Thread(target=read, daemon=True).start()
    started, came = time.monotonic(), 0

    def part() -> _Head | bytes:
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
            assert isinstance(chunk, bytes)
            came += len(chunk)
            yield chunk

    head = part()
    assert isinstance(head, _Head)
    return head, chunks()


def from_package_index(requirement: str, filename: str, size: int, sha256: str) -> bytes:
    """Have pip fetch one wheel from the index it is configured for; nothing is installed.

    Args:
        requirement: what to ask for, as ``name==version``.
        filename: the wheel's name.
        size: its bytes, for the progress bar.
        sha256: its digest, which pip checks too.

    Raises:
        OSError: pip is missing, failed (the message is its last line), or made no progress for TIMEOUT.
    """
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--retries=0"]
    with tempfile.TemporaryDirectory() as name, _progress_bar(filename, size) as bar:
        folder = Path(name)
        (folder / "wanted").write_text(f"{requirement} --hash=sha256:{sha256}\n")
        options += [f"--timeout={TIMEOUT:g}", f"--dest={folder}", f"--requirement={folder / 'wanted'}"]
        with (folder / "log").open("wb") as log:
            pip = subprocess.Popen(
                [sys.executable, "-m", "pip", "download", *options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "TMPDIR": name},  # pip's partial file is then where its growth can be seen
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
            raise OSError(lines[-1] if lines else f"pip ended with status {pip.returncode}")
        return (folder / filename).read_bytes()


def _progress_bar(name: str, size: int | None, came: int = 0) -> "tqdm[NoReturn]":
    return tqdm(total=size, initial=came, desc=name, unit="B", unit_scale=True, disable=None)


def _file_sizes(folder: Path) -> list[int]:
    """The sizes of all files below a folder in which another process makes and removes some."""
    sizes = []
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                sizes.append(os.path.getsize(os.path.join(parent, name)))
            except FileNotFoundError:
                continue
    return sizes
