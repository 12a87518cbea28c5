"""The event file of a run, for TensorBoard.

    SCALARS, TIME SERIES   the metrics of each epoch, a curve each
    CUSTOM SCALARS         charts of several metrics
    HPARAMS                a row per run: its settings, and its metrics after the last epoch so far

The format is TFRecords of Event messages.
"""

import contextlib
import io
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalars
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from tracking.checkpoint import as_string
from tracking.folder import EVENTS

LARGEST = torch.finfo(torch.float32).max


class EventFile:
    """A TensorBoard event file, whose metrics can be read as soon as ``add`` has returned.

    It replaces the run's earlier event files, because after an interruption they repeat or miss epochs. At its START
    event TensorBoard discards the epochs that it has shown. A file without an epoch is removed, because there is
    nothing to show or to resume.

    Args:
        folder: the run's folder.
        tags: the tag of each metric, by name; a metric without a tag cannot be written.
        settings: the run's settings, by name: booleans, numbers and strings; anything else is shown as a string.
        charts: title → the tags that one chart of the CUSTOM SCALARS tab shows together.
    """

    def __init__(
        self, folder: Path, tags: Mapping[str, str], settings: Mapping[str, Any], charts: Mapping[str, Sequence[str]]
    ) -> None:
        self.tags = tags
        self.epochs = 0  # those in the file
        self._older = list(folder.glob(f"{EVENTS}*.metrics"))
        self._path = folder / f"{EVENTS}{time.time_ns()}.{socket.gethostname()}.{os.getpid()}.metrics"
        self._file = self._path.open("xb")
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._write(Event(wall_time=time.time(), step=0, session_log=SessionLog(status=SessionLog.START)))
        for summary in (_settings(settings), _layout(charts)):
            self._write(Event(wall_time=time.time(), step=0, summary=summary))

    def __enter__(self) -> "EventFile":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # on a full disk it repeats the error that is being raised
            self._file.close()
        if not self.epochs:
            self._path.unlink(missing_ok=True)

    def _write(self, event: Event) -> None:
        whole = io.BytesIO()  # RecordWriter writes a record in pieces, and a signal may come between them
        RecordWriter(whole).write(event.SerializeToString())
        self._file.write(whole.getvalue())

    def _flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            raise OSError(f"{self._path} cannot be written: {error.strerror}") from error

    def add(self, epoch: int, metrics: Mapping[str, float], at: float) -> None:
        """Write an epoch's metrics, by name. ``at``: when it ended, in seconds since 1970.

        NaN is left out, and an MSE of huge ratings that is beyond float32, TensorBoard's numbers.
        """
        taken = {self.tags[name]: value for name, value in metrics.items() if abs(value) <= LARGEST}
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in taken.items()]
        self._write(Event(wall_time=at, step=epoch, summary=Summary(value=values)))
        self._flush()
        self.epochs = epoch + 1

    def replace_older(self) -> None:
        """Remove the earlier event files, after their epochs were written to this one."""
        self._flush()
        for path in self._older:
            path.unlink(missing_ok=True)


def _settings(settings: Mapping[str, Any]) -> Summary:
    """Make the settings for the HPARAMS tab, which shows the last values of the run's scalars beside them.

    TensorBoard makes one row of all runs with the same trial name, which it derives from the settings by default. With
    an empty name each run has a row of its own, even if another one has the same settings.
    """
    shown = {name: value if _is_number(value) else as_string(value) for name, value in settings.items()}
    return hparams_pb(shown, trial_id="")


def _is_number(value: object) -> bool:
    """Return whether TensorBoard, which has only floats, can show a value as a number or a boolean."""
    return isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**63)


def _layout(charts: Mapping[str, Sequence[str]]) -> Summary:
    """Make the charts of the CUSTOM SCALARS tab, which merges equal layouts of several runs."""
    layout = layout_pb2.Layout(
        category=[
            layout_pb2.Category(
                title="training beside test",
                chart=[
                    layout_pb2.Chart(
                        title=title,
                        # TensorBoard matches the start of a tag with each as a regular expression.
                        multiline=layout_pb2.MultilineChartContent(tag=[f"{re.escape(tag)}$" for tag in tags]),
                    )
                    for title, tags in charts.items()
                ],
            )
        ]
    )
    return Summary(
        value=[
            Summary.Value(
                tag=custom_scalars.CONFIG_SUMMARY_TAG,
                metadata=custom_scalars.create_summary_metadata(),
                tensor=make_tensor_proto(layout.SerializeToString(), dtype=DT_STRING),
            )
        ]
    )
