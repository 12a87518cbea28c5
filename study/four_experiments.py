"""The four experiments, what the homework compares among them, and the run of one of them with one seed."""

import argparse
from pathlib import Path
from typing import NamedTuple

from tracking import checkpoint
from tracking.checkpoint import METRICS
from tracking.history import EpochMetrics
from training.flags import folder_name, parse_arguments, settings_of


class Experiment(NamedTuple):
    """Settings that are compared; everything else is main.py's default."""

    shared: bool
    factorization_weight: float
    regression_weight: float

    @property
    def folder(self) -> str:
        """The README's name of its folder."""
        return folder_name(*self)

    @property
    def sharing(self) -> str:
        return "shared" if self.shared else "separate"

    @property
    def weights(self) -> str:
        return f"{self.factorization_weight} / {self.regression_weight}"

    def __str__(self) -> str:
        return f"{self.sharing}, {self.weights}"


EXPERIMENTS = (
    Experiment(True, 0.99, 0.01),
    Experiment(True, 0.5, 0.5),
    Experiment(False, 0.5, 0.5),
    Experiment(False, 0.99, 0.01),
)
# What the homework asks about: a difference of two experiments in which one thing differs.
DIFFERENCES = {
    f"shared minus separate, {EXPERIMENTS[0].weights}": (EXPERIMENTS[0], EXPERIMENTS[3]),
    f"shared minus separate, {EXPERIMENTS[1].weights}": (EXPERIMENTS[1], EXPERIMENTS[2]),
    f"{EXPERIMENTS[0].weights} minus {EXPERIMENTS[1].weights}, shared": (EXPERIMENTS[0], EXPERIMENTS[1]),
    f"{EXPERIMENTS[3].weights} minus {EXPERIMENTS[2].weights}, separate": (EXPERIMENTS[3], EXPERIMENTS[2]),
}


class Run(NamedTuple):
    """One experiment with one seed."""

    experiment: Experiment
    seed: int
    folder: Path

    def arguments(self, options: argparse.Namespace) -> list[str]:
        """What ``main.py`` is called with."""
        return [
            f"--factorization_weight={self.experiment.factorization_weight}",
            f"--regression_weight={self.experiment.regression_weight}",
            *["--no_shared_embeddings"] * (not self.experiment.shared),
            f"--seed={self.seed}",
            f"--epochs={options.epochs}",
            f"--logdir={self.folder}",
            f"--data_dir={options.data_dir}",
            "--resume",
        ]

    def epochs_written(self) -> int:
        """How many epochs its ``metrics.csv`` has."""
        try:
            return max(0, (self.folder / METRICS).read_bytes().count(b"\n") - 1)
        except OSError:  # not there yet, or no folder for us to read: the run itself says why
            return 0

    def history(self, options: argparse.Namespace, fingerprint: str) -> list[EpochMetrics] | None:
        """The metrics of the epochs asked for, or None where the run is not finished or is of other settings."""
        if self.epochs_written() < options.epochs:
            return None
        settings = settings_of(parse_arguments(self.arguments(options)))
        try:
            found = checkpoint.load(self.folder)
        except (ValueError, OSError):
            return None
        if found is None or len(found.history) < options.epochs:
            return None
        if len(found.history) == options.epochs and not found.ranking:  # stopped in its last moment
            return None
        if checkpoint.differences(found, settings, fingerprint):
            return None
        return found.metrics[: options.epochs]
