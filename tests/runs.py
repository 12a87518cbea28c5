"""Runs for tests: small networks, trained with a record in a folder, and compared bit for bit."""

from collections.abc import Callable
from pathlib import Path

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from data import Interactions
from models import MultiTaskNet
from tracking.checkpoint import METRICS, Run, load_checkpoint
from tracking.folder import RunFolder
from tracking.metric_table import EpochMetrics, History
from tracking.record import RunRecord
from tracking.resuming import restore

Split = tuple[Interactions, Interactions]  # a training and a test set


def network(data: Interactions, sharing: bool, layer_sizes: tuple[int, ...] = (12, 7), seed: int = 0) -> MultiTaskNet:
    """Make a small network for ratings; d is a third of the first width."""
    torch.manual_seed(seed)
    return MultiTaskNet(data.num_users, data.num_items, layer_sizes[0] // 3, layer_sizes, sharing)


def fit_in(
    logdir: Path,
    trainer: train.Trainer,
    test: Interactions,
    validation: Interactions | None = None,
    on_epoch: Callable[[int, EpochMetrics], bool | None] | None = None,
) -> History:
    """Train with a record in a folder, resume from its checkpoint if there is one, and return all metrics."""
    with RunFolder(logdir) as folder:
        found = load_checkpoint(logdir)
        if found is not None:
            restore(trainer, found)
        run = Run(trainer.settings.noted(), eager=False, device=trainer.device.type)
        settings = trainer.settings
        record = RunRecord(folder, run, settings.epochs, settings.topk, found, rates=trainer.rates)
        done = found.metrics if found else []
        return train.fit(trainer, test, validation, history=done, record=record, on_epoch=on_epoch)


def curves(logdir: Path) -> dict[str, list[tuple[int, float]]]:
    """Read all event files of a folder as TensorBoard does: tag → (step, value)."""
    events = EventAccumulator(str(logdir), purge_orphaned_data=False)
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def same_result(one: Path, other: Path) -> bool:
    """Return whether two finished runs are equal, except for the times when their epochs ended."""
    a, b = load_checkpoint(one), load_checkpoint(other)
    assert a is not None
    assert b is not None
    return (
        (a.run, a.history, a.closing) == (b.run, b.history, b.closing)
        and list(a.tensors) == list(b.tensors)
        and all(torch.equal(a.tensors[name], b.tensors[name]) for name in a.tensors)
        and (one / METRICS).read_bytes() == (other / METRICS).read_bytes()
        and curves(one) == curves(other)
    )
