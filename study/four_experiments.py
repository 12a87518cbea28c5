"""The four experiments, the comparisons that the homework asks for, and the run of an experiment with one seed."""

from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from cli.arguments import flags_of
from datasets.source import DataSource
from tracking import checkpoint
from tracking.checkpoint import METRICS
from tracking.metric_table import EpochMetrics
from training.settings import Settings, folder_name

OF_SPLIT = ("split", "test_fraction", "folds")  # the settings of the split, beside the seed


class Experiment(NamedTuple):
    """The settings in which the experiments differ; all others are the defaults of main.py."""

    shared: bool
    factorization_weight: float
    regression_weight: float

    @property
    def folder(self) -> str:
        """The homework's name of its folder."""
        return folder_name(self.shared, self.factorization_weight, self.regression_weight)

    @property
    def weights(self) -> str:
        return f"{self.factorization_weight} / {self.regression_weight}"

    def __str__(self) -> str:
        return f"{'shared' if self.shared else 'separate'}, {self.weights}"


EXPERIMENTS = (
    Experiment(True, 0.99, 0.01),
    Experiment(True, 0.5, 0.5),
    Experiment(False, 0.5, 0.5),
    Experiment(False, 0.99, 0.01),
)
# The homework's questions: differences of two experiments that differ in one respect.
DIFFERENCES = {
    f"shared minus separate, {EXPERIMENTS[0].weights}": (EXPERIMENTS[0], EXPERIMENTS[3]),
    f"shared minus separate, {EXPERIMENTS[1].weights}": (EXPERIMENTS[1], EXPERIMENTS[2]),
    f"{EXPERIMENTS[0].weights} minus {EXPERIMENTS[1].weights}, shared": (EXPERIMENTS[0], EXPERIMENTS[1]),
    f"{EXPERIMENTS[3].weights} minus {EXPERIMENTS[2].weights}, separate": (EXPERIMENTS[3], EXPERIMENTS[2]),
}


class Run(NamedTuple):
    """An experiment with one seed, in a folder of its own.

    Attributes:
        source: the ratings.
        split: the settings of the split; the others are not used.
    """

    experiment: Experiment
    seed: int
    folder: Path
    epochs: int = 200
    source: DataSource = DataSource()
    split: Settings = Settings()

    @property
    def settings(self) -> Settings:
        return Settings(
            factorization_weight=self.experiment.factorization_weight,
            regression_weight=self.experiment.regression_weight,
            shared_embeddings=self.experiment.shared,
            seed=self.seed,
            epochs=self.epochs,
            **{name: getattr(self.split, name) for name in OF_SPLIT},
        )

    def arguments(self) -> list[str]:
        """Return the arguments of ``main.py``."""
        return [
            f"--factorization_weight={self.experiment.factorization_weight}",
            f"--regression_weight={self.experiment.regression_weight}",
            *["--no_shared_embeddings"] * (not self.experiment.shared),
            f"--seed={self.seed}",
            f"--epochs={self.epochs}",
            f"--logdir={self.folder}",
            *([] if self.source.ratings else [f"--dataset={self.source.dataset}"]),
            *flags_of(self.source, [each.name for each in fields(DataSource) if each.name != "dataset"]),
            *flags_of(self.split, OF_SPLIT),
            "--resume",
        ]

    def epochs_written(self) -> int:
        """Count the epochs in ``metrics.csv``, at most those that the run is to have."""
        try:
            lines = (self.folder / METRICS).read_bytes().count(b"\n")
        except OSError:  # there is no such file yet, or it cannot be read: the run itself reports the reason
            return 0
        return min(max(0, lines - 1), self.epochs)

    def differences(self, fingerprint: str) -> list[str] | None:
        """Return how the run in its folder differs from this one; None if there is no whole checkpoint.

        Args:
            fingerprint: of the ratings and their split.
        """
        try:
            found = checkpoint.load_checkpoint(self.folder)
        except (ValueError, OSError):  # the run itself reports the reason
            return None
        if found is None:
            return None
        now = checkpoint.Run(self.settings.noted(), fingerprint, self.source.name, self.source.own)
        return found.run.differences(now)

    def history(self, fingerprint: str) -> list[EpochMetrics] | None:
        """Return the metrics of its epochs; None where it is not finished, or the folder holds a different run.

        Args:
            fingerprint: of the ratings and their split.
        """
        if self.epochs_written() < self.epochs:
            return None
        try:
            found = checkpoint.load_checkpoint(self.folder)
        except (ValueError, OSError):
            return None
        if found is None or len(found.history) < self.epochs:
            return None
        stopped_before_closing = len(found.history) == self.epochs and not found.closing
        if stopped_before_closing or found.run.differences(checkpoint.Run(self.settings.noted(), fingerprint)):
            return None
        return found.metrics[: self.epochs]
