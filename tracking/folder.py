"""A run's folder: its files, its lock, and moving an older run aside.

LOGDIR/checkpoint.pt         the state that the run resumes from, see checkpoint.py
LOGDIR/best.pt               the same after the best epoch, if a validation set chooses one
LOGDIR/data.npz              the run's data: where they are, and the IDs of users and items, see run_data.py
LOGDIR/metrics.csv           the metrics of each epoch so far
LOGDIR/result.json           the metrics of a run that has ended, see result.py
LOGDIR/events.out.tfevents…  the same for TensorBoard, see tensorboard.py
LOGDIR/.lock                 locked by the process that writes here; the system unlocks it when the process dies
LOGDIR/earlier.1             an earlier run, where the folder cannot be renamed
"""

import itertools
import os
import sys
from pathlib import Path
from typing import IO

from cli import files
from tracking import run_data
from tracking.checkpoint import BEST, CHECKPOINT, METRICS, RESULT, Checkpoint

EVENTS = "events.out.tfevents."  # the start of the names of event files
LOCK = ".lock"


def contains_run(folder: Path) -> bool:
    """Return whether a run wrote here; other files, and folders of other runs, do not count."""
    return any((folder / name).exists() for name in (CHECKPOINT, BEST, METRICS)) or any(folder.glob(f"{EVENTS}*"))


class RunFolder:
    """A run's folder, locked by this process until the folder is closed or the process exits.

    Raises:
        BlockingIOError: another process holds the lock.
        OSError: the folder cannot be made or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[str] | None = None
        self._acquire()

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *_: object) -> None:
        """Release the lock."""
        if self._lock is not None:
            self._lock.close()

    def _acquire(self) -> None:
        while self._lock is None:
            self.path.resolve().mkdir(parents=True, exist_ok=True)
            lock = (self.path / LOCK).open("w")
            try:
                files.lock(lock)
            except (BlockingIOError, PermissionError):
                lock.close()
                raise BlockingIOError(f"another run is writing to {self.path}: choose another folder") from None
            self._lock = lock
            # Before it was locked, the folder may have been moved aside, and the lock file with it.
            if not self._is_at_path():
                lock.close()
                self._lock = None
        # Left by a process that was killed while it wrote.
        for unfinished in (CHECKPOINT, BEST, METRICS, RESULT, run_data.NAME):
            for path in self.path.glob(f".{unfinished}.*"):
                path.unlink()

    def _is_at_path(self) -> bool:
        assert self._lock is not None
        try:
            return os.path.samestat(os.fstat(self._lock.fileno()), os.stat(self.path / LOCK))
        except FileNotFoundError:
            return False

    def save(self, checkpoint: Checkpoint, best: Checkpoint | None = None) -> None:
        """Write a checkpoint here, after that of a new best epoch.

        Raises:
            OSError: a file cannot be written, or the folder was moved, so that its path may be another run's.
        """
        if not self._is_at_path():
            raise OSError(f"{self.path} was moved or removed while this run was writing to it")
        if best is not None:
            best.save_best(self.path)
        checkpoint.save(self.path)

    def move_aside(self) -> Path:
        """Rename the folder to the first free name of ``PATH.1``, ``PATH.2``, …, and make an empty one.

        A folder that cannot be renamed, such as a mount point, keeps its name, and its files are moved to
        ``PATH/earlier.1``, ``PATH/earlier.2``, ….

        Raises:
            OSError: neither is possible.
        """
        place = self.path.resolve()
        if place == Path.cwd():
            raise OSError(f"{self.path} holds a run and is the working directory: choose another folder")
        aside = _first_free(place)
        old, self._lock = self._lock, None
        assert old is not None
        if sys.platform == "win32":  # where a folder with an open file cannot be renamed
            old.close()
        try:
            place.rename(aside)
        except OSError:
            old.close()
            self._acquire()
            return self._move_files()
        try:
            self._acquire()
        finally:
            old.close()
        return self.path.with_name(aside.name) if self.path.name == place.name else aside

    def _move_files(self) -> Path:
        """Move the files into a new folder within this one, which is returned; folders of other runs stay."""
        aside = _first_free(self.path / "earlier")
        aside.mkdir()
        for path in self.path.iterdir():
            if path.is_file() and path.name != LOCK:
                path.rename(aside / path.name)
        return aside


def _first_free(path: Path) -> Path:
    """Return the first of ``PATH.1``, ``PATH.2``, … that does not exist."""
    numbered = (path.with_name(f"{path.name}.{number}") for number in itertools.count(1))
    return next(each for each in numbered if not each.exists())
