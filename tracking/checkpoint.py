"""The checkpoint of a run: the state after an epoch that a bit-identical run resumes from.

A checkpoint gets its name only once all of it is on disk, so that a whole one exists at every moment. Reading a
checkpoint executes nothing. A file whose digest differs is refused.
"""

import csv
import hashlib
import io
import math
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from cli import VERSION
from cli.files import write_whole
from tracking.metric_table import EpochMetrics, columns, from_rows

FORMAT = 7
# The file names in a run's folder. BEST is the checkpoint of the best epoch, if a validation set chooses one.
CHECKPOINT, BEST, METRICS, RESULT = "checkpoint.pt", "best.pt", "metrics.csv", "result.json"


@dataclass(frozen=True)
class Run:
    """The description of a run.

    Attributes:
        settings: the settings that the metrics depend on, by name. They must be the same when the run is resumed.
        data: the fingerprint of the ratings and their split. It must be the same, too.
        dataset: the name of the ratings.
        own: the options of ratings of the user's own, by name, as they were given; {} for MovieLens.
        device: the type of the device.
        eager: whether the run takes the plain step.
        processes: the number of processes that train together.
    """

    settings: dict[str, Any]
    data: str = ""
    dataset: str = ""
    own: dict[str, str] = field(default_factory=dict)
    device: str = "cpu"
    eager: bool = False
    processes: int = 1

    def differences(self, now: "Run") -> list[str]:
        """Return a line for each difference that prevents this run from being resumed as ``now``."""
        reason = {"epochs": ", which lr_schedule depends on,"}
        before, after = self.settings, now.settings
        changed = [
            f"{name}{reason.get(name, '')} was {as_string(before[name])}, now {as_string(after[name])}"
            for name in before
            if name in after and before[name] != after[name]
        ]
        if not changed and self.data != now.data:  # other settings may be the reason that the split differs
            return [self.other_data(now)]
        return changed

    def other_data(self, now: "Run") -> str:
        """Say how the ratings of two runs differ."""
        changed = []
        before, after = (run.own.get("ratings", run.dataset) for run in (self, now))
        if before != after:
            changed.append(f"{before} then, {after} now")
        for name in sorted(self.own.keys() | now.own.keys()):
            was, is_now = (run.own.get(name, "not given") for run in (self, now))
            if was != is_now and name != "ratings":
                changed.append(f"{name} was {was}, now {is_now}")
        how = "; ".join(changed) or f"{after} has changed since, or only has the name of the run's file"
        return f"the ratings differ ({how})"

    def shown(self) -> dict[str, Any]:
        """Return the settings that TensorBoard shows."""
        more = {"eager": self.eager, "dataset": self.dataset}
        return self.settings | more | ({"processes": self.processes} if self.processes > 1 else {})


def as_string(value: object) -> str:
    """Write the value of a setting, several numbers with blanks between them."""
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


@dataclass(frozen=True)
class Checkpoint:
    """A run at the end of an epoch.

    Attributes:
        run: the description of the run.
        columns: the names of the metrics in the history.
        history: the metrics of each epoch; NaN, and an empty cell of ``metrics.csv``, where an epoch was not evaluated.
        times: when each epoch ended, in seconds since 1970.
        tensors: the state of the network, of Adam and of the generators, by name.
        closing: the metrics of the end of the run, () before it. The event file has them first.
        version: the version of the program that wrote the checkpoint.
    """

    run: Run
    columns: list[str]
    history: list[list[float]]
    times: list[float]
    tensors: dict[str, Tensor]
    closing: tuple[float, ...] = ()
    version: str = VERSION

    @classmethod
    def of(cls, run: Run, history: list[EpochMetrics], times: list[float], tensors: dict[str, Tensor]) -> "Checkpoint":
        """Make a checkpoint that shares these tensors."""
        names = columns(history)
        rows = [[getattr(metrics, name) for name in names] for metrics in history]
        return cls(run, names, rows, list(times), tensors)

    def digest(self) -> str:
        """Return the SHA-256 of the whole content."""
        described = [self.run, self.columns, self.history, self.times, self.closing, self.version]
        sha256 = hashlib.sha256(repr(described).encode())
        for name, tensor in self.tensors.items():
            sha256.update(repr([name, tensor.dtype, tuple(tensor.shape)]).encode())
            sha256.update(tensor.cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return sha256.hexdigest()

    @property
    def metrics(self) -> list[EpochMetrics]:
        """Return the history by name, with NaN for a metric that was added to the program later."""
        return from_rows(self.columns, self.history)

    def save(self, folder: Path) -> None:
        """Write ``checkpoint.pt``, without a copy of all tensors, and then ``metrics.csv``."""
        self._write(folder / CHECKPOINT)
        self.save_metrics(folder)

    def save_best(self, folder: Path) -> None:
        """Write ``best.pt`` alone."""
        self._write(folder / BEST)

    def _write(self, path: Path) -> None:
        content = {"format": FORMAT, "digest": self.digest(), **vars(self), "run": asdict(self.run)}
        write_whole(lambda file: save_tensors(content, file), path)

    def copy(self) -> "Checkpoint":
        """Copy the tensors, so that further training does not change them."""
        return replace(self, tensors={name: tensor.clone() for name, tensor in self.tensors.items()})

    def save_metrics(self, folder: Path) -> None:
        """Write ``metrics.csv`` alone."""
        table = io.StringIO()
        rows = csv.writer(table, lineterminator="\n")
        rows.writerow(["epoch", *self.columns])
        for epoch, metrics in enumerate(self.history):
            rows.writerow([epoch, *("" if math.isnan(metric) else metric for metric in metrics)])
        write_whole(table.getvalue().encode(), folder / METRICS)


def save_tensors(content: dict[str, Any], file: IO[bytes]) -> None:
    """Call ``torch.save``, and raise the file's OSError, which torch hides behind an error of its own."""
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


def load_checkpoint(folder: Path, name: str = CHECKPOINT) -> Checkpoint | None:
    """Read the checkpoint with this name in a folder; None if there is none.

    Raises:
        ValueError: the file is not a whole checkpoint of this version.
    """
    path = folder / name
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return None
    try:
        with file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile file can make the reader raise anything
        raise ValueError(f"{path} is damaged or not a checkpoint: {_one_line(error)}") from None
    if not isinstance(content, dict) or "format" not in content:
        raise ValueError(f"{path} is a PyTorch file, but not a checkpoint of this program")
    if content.pop("format") != FORMAT:
        raise ValueError(f"{path} was written by another version of this program, and cannot be resumed: start again")
    try:
        digest = content.pop("digest")
        checkpoint = Checkpoint(**content | {"run": Run(**content["run"])})
        whole = checkpoint.digest() == digest
        shaped = isinstance(checkpoint.run.settings, dict) and isinstance(checkpoint.run.own, dict)
        shaped = shaped and len(checkpoint.times) == len(checkpoint.history) > 0
        whole = whole and shaped and {len(metrics) for metrics in checkpoint.history} == {len(checkpoint.columns)}
    except Exception as error:
        raise ValueError(f"{path} is damaged: {_one_line(error)}") from None
    if not whole:
        raise ValueError(f"{path} is damaged: its content differs from its digest")
    return checkpoint


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:100]}"
