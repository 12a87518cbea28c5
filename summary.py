"""From the figures of many runs to tables: means over seeds, differences with their intervals, yardsticks.

    rows = summarize(histories, yardsticks)
    print(markdown(rows))

A figure is taken after the last epoch, at its own best epoch, and where one would stop early for the ratings' sake: at
the run's lowest test MSE. Runs of the same seed have the same split, so that experiments are compared seed by seed.
"""

import csv
import io
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from baselines import Yardstick
from train import JUDGED, Figures

COVERAGE = 0.95  # of the intervals
AT = {
    "last": "after the last epoch",
    "best": "each figure at its best epoch",
    "stopped": "all at the epoch of the lowest test MSE",
}
DIGITS = {"factorization_loss": 4, "training_mse": 3, "test_mse": 3, "test_mrr": 4}
TITLES = {judged.figure: judged.title for judged in JUDGED}


class Experiment(NamedTuple):
    """Settings that are compared; everything else is main.py's default."""

    shared: bool
    factorization_weight: float
    regression_weight: float

    @property
    def folder(self) -> str:
        """The README's name of its folder."""
        return f"shared={self.shared}_LF={self.factorization_weight}_LR={self.regression_weight}"

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

Histories = Mapping[Experiment, Mapping[int, Sequence[Figures]]]  # of each seed, a figure an epoch


class Row(NamedTuple):
    """One figure over the seeds; None where it is not defined, as a deviation of one seed.

    Attributes:
        kind: experiment, difference or yardstick.
        name: of the experiment, the difference or the yardstick.
        figure: named as in ``train.Figures``.
        at: which epoch, one of AT; empty for a yardstick.
        epoch: which one that was, the mean over the seeds; None for differences and yardsticks.
        mean, sd: over the seeds, the latter with n − 1 in the denominator.
        ci_low, ci_high: Student's interval of the mean.
        seeds: how many.
    """

    kind: str
    name: str
    figure: str
    at: str
    epoch: float | None
    mean: float
    sd: float | None
    ci_low: float | None
    ci_high: float | None
    seeds: int


def summarize(histories: Histories, yardsticks: Mapping[int, Sequence[Yardstick]]) -> list[Row]:
    """Rows for all experiments, differences and yardsticks that have a seed at all.

    Args:
        histories: experiment → seed → the figures of each epoch, of the runs that finished.
        yardsticks: seed → what the baselines reach on its split, in the same order for each.

    Returns:
        In the order of EXPERIMENTS, DIFFERENCES and the yardsticks. A difference is over the seeds that both have.
    """
    rows = []
    values: dict[tuple[Experiment, str, str], dict[int, float]] = {}
    for experiment in EXPERIMENTS:
        lowest_test_mse = {
            seed: min((figures.test_mse, epoch) for epoch, figures in enumerate(history))[1]
            for seed, history in histories.get(experiment, {}).items()
        }
        for _, figure, best_of in JUDGED:
            curves = {
                seed: [getattr(figures, figure) for figures in history]
                for seed, history in histories.get(experiment, {}).items()
            }
            epochs_of = {
                "last": {seed: len(curve) - 1 for seed, curve in curves.items()},
                "best": {seed: curve.index(best_of(curve)) for seed, curve in curves.items()},
                "stopped": lowest_test_mse,
            }
            for at, epochs in epochs_of.items():
                chosen = {seed: curve[epochs[seed]] for seed, curve in curves.items()}
                values[experiment, figure, at] = chosen
                rows += _row("experiment", str(experiment), figure, at, chosen.values(), epochs.values())
    for name, (one, other) in DIFFERENCES.items():
        for _, figure, _ in JUDGED:
            for at in AT:
                ones, others = values[one, figure, at], values[other, figure, at]
                differences = [ones[seed] - others[seed] for seed in sorted(ones.keys() & others.keys())]
                rows += _row("difference", name, figure, at, differences)
    for same in zip(*yardsticks.values(), strict=True):
        rows += _row("yardstick", same[0].name, same[0].figure, "", [each.value for each in same])
    return rows


