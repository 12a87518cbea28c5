"""The table of a run's metrics, which all places that show one follow by name, and the lines that a run closes with."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

Best = Callable[[list[float]], float]
When = Literal["epoch", "test", "validation", "end"]


class Metric(NamedTuple):
    """The row of a metric: how it is shown, and when it is computed.

    Attributes:
        tag: in TensorBoard; {k} stands for the number of items that a user is shown.
        title: in the closing table; of a metric of the end, in the closing line. Empty: in neither.
        best: min or max of its values.
        when: "epoch", after each epoch; "test" or "validation", on that set after each epoch that is evaluated; "end",
            once for the run, and then it is no column of metrics.csv.
    """

    tag: str
    title: str
    best: Best
    when: When


def _row(tag: str, title: str = "", best: Best = min, when: When = "epoch") -> Any:
    return field(default=math.nan, metadata={"row": Metric(tag, title, best, when)})


@dataclass(frozen=True)
class EpochMetrics:
    """The metrics of an epoch, a row of metrics.csv: a field for each, with its ``Metric``; NaN where it was not taken.

    ``MEASURES`` in train.py says how each is computed. The tags of the losses, of MRR and of MSE are the course's, so
    that its runs and these overlay.
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
        """Return the key by which the best epoch is the highest: validation MRR / MSE, after whether the MSE is 0.

        So one percent of MRR weighs as much as one percent of MSE. None where the epoch was not evaluated on a
        validation set.
        """
        if math.isnan(self.validation_mrr) or math.isnan(self.validation_mse):
            return None
        exact = self.validation_mse == 0
        return exact, self.validation_mrr / (1.0 if exact else self.validation_mse)

    def is_better_than(self, other: "EpochMetrics | None") -> bool:
        """Return whether a validation set prefers this epoch to an earlier one, or to none."""
        key = self.selection_key
        rival = other.selection_key if other is not None else None
        return key is not None and (rival is None or key > rival)


METRICS: dict[str, Metric] = {each.name: each.metadata["row"] for each in fields(EpochMetrics)}
# The closing table's: losses and errors, which are best low, before the metrics that are best high.
SUMMARY_METRICS = {
    name: metric
    for best in (min, max)
    for name, metric in METRICS.items()
    if metric.title and metric.when != "end" and metric.best is best
}
# The charts of several metrics in TensorBoard: how far a task is learned, and how much of that holds for other ratings.
CHARTS = {
    "MSE: training and test": (METRICS["training_mse"].tag, METRICS["test_mse"].tag),
    "Ranking: BPR loss and test MRR": (METRICS["factorization_loss"].tag, METRICS["test_mrr"].tag),
}


def check_metrics(computed: Mapping[str, object]) -> None:
    """Check that each metric that is computed has a row, and that each row is computed and has a tag of its own.

    Raises:
        ValueError: one has not; the message names the file and the change.
    """
    for name in (*computed, *METRICS):
        if name not in METRICS:
            raise ValueError(f"metric {name} is computed but has no row: add it to EpochMetrics in tracking/history.py")
        if name not in computed:
            raise ValueError(f"metric {name} of tracking/history.py is not computed: add it to MEASURES in train.py")
        if sum(metric.tag == METRICS[name].tag for metric in METRICS.values()) > 1:
            raise ValueError(f"metric {name} of tracking/history.py has the tag of another one: give it its own")


def columns(history: Sequence[EpochMetrics]) -> list[str]:
    """Name the metrics that the epochs of a run have; those of a validation set where there is one."""
    validated = any(not math.isnan(metrics.validation_mse) for metrics in history)
    columns_of = ("epoch", "test", "validation") if validated else ("epoch", "test")
    return [name for name, metric in METRICS.items() if metric.when in columns_of]


def from_rows(columns: Sequence[str], rows: Sequence[Sequence[float]]) -> list[EpochMetrics]:
    """Read metrics by the names of their columns: NaN for a metric that has none yet, none for one that was removed."""
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    return [EpochMetrics(**{name: row[name] for name in columns if name in METRICS}) for row in found]


def tags(k: int) -> dict[str, str]:
    """Map each metric's name to its tag in TensorBoard; k items are shown to a user."""
    return {name: metric.tag.replace("{k}", str(k)) for name, metric in METRICS.items()}


def best_epoch(history: Sequence[EpochMetrics]) -> int | None:
    """Return the first epoch with the highest ``selection_key``; None where no epoch has one."""
    best: int | None = None
    for epoch, metrics in enumerate(history):
        if metrics.is_better_than(None if best is None else history[best]):
            best = epoch
    return best


def closing_table(history: Sequence[EpochMetrics]) -> str:
    """Show the metrics after the last epoch, "–" where it was not evaluated, and at their best, with the epochs."""
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
    """Show the metrics of the end of a run; k items are shown to a user."""
    at_end = {name: metric.title.replace("{k}", str(k)) for name, metric in METRICS.items() if metric.when == "end"}
    return ", ".join(f"{title} {getattr(metrics, name):.4f}" for name, title in at_end.items() if title)


def report(history: Sequence[EpochMetrics], epochs: int, patience: int, k: int) -> str:
    """Return the lines that a run closes with: the table, the best epoch, an early stop, the metrics of the end.

    Args:
        history: the metrics of each epoch, at least one.
        epochs: how many epochs there were to be.
        patience: the number of epochs without a better one that stops a run.
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
    """Count the epochs that were trained, and name them: epochs are numbered from 0, as TensorBoard's steps are."""
    if epochs == 0:
        return "0 epochs"
    return f"{epochs} epochs ({last - epochs + 1} to {last})" if epochs > 1 else f"1 epoch ({last})"
