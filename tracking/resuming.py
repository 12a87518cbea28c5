"""Whether a run goes on from the checkpoint in its folder, or starts in an empty one."""

import sys
from typing import Any, NamedTuple

from tracking import checkpoint
from tracking.checkpoint import Checkpoint
from tracking.folder import RunFolder, contains_run


class Plan(NamedTuple):
    """The run that was asked for.

    Attributes:
        settings: what its metrics depend on, by name.
        data: fingerprint of the ratings and their split.
        epochs: how many in all.
        eager: whether it trains with the eager step.
        device: the type of its device.
        processes: how many train together.
    """

    settings: dict[str, Any]
    data: str
    epochs: int
    eager: bool
    device: str
    processes: int = 1


def find(folder: RunFolder, plan: Plan) -> Checkpoint | None:
    """The checkpoint to go on from, or None where there is none.

    Raises:
        ValueError: the checkpoint is damaged, or of a run with other settings or data.
    """
    found = checkpoint.load(folder.path)
    if found is not None and (differing := checkpoint.differences(found, plan.settings, plan.data)):
        raise ValueError(f"{folder.path} holds a run with other settings: {'; '.join(differing)}")
    return found


def announce(folder: RunFolder, plan: Plan, found: Checkpoint | None) -> None:
    """Say on stderr from where the run goes on, and what will differ."""
    if found is None:
        print(f"nothing to resume in {folder.path}: starting", file=sys.stderr)
        return
    epochs = len(found.history)
    ended = f"; it has the {plan.epochs} epochs asked for" if epochs >= plan.epochs else ""
    then = found.device, found.settings.get("eager"), found.settings.get("processes", 1)
    same = then == (plan.device, plan.eager, plan.processes)
    what = "the number of processes" if then[:2] == (plan.device, plan.eager) else "the device or the kind of step"
    bits = "" if same else f"; not to the bit, because {what} is another one"
    print(f"resuming {folder.path} after epoch {epochs - 1}{ended}{bits}", file=sys.stderr)


def make_room(folder: RunFolder) -> None:
    """Move a run that the folder holds aside, and say so on stderr.

    Raises:
        OSError: it cannot be moved.
    """
    if contains_run(folder.path):
        print(f"{folder.path} holds a run: moved to {folder.move_aside()}", file=sys.stderr)
