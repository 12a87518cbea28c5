"""The table of a run's metrics, which everything that shows a metric follows, and a run's closing lines."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

Best = Callable[[list[float]], float]
When = Literal["epoch", "test", "validation", "end"]


class Metric(NamedTuple):
    """The row of a metric: its names, and when it is computed.

    Attributes:
        tag: the name in TensorBoard; {k} stands for the number of items that a user is shown.
        title: the name in the closing table, or in the closing line for a metric of the end; "" for neither.
        best: min or max, which returns the best of several values.
        when: "epoch", after each epoch; "test" or "validation", on that set after each epoch that is evaluated; "end",
            once per run; such a metric has no column in metrics.csv.
    """

    tag: str
    title: str
    best: Best
    when: When


def _row(tag: str, title: str = "", best: Best = min, when: When = "epoch") -> Any:
    return field(default=math.nan, metadata={"row": Metric(tag, title, best, when)})


@dataclass(frozen=True)
class EpochMetrics:
    """The metrics of an epoch, a row of metrics.csv.

    Each field has its ``Metric``; it is NaN where the metric was not computed. ``MEASURES`` in train.py computes them.
    The tags of the losses, of MRR and of MSE are the course's, so that its runs and these overlay.
    """

    factorization_loss: float = _row("training/Factorization Loss", "BPR loss")  # equation 3, mean over the epoch
    training_mse: float = _row("training/MSE", "training MSE")  # equation 5, mean over the epoch, in squared stars
    joint_loss: float = _row("training/Joint Loss")
    test_mrr: float = _row("eval/Mean Reciprocal Rank", "test MRR", max, when="test")
    test_mse: float = _row("eval/MSE", "test MSE", when="test")
    validation_mrr: float = _row("validation/Mean Reciprocal Rank", best=max, when="validation")
    validation_mse: float = _row("validation/MSE", when="validation")
    recall: float = _row("users/Recall@{k}", "recall@{k}", max, when="end")
    ndcg: float = _row("users/NDCG@{k}", "NDCG@{k}", max, when="end")
    hit_rate: float = _row("users/Hit Rate@{k}", "hit rate@{k}", max, when="end")
    coverage: float = _row("users/Coverage@{k}", "coverage@{k}", max, when="end")

    @property
    def selection_key(self) -> tuple[bool, float] | None:
        """Return the key, highest for the best epoch: whether the validation MSE is 0, then validation MRR / MSE.

        One percent of MRR weighs as much as one percent of MSE. None where the epoch was not evaluated on a
        validation set.
        """
        if math.isnan(self.validation_mrr) or math.isnan(self.validation_mse):
            return None
        exact = self.validation_mse == 0
        return exact, self.validation_mrr / (1.0 if exact else self.validation_mse)

    def is_better_than(self, other: "EpochMetrics | None") -> bool:
        """Return whether the validation set prefers this epoch to an earlier one; None stands for no earlier one."""
        key = self.selection_key
        rival = other.selection_key if other is not None else None
        return key is not None and (rival is None or key > rival)


METRICS: dict[str, Metric] = {each.name: each.metadata["row"] for each in fields(EpochMetrics)}
# The closing table: metrics whose lowest value is best, then those whose highest value is best.
SUMMARY_METRICS = {
    name: metric
    for best in (min, max)
    for name, metric in METRICS.items()
    if metric.title and metric.when != "end" and metric.best is best
}
# The charts in TensorBoard that put a task's training and test metrics together.
CHARTS = {
    "MSE: training and test": (METRICS["training_mse"].tag, METRICS["test_mse"].tag),
    "Ranking: BPR loss and test MRR": (METRICS["factorization_loss"].tag, METRICS["test_mrr"].tag),
}


def check_metrics(computed: Mapping[str, object]) -> None:
    """Check that each computed metric has a row, and that each row is computed and has a tag of its own.

    Raises:
        ValueError: a metric is incomplete; the message names the file and the change.
    """
    for name in (*computed, *METRICS):
        if name not in METRICS:
            raise ValueError(
                f"metric {name} is computed but has no row: add it to EpochMetrics in tracking/metric_table.py"
            )
        if name not in computed:
            raise ValueError(
                f"metric {name} of tracking/metric_table.py is not computed: add it to MEASURES in train.py"
            )
        if sum(metric.tag == METRICS[name].tag for metric in METRICS.values()) > 1:
            raise ValueError(f"metric {name} of tracking/metric_table.py has the tag of another one: give it its own")


def columns(history: Sequence[EpochMetrics]) -> list[str]:
    """Return the names of a run's metrics per epoch, with those of the validation set if there is one."""
    validated = any(not math.isnan(metrics.validation_mse) for metrics in history)
    columns_of = ("epoch", "test", "validation") if validated else ("epoch", "test")
    return [name for name, metric in METRICS.items() if metric.when in columns_of]


