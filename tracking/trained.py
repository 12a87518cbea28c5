"""A trained run, read from its folder: its settings, its data and its network; training that starts from it."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from tracking import run_data
from tracking.checkpoint import BEST, CHECKPOINT, Checkpoint, as_string, load_checkpoint
from tracking.run_data import RunData
from training import parts, rows, setup
from training.settings import Settings
from training.trainer import Trainer

# The settings that the tensors of the network that recommends depend on: their shapes, and the sums that are added.
SHAPE = ("embedding_dim", "layer_sizes", "shared_embeddings", "watched_items")


class TrainedRun(NamedTuple):
    """A run after its best epoch if it has a ``best.pt``, otherwise after its last.

    Attributes:
        checkpoint: the state, and the description of the run.
        settings: the settings of the run.
        data: the data of the run.
    """

    folder: Path
    checkpoint: Checkpoint
    settings: Settings
    data: RunData

    @property
    def shape(self) -> dict[str, Any]:
        """Return the settings of ``SHAPE`` by name."""
        return {name: getattr(self.settings, name) for name in SHAPE}

    def check_shape(self, settings: Settings) -> None:
        """Raise ValueError unless the network of these settings has the same shape."""
        for name, was in self.shape.items():
            now = getattr(settings, name)
            if now != was:
                raise ValueError(
                    f"{name} is {as_string(now)}, and was {as_string(was)} in {self.folder}: "
                    "expected the same for a warm start"
                )

    def network(self, num_users: int, num_items: int) -> nn.Module:
        """Make the network that recommends, on the CPU, without the sums over watched items.

        Args:
            num_users, num_items: the numbers that the run was trained with.

        Raises:
            ValueError: models.py or one of these numbers differs from the run's.
        """
        tensors = self.checkpoint.tensors
        with torch.random.fork_rng(devices=[]):
            model = setup.make_network(self.settings, num_users, num_items, torch.device("cpu"))
        try:
            parts.load_state(model, tensors)
        except ValueError as error:
            raise ValueError(f"the run in {self.folder} was trained with another models.py: {error}") from None
        return model


def read(folder: Path) -> TrainedRun:
    """Read a run from its folder.

    Raises:
        ValueError: a file is damaged, or main.py did not make the run.
        OSError: there is no checkpoint.
    """
    if folder.is_file():
        raise NotADirectoryError(f"{folder} is a file: expected the folder of a run")
    found = load_checkpoint(folder, BEST) or load_checkpoint(folder)
    if found is None:
        others = sorted(str(each.parent) for each in folder.parent.glob(f"*/{CHECKPOINT}"))
        there = f"; there is {' and '.join(others[:3])}" if others else ""
        raise FileNotFoundError(
            f"{folder} holds no checkpoint: expected the folder of a run of main.py that has finished an epoch{there}"
        )
    try:
        settings = Settings(**found.run.settings)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder} holds a run that main.py did not make: {error}") from None
    return TrainedRun(folder, found, settings, run_data.read(folder))


def start_from(trainer: Trainer, folder: Path, fingerprint: str) -> str:
    """Copy the network of a run into a trainer that has not taken a step; see ``training.rows.start_from``.

    Args:
        trainer: the trainer of a network of the same shape.
        folder: the folder of the run.
        fingerprint: that of the trainer's data and their split.

    Returns:
        A line with the numbers of users and items whose rows were copied, and the settings that differ from the run's.

    Raises:
        ValueError: the run cannot be read, its network has another shape, no user or item is in both, or the ratings
            are in another unit.
        OSError: there is no run.
    """
    run = read(folder)
    run.check_shape(trainer.settings)
    then, now = run.data, trainer.train
    then.check_unit(torch.tensor(trainer.rating_range), "this run")
    old = run.network(len(then.user_ids), len(then.item_ids))
    users, items = rows.start_from(trainer, old, then.user_ids, then.item_ids, then.scale)
    line = (
        f"starting from {folder} after epoch {len(run.checkpoint.history) - 1}: {users:,} users and {items:,} items as "
        f"trained there, {now.num_users - users:,} and {now.num_items - items:,} new"
    )
    before, after = run.settings.noted(), trainer.settings.noted()
    if changed := [name for name in before if after.get(name) != before[name] and name != "seed"]:
        line += f"; it had other {', '.join(changed)}"
    if fingerprint != run.checkpoint.run.data:
        line += "; test metrics are too good if that run was trained on these test ratings (split time avoids it)"
    return line
