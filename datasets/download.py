"""Fetching a file of known size over a network that may be slow, absent or in the way.

Both sources give the whole file in memory, or raise OSError after at most ``TIMEOUT`` seconds without an answer.
Nothing is on disk until the caller has checked what came and writes it.
"""

import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import NoReturn

from tqdm import tqdm

TIMEOUT = 8.0  # seconds without an answer
SLOWEST = 2**13  # bytes a second; a source that stays below this counts as silent
CHUNK = 2**16  # bytes


def from_url(url: str, size: int) -> bytes:
    """Read a URL with a progress bar; from an answer that is too long, at most one chunk more than ``size`` bytes.

    Raises:
        OSError: no connection, no answer within TIMEOUT, or a refusal.
    """
    chunks: queue.Queue[bytes | Exception] = queue.Queue(maxsize=16)

    def read() -> None:
        try:
            with urllib.request.urlopen(url, timeout=TIMEOUT) as response:
                while chunk := response.read1(CHUNK):
                    chunks.put(chunk)
            chunks.put(b"")
        except Exception as error:
            chunks.put(error)

    # In a thread, because looking up a host's name has no time limit of its own.
    threading.Thread(target=read, daemon=True).start()
    payload = bytearray()
    with _progress_bar(url.rpartition("/")[2], size) as bar:
        started = time.monotonic()
        while len(payload) <= size:
            left = TIMEOUT + len(payload) / SLOWEST - (time.monotonic() - started)
            try:
                chunk = chunks.get(timeout=max(0.0, min(left, TIMEOUT)))
            except queue.Empty:
                raise TimeoutError(f"no answer for {TIMEOUT:g} s, or a trickle") from None
            if isinstance(chunk, Exception):
                raise OSError(str(chunk) or type(chunk).__name__) from chunk
            if not chunk:
                break
            payload += chunk
            bar.update(len(chunk))
    return bytes(payload)


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


def _progress_bar(name: str, size: int) -> "tqdm[NoReturn]":
    return tqdm(total=size, desc=name, unit="B", unit_scale=True, disable=None)


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
