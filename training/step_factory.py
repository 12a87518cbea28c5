"""The ways of taking a step, and which of them is used: the fastest that agrees with the plain one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from training.adam import AdamState
from training.cuda_graph import GraphStep
from training.fused import FusedStep
from training.parallel import Group
from training.settings import Settings
from training.rehearsal import Rehearsal, Way
from training.rowwise import EagerRowwiseStep, RowwiseGraphStep, RowwiseStep
from training.shared_steps import SharedEagerStep, SharedRowwiseStep, SharedStep
from training.steps import EagerStep, Step, Weights
from training.tuned_step import TunedStep
from training.watched import Watched

# Row-wise Adam where a table has more than this many rows, and so many times those that a batch looks up. Below, dense
# Adam is as fast or faster (measured on one core), and the definition.
MANY_ROWS, ROWS_A_LOOKUP = 2**13, 16


def pick_optimizer(name: str, rows: int, batch_size: int) -> str:
    """Choose an Adam; for "auto" by the size of the tables relative to a batch, which looks up three rows a triple.

    Args:
        name: "adam", "lazy_adam" or "auto".
        rows: the number of users and items.
        batch_size: triples a step.

    Returns:
        "adam" or "lazy_adam".
    """
    if name != "auto":
        return name
    return "lazy_adam" if rows > max(MANY_ROWS, ROWS_A_LOOKUP * 3 * batch_size) else "adam"


def ways_of(
    optimizer: str, device: torch.device, group: Group, settings: Settings, steps: int
) -> tuple[Way, list[Way]]:
    """List the ways of taking the step that these settings define.

    Args:
        optimizer: "adam" or "lazy_adam".
        device: of the network.
        group: the processes that train together.
        settings: of training.
        steps: how many there will be in all, for settings that depend on it.

    Returns:
        The plain way, which is the definition, and the others, the fastest first.

    Raises:
        ValueError: no step is made for these together.
    """
    lazy = optimizer == "lazy_adam"
    if not settings.plain_step:
        if group.size > 1 or lazy:
            who = "several processes" if group.size > 1 else "lazy_adam"
            raise ValueError(
                f"{who} cannot train with negatives, user_balance, watched_items, temperature, weight_decay, "
                "lr_schedule or dropout other than the homework's: leave them out, or train with one process and "
                "--optimizer adam"
            )

        def tuned(name: str, by_tables: bool, own_derivative: bool) -> Way:
            def make(
                model: nn.Module, adam: AdamState, weights: Weights, watched: Watched, generator: torch.Generator
            ) -> Step:
                shortcuts = by_tables, own_derivative
                return TunedStep(model, adam, weights, settings, generator, steps, watched, *shortcuts)

            return Way(name, make)

        faster = tuned("tuned step", True, True), tuned("tuned step with the plain loss", True, False)
        return tuned(EagerStep.name, False, False), [*faster]
    plain = EagerRowwiseStep if lazy else EagerStep
    if group.size > 1:
        shared = (SharedRowwiseStep,) if lazy else (SharedStep, SharedEagerStep)
        return _way(plain), [_way(each, group) for each in shared]
    graph, fused = (RowwiseGraphStep, RowwiseStep) if lazy else (GraphStep, FusedStep)
    return _way(plain), [_way(each) for each in ((graph, fused) if device.type == "cuda" else (fused,))]


def _way(step: Any, *group: Group) -> Way:
    return Way(step.name, lambda model, adam, weights, *_: step(model, adam, weights, *group))


def fastest(rehearsal: Rehearsal, plain: Way, others: Sequence[Way]) -> tuple[Way, str]:
    """Return the first of the others that agrees with the plain way, or the plain way, and why it is not the first."""
    reasons: list[str] = []
    for way in (*others, plain):
        reason = rehearsal.difference(way) if way is not plain else None
        if reason is None:
            break
        reasons.append(reason)
    return way, f"training with the {way.name}: {reasons[0]}" if reasons else ""
