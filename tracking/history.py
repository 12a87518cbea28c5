"""The metrics of an epoch, and the table that a run closes with."""

from collections.abc import Callable, Sequence
from typing import NamedTuple


class EpochMetrics(NamedTuple):
    """The means of an epoch's training losses, then the test metrics after it; a row of metrics.csv."""

    factorization_loss: float  # BPR loss, equation 3
    training_mse: float  # equation 5, in squared stars
    joint_loss: float
    test_mrr: float
    test_mse: float


class SummaryMetric(NamedTuple):
    """A metric that a run is summed up by."""

    title: str
    name: str  # in EpochMetrics
    best_of: Callable[[list[float]], float]


SUMMARY_METRICS = (
    SummaryMetric("BPR loss", "factorization_loss", min),
    SummaryMetric("training MSE", "training_mse", min),
    SummaryMetric("test MSE", "test_mse", min),
    SummaryMetric("test MRR", "test_mrr", max),
)


def closing_table(history: Sequence[EpochMetrics]) -> str:
    """The metrics after the last epoch and at their best, with the epochs."""
    last = len(history) - 1
    rows = [f"{'':13}{f'last (epoch {last})':18}best"]
    for title, name, best_of in SUMMARY_METRICS:
        values = [getattr(metrics, name) for metrics in history]
        best = values.index(best_of(values))
        rows.append(f"{title:13}{f'{values[last]:.4f}':18}{values[best]:.4f} (epoch {best})")
    return "\n".join(rows)
