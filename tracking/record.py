"""The record of a run, written epoch by epoch: checkpoints, metrics.csv, TensorBoard's event file, the progress bar."""

import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from types import TracebackType
from typing import NoReturn

from torch import Tensor, nn
from tqdm import tqdm

from tracking.checkpoint import BEST, RESULT, Checkpoint, Run, load_checkpoint
from tracking.folder import RunFolder, contains_run
from tracking.metric_table import EpochMetrics, charts, shown, tags
from tracking.tensorboard import EventFile

CHECKPOINT_SECONDS = 2.0  # between two checkpoints
# Short enough that the metrics fit into 80 columns.
BAR = "{percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"


class Record:
    """A record that writes nothing, for a run without a folder and for all processes except the first."""

    def __init__(self, best_state: dict[str, Tensor] | None = None) -> None:
        self._best_state = best_state

    def __enter__(self) -> "Record":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        pass

    def add(self, metrics: EpochMetrics, state: dict[str, Tensor], is_best: bool) -> None:
        """Record an epoch's metrics and the state to resume from; later training changes the state's tensors."""
        if is_best:
            self._best_state = {name: tensor.clone() for name, tensor in state.items()}

    def best_state(self) -> dict[str, Tensor] | None:
        """Return the state after the best epoch, None if there is none."""
        return self._best_state

    def add_network(self, network: nn.Module) -> None:
        """Record the network that recommends, at the end of the run, with the parameters that are evaluated."""

    def close(self, closing: Mapping[str, float]) -> None:
        """Record the metrics of the end of the run."""


class RunRecord(Record):
    """The record of a run in its folder.

    A checkpoint is written after the first epoch, then at most once every CHECKPOINT_SECONDS, and after the last epoch.
    If an epoch takes longer, its checkpoint is on disk before the next epoch begins, and memory holds no copy of it. On
    an error or a signal the last good epoch is written, too, unless the error came from writing.

    Args:
        folder: the run's folder, locked by this process.
        run: the description of the run.
        epochs: the number of epochs in all.
        topk: the numbers of items that a user is shown, for the names of metrics.
        found: the checkpoint that the run resumes from.
        write_network: records more of the network at the end, before the run counts as finished.
        rates: whether the training set has ratings; without them there is no chart of errors.

    Raises:
        ValueError: the folder holds a run, and ``found`` is None.
        OSError: a file cannot be written.
    """

    def __init__(
        self,
        folder: RunFolder,
        run: Run,
        epochs: int,
        topk: Sequence[int],
        found: Checkpoint | None = None,
        write_network: Callable[[nn.Module], None] | None = None,
        rates: bool = True,
    ) -> None:
        if found is None and contains_run(folder.path):
            raise ValueError(f"{folder.path} holds a run already: move it aside, or resume it from its checkpoint")
        super().__init__()
        self._folder, self._run, self._epochs, self._tags = folder, run, epochs, tags(topk)
        self._charts = charts(rates)
        self._history = found.metrics if found is not None else []
        self._times = list(found.times) if found is not None else []
        self._written = found
        # The last epoch and, until it is written, the best; together, because a signal may come between two statements.
        self._newest: tuple[Checkpoint | None, Checkpoint | None] = found, None
        self._written_at = -math.inf
        self._write_network = write_network
        self._stack = ExitStack()

    def __enter__(self) -> "RunRecord":
        path = self._folder.path
        (path / RESULT).unlink(missing_ok=True)
        if self._written is not None:
            self._written.save_metrics(path)  # because a kill may have come between the two files
        self._events = self._stack.enter_context(EventFile(path, self._tags, self._run.shown(), self._charts))
        self._bar = self._stack.enter_context(progress_bar(self._epochs, len(self._history)))
        self._write_events()
        self._events.replace_older()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        with self._stack:
            if error is not None and not isinstance(error, OSError | SystemExit):
                self._write()
                self._write_events()

    def add(self, metrics: EpochMetrics, state: dict[str, Tensor], is_best: bool) -> None:
        self._history.append(metrics)
        self._times.append(time.time())
        latest = Checkpoint.of(self._run, self._history, self._times, state)
        self._newest = latest, latest if is_best else self._newest[1]
        if time.monotonic() - self._written_at >= CHECKPOINT_SECONDS:
            self._write()
        else:
            latest = latest.copy()
            self._newest = latest, latest if is_best else self._newest[1]
        self._write_events()
        self._bar.set_postfix_str(_in_short(metrics))
        self._bar.update()

    def best_state(self) -> dict[str, Tensor] | None:
        best = self._newest[1] or load_checkpoint(self._folder.path, BEST)
        return None if best is None else best.tensors

    def add_network(self, network: nn.Module) -> None:
        if self._write_network is not None:
            self._write_network(network)

    def close(self, closing: Mapping[str, float]) -> None:
        latest, best = self._newest
        assert latest is not None
        self._events.add(len(self._history) - 1, closing, self._times[-1])
        if latest.closing != tuple(closing.values()):
            self._newest = replace(latest, closing=tuple(closing.values())), best
        self._write()

    def _write(self) -> None:
        """Write the checkpoints that are not written yet."""
        latest, best = self._newest
        if latest is not None and latest is not self._written:
            self._folder.save(latest, best)
            self._written, self._written_at = latest, time.monotonic()
            self._newest = latest, None

    def _write_events(self) -> None:
        """Write the epochs that the event file lacks."""
        latest, _ = self._newest
        for epoch in range(self._events.epochs, 0 if latest is None else len(latest.times)):
            self._events.add(epoch, asdict(self._history[epoch]), self._times[epoch])


def _in_short(metrics: EpochMetrics) -> str:
    """Format the metrics that the progress bar shows; those that an epoch lacks are left out."""
    mse = "" if math.isnan(metrics.training_mse) else f", MSE {shown(metrics.training_mse, 3)}"
    training = f"BPR {metrics.factorization_loss:.3f}{mse}"
    if math.isnan(metrics.test_mrr):
        return training
    mse = "" if math.isnan(metrics.test_mse) else f"MSE {shown(metrics.test_mse, 3)}, "
    return f"{training}; test {mse}MRR {metrics.test_mrr:.4f}"


def progress_bar(total: int, done: int = 0) -> "tqdm[NoReturn]":
    """Make a progress bar on stderr, which shows nothing unless stderr is a terminal."""
    columns, lines = shutil.get_terminal_size()  # some terminals report no size to tqdm
    return tqdm(total=total, initial=done, disable=None, ncols=columns, nrows=lines, bar_format=BAR)
