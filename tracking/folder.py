"""A run's folder: who may write there, and how an older run is kept.

LOGDIR/checkpoint.pt         all that the run needs to go on, see checkpoint.py
LOGDIR/best.pt               the same of the best epoch, where there is a validation side to judge by
LOGDIR/metrics.csv           the metrics of each epoch so far
LOGDIR/events.out.tfevents…  the same for TensorBoard, see tensorboard.py
LOGDIR/.lock                 locked by the process that writes here; the system unlocks it when the process dies
"""

import os
import sys
from pathlib import Path
from typing import IO

from cli import files
from tracking.checkpoint import BEST, CHECKPOINT, METRICS, Checkpoint

EVENTS = "events.out.tfevents."  # how the names of event files begin


def contains_run(folder: Path) -> bool:
    """Whether a run wrote here; other files, and folders of other runs, do not count."""
    return any((folder / name).exists() for name in (CHECKPOINT, BEST, METRICS)) or any(folder.glob(f"{EVENTS}*"))


class RunFolder:
    """A run's folder, this process's own until it is closed or the process ends.

    Raises:
        BlockingIOError: another process that is alive has it.
        OSError: it cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        self._acquire()

    def __enter__(self) -> "RunFolder":
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
                files.lock(lock)
            except (BlockingIOError, PermissionError):
                lock.close()
                raise BlockingIOError(f"another run is writing to {self.path}: choose another folder") from None
            self._lock = lock
            # Between the opening and the locking the folder may have been moved aside, and this lock with it.
            if not self._is_at_path():
                lock.close()
                self._lock = None
        for unfinished in (CHECKPOINT, BEST, METRICS):  # of a process that was killed while it wrote
            for path in self.path.glob(f".{unfinished}.*"):
                path.unlink()

    def _is_at_path(self) -> bool:
        assert self._lock is not None
        try:
            return os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self.path / ".lock"))
        except FileNotFoundError:
            return False

    def save(self, checkpoint: Checkpoint, best: Checkpoint | None = None) -> None:
        """Write a checkpoint here, and before it that of a new best epoch.

        Raises:
            OSError: it cannot be written, or somebody moved the folder: another run may be where it was.
        """
        if not self._is_at_path():
            raise OSError(f"{self.path} was moved or removed while this run was writing to it")
        if best is not None:
            best.save_best(self.path)
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
