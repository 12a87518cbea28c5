"""The metrics of an epoch, and the table that a run closes with."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple


class EpochMetrics(NamedTuple):
    """The means of an epoch's training losses, then the test metrics after it; a row of metrics.csv.

    The test metrics are NaN after an epoch that was not evaluated, those of the validation side also where there is
    none, and then they are no columns.
    """

    factorization_loss: float  # BPR loss, equation 3
    training_mse: float  # equation 5, in squared stars
    joint_loss: float
    test_mrr: float
    test_mse: float
    validation_mrr: float = math.nan
    validation_mse: float = math.nan

    @property
    def choice(self) -> tuple[bool, float] | None:
        """What the best epoch is chosen by: validation MRR / MSE, one percent of the one for one of the other.

        An epoch without error is better than all others, and of several the one with the highest MRR. None where the
        epoch was not judged.
        """
        if math.isnan(self.validation_mrr) or math.isnan(self.validation_mse):
            return None
        exact = self.validation_mse == 0
        return exact, self.validation_mrr / (1.0 if exact else self.validation_mse)


COLUMNS = EpochMetrics._fields[:5]
COLUMNS_WITH_VALIDATION = EpochMetrics._fields


def best_epoch(history: Sequence[EpochMetrics]) -> int | None:
    """The first epoch with the highest ``choice``; None where no epoch has one."""
    judged = [(metrics.choice, -epoch) for epoch, metrics in enumerate(history) if metrics.choice is not None]
    return -max(judged)[1] if judged else None


def best_line(history: Sequence[EpochMetrics]) -> str:
    """The best epoch, why it is, and its test metrics."""
    best = best_epoch(history)
    assert best is not None
    metrics = history[best]
    return (
        f"best epoch {best}, by the highest MRR / MSE of the validation side, {metrics.validation_mrr:.4f} / "
        f"{metrics.validation_mse:.4f}: test MSE {metrics.test_mse:.4f}, test MRR {metrics.test_mrr:.4f}; in best.pt"
    )


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
    """The metrics after the last epoch, "–" where it was not evaluated, and at their best, with the epochs."""
    last = len(history) - 1
    rows = [f"{'':13}{f'last (epoch {last})':18}best"]
    for title, name, best_of in SUMMARY_METRICS:
        values = [getattr(metrics, name) for metrics in history]
        taken = [value for value in values if not math.isnan(value)]
        at_end = "–" if math.isnan(values[last]) else f"{values[last]:.4f}"
        best = f"{best_of(taken):.4f} (epoch {values.index(best_of(taken))})" if taken else "–"
        rows.append(f"{title:13}{at_end:18}{best}")
    return "\n".join(rows)


def ranking_line(scores: Sequence[float], k: int) -> str:
    """Recall, NDCG, hit rate and coverage of the k items that a user would be shown."""
    names = ("recall", "NDCG", "hit rate", "coverage")
    return ", ".join(f"{name}@{k} {score:.4f}" for name, score in zip(names, scores, strict=True))
