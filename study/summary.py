"""Tables of the metrics of many runs: means over seeds, differences with their intervals, and baselines.

    rows = summarize(histories, baselines)
    print(markdown(rows))

Each metric is taken after the last epoch, at its own best epoch, and where one would stop early for the ratings: at the
run's lowest test MSE. Runs of the same seed have the same split, so that experiments are compared seed by seed.
"""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from study.baselines import BaselineScore
from study.four_experiments import DIFFERENCES, EXPERIMENTS, Experiment
from tracking.metric_table import SUMMARY_METRICS, EpochMetrics

COVERAGE = 0.95  # of the intervals
AT = {
    "last": "after the last epoch",
    "best": "each metric at its best epoch",
    "stopped": "all at the epoch of the lowest test MSE",
}
DIGITS = dict.fromkeys(SUMMARY_METRICS, 4) | {"training_mse": 3, "test_mse": 3}
TITLES = {name: metric.title for name, metric in SUMMARY_METRICS.items()}

Histories = Mapping[Experiment, Mapping[int, Sequence[EpochMetrics]]]  # of each seed, the metrics of each epoch


class Row(NamedTuple):
    """One metric over the seeds, a row of summary.csv; None where a value is undefined, as a deviation of one seed."""

    kind: str  # "experiment", "difference" or "baseline"
    name: str  # of the experiment, the difference or the baseline
    metric: str  # its name in ``EpochMetrics``
    at: str  # the epoch, a key of AT; empty for a baseline
    epoch: float | None  # its number, the mean over the seeds; None for differences and baselines
    mean: float
    sd: float | None  # with n − 1 in the denominator
    ci_low: float | None  # Student's interval of the mean
    ci_high: float | None
    seeds: int  # the number of seeds


def summarize(histories: Histories, baselines: Mapping[int, Sequence[BaselineScore]]) -> list[Row]:
    """Make the rows of all experiments, differences and baselines that have at least one seed.

    Args:
        histories: of the runs that finished.
        baselines: seed → the scores of the baselines on its split, in the same order for each.

    Returns:
        In the order of EXPERIMENTS, DIFFERENCES and the baselines. A difference is over the seeds that both have.
    """
    rows = []
    values: dict[tuple[Experiment, str, str], dict[int, float]] = {}
    for experiment in EXPERIMENTS:
        by_seed = histories.get(experiment, {})
        lowest = {
            seed: _epoch_of_lowest_test_mse(history)
            for seed, history in by_seed.items()
            if not math.isnan(history[-1].test_mse)
        }
        for name, metric in SUMMARY_METRICS.items():
            curves = {
                seed: [getattr(metrics, name) for metrics in history]
                for seed, history in by_seed.items()
                if not any(math.isnan(getattr(metrics, name)) for metrics in history)  # without ratings
            }
            epochs_at = {
                "last": {seed: len(curve) - 1 for seed, curve in curves.items()},
                "best": {seed: curve.index(metric.best(curve)) for seed, curve in curves.items()},
                "stopped": {seed: lowest[seed] for seed in curves if seed in lowest},
            }
            for at, epochs in epochs_at.items():
                chosen = {seed: curves[seed][epoch] for seed, epoch in epochs.items()}
                values[experiment, name, at] = chosen
                rows += _row("experiment", str(experiment), name, at, chosen.values(), epochs.values())
    for title, (one, other) in DIFFERENCES.items():
        for name in SUMMARY_METRICS:
            for at in AT:
                ones, others = values[one, name, at], values[other, name, at]
                differences = [ones[seed] - others[seed] for seed in sorted(ones.keys() & others.keys())]
                rows += _row("difference", title, name, at, differences)
    for same in zip(*baselines.values(), strict=True):
        known = [each.value for each in same if not math.isnan(each.value)]
        rows += _row("baseline", same[0].name, same[0].metric, "", known)
    return rows


def _epoch_of_lowest_test_mse(history: Sequence[EpochMetrics]) -> int:
    return min(range(len(history)), key=lambda epoch: history[epoch].test_mse)


