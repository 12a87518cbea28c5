"""When a run's checkpoints are written: often enough, and no copy more than it takes."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace

from tracking.checkpoint import Checkpoint
from tracking.folder import RunFolder

CHECKPOINT_SECONDS = 2.0  # between two


class Saver:
    """The checkpoints of a run as it goes on: of its latest epoch, and of its best where one is judged.

    The first epoch's is written at once, then one every CHECKPOINT_SECONDS, and at the end the last epoch's with what
    the run closes with. Where an epoch takes longer than that, each one's is on disk before anything else is done, and
    memory holds no second copy.

    Args:
        folder: the run's.
        found: the checkpoint there, which the run goes on from.
    """

    def __init__(self, folder: RunFolder, found: Checkpoint | None = None) -> None:
        self._folder = folder
        self._latest = self._written = found
        self._best: Checkpoint | None = None  # where it is not written yet
        self._written_at = -math.inf
        if found is not None:
            found.save_metrics(folder.path)  # a kill may have come between the two files

    def keep(self, checkpoint: Checkpoint, is_best: bool) -> None:
        """Keep an epoch's state, whose tensors change with the next epoch."""
        self._latest = checkpoint
        if is_best:
            self._best = checkpoint
        if time.monotonic() - self._written_at >= CHECKPOINT_SECONDS:
            self.write()
        else:
            self._latest = checkpoint.copy()
            self._best = self._latest if is_best else self._best

    def write(self) -> None:
        """Write what is not written yet."""
        if self._latest is not None and self._latest is not self._written:
            self._folder.save(self._latest, self._best)
            self._written, self._written_at, self._best = self._latest, time.monotonic(), None

    def close(self, ranking: Sequence[float]) -> None:
        """Write the last epoch's state with what the run closes with."""
        if self._latest is not None and self._latest.ranking != list(ranking):
            self._latest = replace(self._latest, ranking=list(ranking))
        self.write()
