"""A run's folder: who may write there, and what it keeps through whatever happens.

    LOGDIR/checkpoint.pt         all that the run needs to go on, to the bit, from the end of an epoch
    LOGDIR/metrics.csv           the figures of each epoch so far
    LOGDIR/events.out.tfevents…  the same for TensorBoard, see events.py
    LOGDIR/.lock                 locked by the process that writes here; the system unlocks it when the process dies

A checkpoint gets its name only once all of it is on disk, so that there is a whole one at every moment. It is read
without executing anything, and refused unless a digest of all it holds agrees.
"""

import contextlib
import csv
import hashlib
import io
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from download import store

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

FORMAT = 1
CHECKPOINT, METRICS, EVENTS = "checkpoint.pt", "metrics.csv", "events.out.tfevents."


@dataclass(frozen=True)
class Checkpoint:
    """A run at the end of an epoch.

    Attributes:
        settings: what the run's figures depend on, by name; a run can only go on with the same.
        data: fingerprint of the ratings and their split.
        device: the type of the device whose generator's state this is.
        columns: the names of the figures.
        history: the figures of each epoch.
        times: when each epoch ended, in seconds since 1970.
        tensors: the network's, Adam's and the generator's state, by name.
    """

    settings: dict[str, Any]
    data: str
    device: str
    columns: list[str]
    history: list[list[float]]
    times: list[float]
    tensors: dict[str, Tensor]

    def digest(self) -> str:
        """SHA-256 of everything in here."""
        sha256 = hashlib.sha256(repr([self.settings, self.data, self.device, self.columns]).encode())
        sha256.update(repr([self.history, self.times]).encode())
        for name, tensor in self.tensors.items():
            sha256.update(repr([name, tensor.dtype, tuple(tensor.shape)]).encode())
            sha256.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
        return sha256.hexdigest()

    def save(self, folder: Path) -> None:
        """Write ``checkpoint.pt`` and, from it, ``metrics.csv``."""
        buffer = io.BytesIO()
        torch.save({"format": FORMAT, "digest": self.digest(), **vars(self)}, buffer)
        store(buffer.getvalue(), folder / CHECKPOINT)
        self.save_metrics(folder)

    def save_metrics(self, folder: Path) -> None:
        """Write ``metrics.csv`` alone."""
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["epoch", *self.columns])
        rows.writerows([epoch, *figures] for epoch, figures in enumerate(self.history))
        store(table.getvalue().encode(), folder / METRICS)


def load(folder: Path) -> Checkpoint | None:
    """The checkpoint in a folder, or None where there is none.

    Raises:
        ValueError: there is a file of that name, but not a whole checkpoint of this version.
    """
    path = folder / CHECKPOINT
    try:
        payload = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        content = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file makes of the reader
        raise ValueError(f"{path} is damaged or not a checkpoint: {_one_line(error)}") from None
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError(f"{path} is a file of torch, but not a checkpoint of this program")
    if content.pop("format") != FORMAT:
        raise ValueError(f"{path} was written by another version of this program: start again without --resume")
    try:
        digest = content.pop("digest")
        checkpoint = Checkpoint(**content)
        whole = checkpoint.digest() == digest
        shaped = isinstance(checkpoint.settings, dict) and len(checkpoint.times) == len(checkpoint.history) > 0
        whole = whole and shaped and {len(figures) for figures in checkpoint.history} == {len(checkpoint.columns)}
    except Exception as error:
        raise ValueError(f"{path} is damaged: {_one_line(error)}") from None
    if not whole:
        raise ValueError(f"{path} is damaged: its content does not agree with its digest")
    return checkpoint


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"


def differences(checkpoint: Checkpoint, settings: dict[str, Any], data: str) -> list[str]:
    """In what a checkpoint's run differs from one with these settings and this data, in words."""
    then = checkpoint.settings
    differing = [f"{name} was {then.get(name)}, now {now}" for name, now in settings.items() if then.get(name) != now]
    return differing + ["the ratings were others"] * (checkpoint.data != data)


def fingerprint(tensors: Sequence[Tensor]) -> str:
    """SHA-256 of some tensors' values."""
    sha256 = hashlib.sha256()
    for tensor in tensors:
        sha256.update(tensor.cpu().numpy().tobytes())
    return sha256.hexdigest()


def holds_run(folder: Path) -> bool:
    """Whether a run wrote here; other files, and folders of other runs, do not count."""
    return any((folder / name).exists() for name in (CHECKPOINT, METRICS)) or any(folder.glob(f"{EVENTS}*"))


class Folder:
    """A run's folder, this process's own until it is closed or the process ends.

    Raises:
        BlockingIOError: another process that is alive has it.
        OSError: it cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        self._acquire()

    def __enter__(self) -> "Folder":
        return self

    def __exit__(self, *_: object) -> None:
        """Let others have it."""
        if self._lock is not None:
            self._lock.close()

    def _acquire(self) -> None:
        while self._lock is None:
            self.path.resolve().mkdir(parents=True, exist_ok=True)
            lock = (self.path / ".lock").open("w")
            try:
                _lock(lock)
            except (BlockingIOError, PermissionError):
                lock.close()
                raise BlockingIOError(f"another run is writing to {self.path}: choose another folder") from None
            self._lock = lock
            # Between the opening and the locking the folder may have been moved aside, and this lock with it.
            if not self._is_at_path():
                lock.close()
                self._lock = None
        for unfinished in (CHECKPOINT, METRICS):  # of a process that was killed while it wrote
            for path in self.path.glob(f".{unfinished}.*"):
                path.unlink()

    def _is_at_path(self) -> bool:
        assert self._lock is not None
        try:
            return os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self.path / ".lock"))
        except FileNotFoundError:
            return False

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint here, unless somebody moved the folder: another run may be where it was."""
        if not self._is_at_path():
            raise OSError(f"{self.path} was moved or removed while this run was writing to it")
        checkpoint.save(self.path)

    def move_aside(self) -> Path:
        """Rename the folder to the first of ``PATH.1``, ``PATH.2``, … that is free, and start an empty one.

        Raises:
            OSError: it cannot be renamed.
        """
        place, number = self.path.resolve(), 1
        if place == Path.cwd():
            raise OSError(f"{self.path} holds a run and is the working directory: choose another folder")
        while (aside := place.with_name(f"{place.name}.{number}")).exists():
            number += 1
        old, self._lock = self._lock, None
        assert old is not None
        if sys.platform == "win32":  # where what is open cannot be renamed
            old.close()
        place.rename(aside)
        try:
            self._acquire()
        finally:
            old.close()
        return self.path.with_name(aside.name) if self.path.name == place.name else aside


def _lock(file: IO[str]) -> None:
    """Lock a file for this process, or raise BlockingIOError (PermissionError on Windows) where another one has it."""
    if sys.platform == "win32":
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


class Stopped(BaseException):
    """A signal asked the process to end."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.signal_number = signal_number


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into ``Stopped``; a second Ctrl-C ends the process on the spot."""

    def stop(number: int, _: object) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise Stopped(number)

    # What the process was started to ignore (a script's background jobs ignore Ctrl-C) stays ignored.
    heeded = [each for each in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(each) != signal.SIG_IGN]
    before = {each: signal.signal(each, stop) for each in heeded}
    try:
        yield
    finally:
        for each, handler in before.items():
            if signal.getsignal(each) is stop:
                signal.signal(each, handler)
