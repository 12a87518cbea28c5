"""A run's checkpoint: all that it needs to go on, to the bit, from the end of an epoch.

A checkpoint gets its name only once all of it is on disk, so that there is a whole one at every moment. It is read
without executing anything, and refused unless a digest of all it holds agrees.
"""

import csv
import hashlib
import io
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from cli.files import write_whole
from tracking.history import EpochMetrics, from_rows

FORMAT = 2
# What the runs of checkpoints had that do not say it, because there was no choice yet.
ADDED_LATER = {
    "optimizer": "auto",
    "eval_users": "auto",
    "eval_every": 1,
    "negatives": 1,
    "unseen_negatives": False,
    "shared_negatives": False,
    "negative_temperature": 0.0,
    "user_balance": 0.0,
    "watched_items": False,
    "temperature": 1.0,
    "weight_decay": 0.0,
    "lr_schedule": "constant",
    "embedding_dropout": 0.0,
    "dropout": 0.0,
    "average_last": 0.0,
    "start_at_mean": False,
    "clamp": False,
    "planned_epochs": 0,
    "validation_fraction": 0.0,
}
# Their names in a run's folder; the second is of the best epoch, where there is a validation side to judge by.
CHECKPOINT, BEST, METRICS = "checkpoint.pt", "best.pt", "metrics.csv"


@dataclass(frozen=True)
class Checkpoint:
    """A run at the end of an epoch.

    Attributes:
        settings: what the run's metrics depend on, by name; a run can only go on with the same.
        data: fingerprint of the ratings and their split.
        device: the type of the device whose generator's state this is.
        columns: the names of the metrics in the history.
        history: the metrics of each epoch; NaN, and an empty cell of ``metrics.csv``, where none were taken.
        times: when each epoch ended, in seconds since 1970.
        tensors: the network's, Adam's and the generator's state, by name.
        ranking: the metrics of the end of a run, once it has ended: by then its event file has them too.
    """

    settings: dict[str, Any]
    data: str
    device: str
    columns: list[str]
    history: list[list[float]]
    times: list[float]
    tensors: dict[str, Tensor]
    ranking: list[float] = field(default_factory=list)

    def digest(self) -> str:
        """SHA-256 of everything in here."""
        sha256 = hashlib.sha256(repr([self.settings, self.data, self.device, self.columns]).encode())
        sha256.update(repr([self.history, self.times, *self.ranking]).encode())
        for name, tensor in self.tensors.items():
            sha256.update(repr([name, tensor.dtype, tuple(tensor.shape)]).encode())
            sha256.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return sha256.hexdigest()

    @property
    def metrics(self) -> list[EpochMetrics]:
        """The history, by name; NaN for a metric that was added to the program later."""
        return from_rows(self.columns, self.history)

    def save(self, folder: Path) -> None:
        """Write ``checkpoint.pt``, tensor by tensor without a copy of them all, and from it ``metrics.csv``."""
        self._write(folder / CHECKPOINT)
        self.save_metrics(folder)

    def save_best(self, folder: Path) -> None:
        """Write ``best.pt`` alone."""
        self._write(folder / BEST)

    def _write(self, path: Path) -> None:
        content = {"format": FORMAT, "digest": self.digest(), **vars(self)}
        write_whole(lambda file: _save(content, file), path)

    def copy(self) -> "Checkpoint":
        """One that further training leaves as it is."""
        return replace(self, tensors={name: tensor.clone() for name, tensor in self.tensors.items()})

    def save_metrics(self, folder: Path) -> None:
        """Write ``metrics.csv`` alone."""
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["epoch", *self.columns])
        for epoch, metrics in enumerate(self.history):
            rows.writerow([epoch, *("" if math.isnan(metric) else metric for metric in metrics)])
        write_whole(table.getvalue().encode(), folder / METRICS)


def _save(content: dict[str, Any], file: IO[bytes]) -> None:
    """``torch.save``, which hides what went wrong with the file behind an error of its own."""
    failure: list[OSError] = []

    class Target(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, part: Any, /) -> int:
            try:
                return file.write(part)
            except OSError as error:
                failure.append(error)
                raise

    try:
        torch.save(content, cast(IO[bytes], Target()))
    except Exception:
        if failure:
            raise failure[0] from None
        raise


def load(folder: Path, name: str = CHECKPOINT) -> Checkpoint | None:
    """The checkpoint in a folder, or the one of another name, or None where there is none.

    Raises:
        ValueError: there is a file of that name, but not a whole checkpoint of this version.
    """
    path = folder / name
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    try:
        with file:
            content = torch.load(file, map_location="cpu", weights_only=True)
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
        whole = whole and shaped and {len(metrics) for metrics in checkpoint.history} == {len(checkpoint.columns)}
    except Exception as error:
        raise ValueError(f"{path} is damaged: {_one_line(error)}") from None
    if not whole:
        raise ValueError(f"{path} is damaged: its content does not agree with its digest")
    return checkpoint


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"


def differences(checkpoint: Checkpoint, settings: dict[str, Any], data: str) -> list[str]:
    """In what a checkpoint's run differs from one with these settings and this data, in words."""
    then = {**ADDED_LATER, **checkpoint.settings}
    called = {"planned_epochs": "epochs, which lr_schedule and average_last depend on,"}
    differing = [
        f"{called.get(name, name)} was {then.get(name)}, now {now}"
        for name, now in settings.items()
        if then.get(name) != now
    ]
    return differing + ["the ratings were others"] * (checkpoint.data != data)