def _row(
    kind: str, name: str, figure: str, at: str, values: Iterable[float], epochs: Iterable[int] | None = None
) -> list[Row]:
    """A row of these values, one a seed; none where there are none."""
    values = list(values)
    if not values:
        return []
    mean, epoch = statistics.fmean(values), None if epochs is None else statistics.fmean(epochs)
    if len(values) == 1:
        return [Row(kind, name, figure, at, epoch, mean, None, None, None, 1)]
    sd = statistics.stdev(values)
    half = student_t(COVERAGE, len(values) - 1) * sd / math.sqrt(len(values))
    return [Row(kind, name, figure, at, epoch, mean, sd, mean - half, mean + half, len(values))]


def student_t(coverage: float, degrees: int) -> float:
    """The t between whose negative and itself lies this share of Student's distribution.

    With θ = atan(t / √degrees) the share is a finite sum of powers of cos θ (Abramowitz and Stegun, Handbook of
    Mathematical Functions, 26.7.3 and 26.7.4), which grows with θ; θ is found by halving.

    Args:
        coverage: in (0, 1).
        degrees: of freedom, at least 1.
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        theta = (low + high) / 2
        term = math.cos(theta) if degrees % 2 else 1.0
        total = 0.0
        for k in range(1 + degrees % 2, degrees, 2):
            total += term
            term *= k / (k + 1) * math.cos(theta) ** 2
        share = math.sin(theta) * total
        if degrees % 2:
            share = (theta + share) * 2 / math.pi
        low, high = (theta, high) if share < coverage else (low, theta)
    return math.sqrt(degrees) * math.tan((low + high) / 2)


def tidy(rows: Sequence[Row]) -> str:
    """The rows as CSV; what is not defined is empty."""
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(Row._fields)
    writer.writerows(rows)
    return table.getvalue()


def markdown(rows: Sequence[Row]) -> str:
    """The rows as four tables and what to know when reading them."""
    found = {(row.name, row.figure, row.at): row for row in rows}
    yardsticks = list(dict.fromkeys(row.name for row in rows if row.kind == "yardstick"))
    lines = ["Mean ± standard deviation over seeds.", ""]
    for at, title in AT.items():
        lines += _head(title)
        for name in [*map(str, EXPERIMENTS), *yardsticks]:
            cells = [found.get((name, figure, at)) or found.get((name, figure, "")) for figure in TITLES]
            lines.append(_line(name, cells, _spread))
        lines.append("")
    lines += [f"Differences, seed by seed: mean and {COVERAGE:.0%} interval (Student's t).", ""]
    for at, title in AT.items():
        lines += _head(title)
        lines += [_line(name, [found.get((name, figure, at)) for figure in TITLES], _interval) for name in DIFFERENCES]
        lines.append("")
    repeated = ("test_mse", "stopped")  # the lowest test MSE is the best one
    intervals = sum(
        row.kind == "difference" and row.ci_low is not None and (row.figure, row.at) != repeated for row in rows
    )
    lines += [
        "A best epoch is chosen by the figure itself, the test figures' by the test ratings: what is best there is a "
        "little better than what a choice made beforehand would get.",
    ]
    if intervals:
        expected = intervals * (1 - COVERAGE)
        lines += [f"Of {intervals} such intervals about {expected:.1f} miss 0 by chance where there is no difference."]
    return "\n".join(lines) + "\n"


def _head(title: str) -> list[str]:
    return [f"| {title} | {' | '.join(TITLES.values())} | seeds |", "| --- " * (len(TITLES) + 2) + "|"]


def _line(name: str, cells: Sequence[Row | None], show: Callable[[Row], str]) -> str:
    seeds = max((row.seeds for row in cells if row), default=0)
    return f"| {name} | {' | '.join(show(row) if row else '–' for row in cells)} | {seeds} |"


def _spread(row: Row) -> str:
    digits = DIGITS[row.figure]
    spread = "–" if row.sd is None else f"{row.sd:.{digits}f}"
    epoch = f" (epoch {row.epoch:.0f})" if row.at in ("best", "stopped") and row.epoch is not None else ""
    return f"{row.mean:.{digits}f} ± {spread}{epoch}"


def _interval(row: Row) -> str:
    def signed(value: float) -> str:
        return f"{round(value, DIGITS[row.figure]) + 0.0:+.{DIGITS[row.figure]}f}"  # + 0.0 makes −0 a 0

    if row.ci_low is None or row.ci_high is None:
        return f"{signed(row.mean)} (–)"
    return f"{signed(row.mean)} ({signed(row.ci_low)} to {signed(row.ci_high)})"
