"""The results of finished runs, compared bit for bit."""

from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tracking import checkpoint
from tracking.checkpoint import METRICS


def curves(logdir: Path) -> dict[str, list[tuple[int, float]]]:
    """Read all event files of a folder as TensorBoard does: tag → (step, value)."""
    events = EventAccumulator(str(logdir), purge_orphaned_data=False)
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def same_result(one: Path, other: Path) -> bool:
    """Compare two finished runs in everything but the times at which their epochs ended."""
    a, b = checkpoint.load(one), checkpoint.load(other)
    assert a is not None
    assert b is not None
    return (
        (a.settings, a.data, a.history, a.ranking) == (b.settings, b.data, b.history, b.ranking)
        and list(a.tensors) == list(b.tensors)
        and all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
        and (one / METRICS).read_bytes() == (other / METRICS).read_bytes()
        and curves(one) == curves(other)
    )