def _row(
    kind: str, name: str, metric: str, at: str, values: Iterable[float], epochs: Iterable[int] | None = None
) -> list[Row]:
    """Make the row of these values, one for each seed; none where there are none."""
    values = list(values)
    if not values:
        return []
    mean = statistics.fmean(values)
    epoch = None if epochs is None else statistics.fmean(epochs)
    if len(values) == 1:
        return [Row(kind, name, metric, at, epoch, mean, None, None, None, 1)]
    half = half_interval(values)
    return [Row(kind, name, metric, at, epoch, mean, statistics.stdev(values), mean - half, mean + half, len(values))]


def half_interval(values: Sequence[float]) -> float:
    """Return half the length of Student's interval of the mean of at least two values."""
    return student_t(COVERAGE, len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))


def spread(values: Sequence[float], digits: int) -> str:
    """Write mean ± standard deviation, or "–" where one of the values is NaN."""
    if any(math.isnan(value) for value in values):
        return "–"
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.{digits}f}{deviation}"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def student_t(coverage: float, degrees: int) -> float:
    """Return the t for which Student's distribution has this share between −t and t.

    With θ = atan(t / √degrees) the share is a finite sum of powers of cos θ that grows with θ (Abramowitz and Stegun,
    Handbook of Mathematical Functions, 26.7.3 and 26.7.4). Bisection finds θ.
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
    """Write the rows as CSV; values that are not defined are empty."""
    import pandas as pd  # here, because its import takes a quarter of a second

    return pd.DataFrame(rows, columns=list(Row._fields)).to_csv(index=False, lineterminator="\n")


def markdown(rows: Sequence[Row], sets: str = "") -> str:
    """Write the rows as tables, and notes on how to read them. A metric without rows is left out.

    Args:
        sets: a note on the test sets of the seeds.
    """
    found = {(row.name, row.metric, row.at): row for row in rows}
    metrics = [metric for metric in TITLES if any(row.metric == metric for row in rows)]
    baselines = list(dict.fromkeys(row.name for row in rows if row.kind == "baseline"))
    titles = {at: title for at, title in AT.items() if any(row.at == at for row in rows)}
    parts = [" ".join(filter(None, ("Mean ± standard deviation over seeds.", sets)))]
    for at, title in titles.items():
        named = {
            name: [found.get((name, metric, at)) or found.get((name, metric, "")) for metric in metrics]
            for name in (*map(str, EXPERIMENTS), *baselines)
        }
        parts.append(_table(title, metrics, named, _spread))
    parts.append(f"Differences, seed by seed: mean and {COVERAGE:.0%} interval (Student's t).")
    for at, title in titles.items():
        named = {name: [found.get((name, metric, at)) for metric in metrics] for name in DIFFERENCES}
        parts.append(_table(title, metrics, named, _interval))
    note = (
        "A best epoch is chosen by the metric itself, for test metrics by the test ratings: its value is a little "
        "better than that of an epoch chosen beforehand."
    )
    repeated = ("test_mse", "stopped")  # the lowest test MSE is the best one
    differences = [row for row in rows if row.kind == "difference" and (row.metric, row.at) != repeated]
    if intervals := sum(row.ci_low is not None for row in differences):
        expected = intervals * (1 - COVERAGE)
        note += f"\nOf {intervals} such intervals about {expected:.1f} miss 0 by chance where there is no difference."
    return "\n\n".join([*parts, note]) + "\n"


def _table(
    title: str, metrics: Sequence[str], named: Mapping[str, Sequence[Row | None]], show: Callable[[Row], str]
) -> str:
    rows = [
        [name, *(show(row) if row else "–" for row in cells), str(max((row.seeds for row in cells if row), default=0))]
        for name, cells in named.items()
    ]
    return table([title, *(TITLES[metric] for metric in metrics), "seeds"], rows)


def _spread(row: Row) -> str:
    digits = DIGITS[row.metric]
    deviation = "–" if row.sd is None else f"{row.sd:.{digits}f}"
    epoch = f" (epoch {row.epoch:.0f})" if row.at in ("best", "stopped") and row.epoch is not None else ""
    return f"{row.mean:.{digits}f} ± {deviation}{epoch}"


def _interval(row: Row) -> str:
    def signed(value: float) -> str:
        return f"{round(value, DIGITS[row.metric]) + 0.0:+.{DIGITS[row.metric]}f}"  # + 0.0 makes −0 a 0

    if row.ci_low is None or row.ci_high is None:
        return f"{signed(row.mean)} (–)"
    return f"{signed(row.mean)} ({signed(row.ci_low)} to {signed(row.ci_high)})"