def from_rows(columns: Sequence[str], rows: Sequence[Sequence[float]]) -> list[EpochMetrics]:
    """Read metrics by column name: NaN for a metric without a column; a column without a metric is left out."""
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    return [EpochMetrics(**{name: row[name] for name in columns if name in METRICS}) for row in found]


def tags(k: int) -> dict[str, str]:
    """Map each metric's name to its tag in TensorBoard, where k items are shown to a user."""
    return {name: metric.tag.replace("{k}", str(k)) for name, metric in METRICS.items()}


def best_epoch(history: Sequence[EpochMetrics]) -> int | None:
    """Return the first epoch with the highest ``selection_key``; None where no epoch has one."""
    best: int | None = None
    for epoch, metrics in enumerate(history):
        if metrics.is_better_than(None if best is None else history[best]):
            best = epoch
    return best


def closing_table(history: Sequence[EpochMetrics]) -> str:
    """Format a table of each metric after the last epoch ("–" if not evaluated) and at its best, with the epochs."""
    width = max(len(metric.title) for metric in SUMMARY_METRICS.values()) + 1
    rows = [f"{'':{width}}{f'last of {len(history)} (epoch {len(history) - 1})':26}best"]
    for name, metric in SUMMARY_METRICS.items():
        values = [getattr(metrics, name) for metrics in history]
        taken = [value for value in values if not math.isnan(value)]
        at_end = "–" if math.isnan(values[-1]) else f"{values[-1]:.4f}"
        best = f"{metric.best(taken):.4f} (epoch {values.index(metric.best(taken))})" if taken else "–"
        rows.append(f"{metric.title:{width}}{at_end:26}{best}")
    return "\n".join(rows)


def closing_line(metrics: EpochMetrics, k: int) -> str:
    """Format the metrics of the end of a run, where k items are shown to a user."""
    at_end = {name: metric.title.replace("{k}", str(k)) for name, metric in METRICS.items() if metric.when == "end"}
    return ", ".join(f"{title} {getattr(metrics, name):.4f}" for name, title in at_end.items() if title)


def report(history: Sequence[EpochMetrics], epochs: int, patience: int, k: int) -> str:
    """Return a run's closing lines: the table, the best epoch, an early stop, the metrics of the end.

    Args:
        history: the metrics of each epoch, at least one.
        epochs: the number of epochs in the settings.
        patience: the number of epochs without a better one that ends a run.
        k: number of items that a user is shown.
    """
    last, best = len(history) - 1, best_epoch(history)
    lines = [closing_table(history)]
    if best is not None:
        chosen = history[best]
        lines.append(
            f"best epoch {best}, with the highest MRR / MSE of the validation set, {chosen.validation_mrr:.4f} / "
            f"{chosen.validation_mse:.4f}: test MSE {chosen.test_mse:.4f}, test MRR {chosen.test_mrr:.4f}; in best.pt"
        )
    if len(history) < epochs:
        lines.append(f"stopped after epoch {last}: no epoch was better in the last {patience} (--patience)")
    start = "" if best in (None, last) else "after the last epoch: "
    return "\n".join([*lines, start + closing_line(history[-1], k)])


def counted(epochs: int, last: int) -> str:
    """Format the number of epochs trained and their range, numbered from 0 like TensorBoard's steps."""
    if epochs == 0:
        return "0 epochs"
    return f"{epochs} epochs ({last - epochs + 1} to {last})" if epochs > 1 else f"1 epoch ({last})"
