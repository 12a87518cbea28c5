"""A run's event file: what TensorBoard shows of it.

    SCALARS, TIME SERIES   the metrics of each epoch, a curve each
    CUSTOM SCALARS         charts that put several metrics together
    HPARAMS                a row a run: its settings, and its metrics after the last epoch so far

The format is TFRecords of Event messages.
"""

import contextlib
import math
import os
import re
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.compat.proto.types_pb2 import DT_STRING
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.custom_scalar import metadata as custom_scalars
from tensorboard.plugins.hparams.summary_v2 import hparams_pb
from tensorboard.summary.writer.record_writer import RecordWriter
from tensorboard.util.tensor_util import make_tensor_proto

from tracking.folder import EVENTS


class EventFile:
    """A TensorBoard event file, written as it goes: what ``add`` was given can be read when it returns.

    It replaces those that were written here before in this way: they repeat epochs, or miss some, of a run that was
    broken off. TensorBoard drops what it has shown already from a START on. A file without an epoch is removed again,
    because there is nothing of that run to show or to go on with.

    Args:
        folder: the run's.
        tags: of each metric, by name; a metric without one cannot be written.
        settings: of the run, by name: booleans, numbers and texts; anything else is shown as text.
        charts: title → the tags that one chart of the CUSTOM SCALARS tab shows together.
    """

    def __init__(
        self, folder: Path, tags: Mapping[str, str], settings: Mapping[str, Any], charts: Mapping[str, Sequence[str]]
    ) -> None:
        self.tags = tags
        self.empty = True
        self._older = list(folder.glob(f"{EVENTS}*.figures"))
        self._path = folder / f"{EVENTS}{time.time_ns()}.{socket.gethostname()}.{os.getpid()}.figures"
        self._file = self._path.open("xb")
        self._records = RecordWriter(self._file)
        self._write(Event(wall_time=time.time(), file_version="brain.Event:2"))
        self._write(Event(wall_time=time.time(), step=0, session_log=SessionLog(status=SessionLog.START)))
        for summary in (_settings(settings), _layout(charts)):
            self._write(Event(wall_time=time.time(), step=0, summary=summary))

    def __enter__(self) -> "EventFile":
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):  # the same that made us leave, when the disk is full
            self._file.close()
        if self.empty:
            self._path.unlink(missing_ok=True)

    def _write(self, event: Event) -> None:
        self._records.write(event.SerializeToString())

    def _flush(self) -> None:
        try:
            self._file.flush()
        except OSError as error:
            raise OSError(f"{self._path} cannot be written: {error.strerror}") from error

    def add(self, epoch: int, metrics: Mapping[str, float], at: float) -> None:
        """Write an epoch's metrics, by name, NaN where not taken; ``at`` is when it ended, in seconds since 1970."""
        taken = {self.tags[name]: value for name, value in metrics.items() if not math.isnan(value)}
        values = [Summary.Value(tag=tag, simple_value=value) for tag, value in taken.items()]
        self._write(Event(wall_time=at, step=epoch, summary=Summary(value=values)))
        self._flush()
        self.empty = False

    def replace_older(self) -> None:
        """Remove the event files that were there before, now that this one has all of theirs that counts."""
        self._flush()
        for path in self._older:
            path.unlink(missing_ok=True)


def _settings(settings: Mapping[str, Any]) -> Summary:
    """A run for the HPARAMS tab. Its metrics need not be named: they are the last values of its scalars.

    TensorBoard makes one row of the runs that name the same trial, and by default a trial's name comes from its
    settings. A run without such a name has a row of its own, even beside one with the same settings.
    """
    shown = {name: value if _is_number(value) else _text(value) for name, value in settings.items()}
    return hparams_pb(shown, trial_id="")


def _is_number(value: object) -> bool:
    """Return whether TensorBoard, which has only floats, can show a value as a number or a boolean."""
    return isinstance(value, bool | float) or (isinstance(value, int) and abs(value) < 2**63)


def _text(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _layout(charts: Mapping[str, Sequence[str]]) -> Summary:
    """The charts of the CUSTOM SCALARS tab. The same layout in several runs is one layout of all of them."""
    layout = layout_pb2.Layout(
        category=[
            layout_pb2.Category(
                title="training beside test",
                chart=[
                    layout_pb2.Chart(
                        title=title,
                        # TensorBoard takes them for regular expressions that a tag starts with.
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
