"""The table of a run's metrics, which everything that shows a metric follows, and the choice of the best epoch."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple

from torch import Tensor

Best = Callable[[list[float]], float]
When = Literal["epoch", "test", "validation", "end"]


class Metric(NamedTuple):
    """The row of a metric: its names, and when it is computed.

    Attributes:
        tag: the name in TensorBoard. With {k} in it the metric has a value for each number k of items shown to a user.
        title: the name in the closing table, or in the closing lines for a metric of the end; "" for neither.
        best: min or max, which returns the best of several values.
        when: "epoch", after each epoch; "test" or "validation", on that set after each epoch that is evaluated; "end",
            once per run; such a metric has no column in metrics.csv.
        of_ratings: whether it is of ratings, and is left out where the training set or the set that it is about has
            none.
    """

    tag: str
    title: str
    best: Best
    when: When
    of_ratings: bool = False


def _row(tag: str, title: str = "", best: Best = min, when: When = "epoch", of_ratings: bool = False) -> Any:
    return field(default=math.nan, metadata={"row": Metric(tag, title, best, when, of_ratings)})


@dataclass(frozen=True)
class EpochMetrics:
    """The metrics of an epoch, a row of metrics.csv.

    Each field has its ``Metric``; it is NaN where the metric was not computed. ``MEASURES`` in train.py computes them.
    The tags of the losses, of MRR and of MSE are the course's, so that its runs and these overlay.
    """

    factorization_loss: float = _row("training/Factorization Loss", "BPR loss")  # equation 3, mean over the epoch
    training_mse: float = _row("training/MSE", "training MSE", of_ratings=True)  # equation 5, mean over the epoch
    joint_loss: float = _row("training/Joint Loss")
    test_mrr: float = _row("eval/Mean Reciprocal Rank", "test MRR", max, when="test")
    test_mse: float = _row("eval/MSE", "test MSE", when="test", of_ratings=True)
    validation_mrr: float = _row("validation/Mean Reciprocal Rank", best=max, when="validation")
    validation_mse: float = _row("validation/MSE", when="validation", of_ratings=True)

    def selection_key(self, by_ranking: bool = False) -> tuple[bool, float] | None:
        """Return the key, highest for the best epoch: whether the validation MSE is 0, then validation MRR / MSE.

        One percent of MRR weighs as much as one percent of MSE. The MRR counts alone with ``by_ranking``, and where the
        validation set has no ratings. None where the epoch was not evaluated on a validation set.
        """
        if math.isnan(self.validation_mrr):
            return None
        if by_ranking or math.isnan(self.validation_mse):
            return False, self.validation_mrr
        exact = self.validation_mse == 0
        return exact, self.validation_mrr / (1.0 if exact else self.validation_mse)

    def is_better_than(self, other: "EpochMetrics | None", by_ranking: bool = False) -> bool:
        """Return whether the validation set prefers this epoch to an earlier one; None stands for no earlier one."""
        key = self.selection_key(by_ranking)
        rival = other.selection_key(by_ranking) if other is not None else None
        return key is not None and (rival is None or key > rival)


# The metrics of the end of a run, of the network that recommends.
CLOSING = {
    "test_rmse": Metric("users/RMSE", "test RMSE", min, "end", of_ratings=True),
    "test_mae": Metric("users/MAE", "test MAE", min, "end", of_ratings=True),
    "recall": Metric("users/Recall@{k}", "recall@{k}", max, "end"),
    "ndcg": Metric("users/NDCG@{k}", "NDCG@{k}", max, "end"),
    "hit_rate": Metric("users/Hit Rate@{k}", "hit rate@{k}", max, "end"),
    "coverage": Metric("users/Coverage@{k}", "coverage@{k}", max, "end"),
    "precision": Metric("users/Precision@{k}", "precision@{k}", max, "end"),
    "map": Metric("users/MAP@{k}", "MAP@{k}", max, "end"),
}
METRICS: dict[str, Metric] = {each.name: each.metadata["row"] for each in fields(EpochMetrics)} | CLOSING
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


class History(list[EpochMetrics]):
    """The metrics of each epoch of a run, and of its end.

    Attributes:
        best: the best epoch by the validation set, from 0; None without such a set.
        closing: the metrics of the network that recommends, by name: ``test_mse``, ``recall@10`` and others. {} before
            the end.
        best_state: the state of the trainer after the best epoch; None before the end, and if that is the last epoch.
        trained: the number of epochs that the trainer had trained at the end.
    """

    def __init__(self, metrics: Iterable[EpochMetrics] = (), by_ranking: bool = False) -> None:
        super().__init__(metrics)
        self.by_ranking = by_ranking
        self.best = best_epoch(self, by_ranking)
        self.closing: dict[str, float] = {}
        self.best_state: dict[str, Tensor] | None = None
        self.trained = 0

    def add(self, metrics: EpochMetrics) -> None:
        """Append the metrics of an epoch, which may be the best one."""
        self.append(metrics)
        if metrics.is_better_than(None if self.best is None else self[self.best], self.by_ranking):
            self.best = len(self) - 1

    @property
    def recommending(self) -> int:
        """Return the epoch whose network recommends: the best one, or the last if no validation set chooses."""
        return len(self) - 1 if self.best is None else self.best


def best_epoch(history: Sequence[EpochMetrics], by_ranking: bool = False) -> int | None:
    """Return the first epoch with the highest ``selection_key``; None where no epoch has one."""
    best: int | None = None
    for epoch, metrics in enumerate(history):
        if metrics.is_better_than(None if best is None else history[best], by_ranking):
            best = epoch
    return best


def check_metrics(computed: Mapping[str, object]) -> None:
    """Check that each computed metric has a row, and that each row is computed and has a tag of its own.

    Raises:
        ValueError: a metric is incomplete; the message names the file and the change.
    """
    for name in (*computed, *METRICS):
        if name not in METRICS:
            raise ValueError(
                f"metric {name} is computed but has no row: "
                "add it to EpochMetrics or CLOSING in tracking/metric_table.py"
            )
        if name not in computed:
            raise ValueError(
                f"metric {name} of tracking/metric_table.py is not computed: add it to MEASURES in train.py"
            )
        if sum(metric.tag == METRICS[name].tag for metric in METRICS.values()) > 1:
            raise ValueError(f"metric {name} of tracking/metric_table.py has the tag of another one: give it its own")


def columns(history: Sequence[EpochMetrics]) -> list[str]:
    """Return the names of a run's metrics per epoch: those of the validation set and of ratings only if there are some.

    Where no epoch was evaluated yet, the test set has ratings if the training set has.
    """
    evaluated = [metrics for metrics in history if not math.isnan(metrics.test_mrr)]
    validated = any(not math.isnan(metrics.validation_mrr) for metrics in history)
    columns_of = ("epoch", "test", "validation") if validated else ("epoch", "test")
    rates = any(not math.isnan(metrics.training_mse) for metrics in history)

    def is_absent(name: str) -> bool:
        none_taken = all(math.isnan(getattr(metrics, name)) for metrics in evaluated)
        return not rates or (len(evaluated) > 0 and none_taken)

    names = [name for name, metric in METRICS.items() if metric.when in columns_of]
    return [name for name in names if not (METRICS[name].of_ratings and is_absent(name))]


def from_rows(columns: Sequence[str], rows: Sequence[Sequence[float]]) -> list[EpochMetrics]:
    """Read metrics by column name: NaN for a metric without a column; a column without a metric is left out."""
    found = [dict(zip(columns, row, strict=True)) for row in rows]
    of_epochs = {each.name for each in fields(EpochMetrics)}
    return [EpochMetrics(**{name: row[name] for name in columns if name in of_epochs}) for row in found]


def at_each_k(topk: Sequence[int]) -> dict[str, Metric]:
    """Return the table with a row for each k in place of a row for all: "recall@10" and "recall@20" for "recall"."""
    rows: dict[str, Metric] = {}
    for name, metric in METRICS.items():
        if "{k}" not in metric.tag:
            rows[name] = metric
            continue
        for k in topk:
            tag = metric.tag.replace("{k}", str(k))
            rows[f"{name}@{k}"] = metric._replace(tag=tag, title=metric.title.replace("{k}", str(k)))
    return rows


def shown(value: float, digits: int = 4) -> str:
    """Format a metric, with an exponent where the digits would be too many or all 0."""
    is_usual = value == 0 or 0.5 <= abs(value) * 10**digits < 10 ** (digits + 6)
    return f"{value:.{digits}f}" if is_usual or not math.isfinite(value) else f"{value:.{digits}e}"


def charts(rates: bool) -> dict[str, tuple[str, ...]]:
    """Return CHARTS; without ratings, those of ratings are left out."""
    of_ratings = {metric.tag for metric in METRICS.values() if metric.of_ratings}
    return {title: shown for title, shown in CHARTS.items() if rates or not of_ratings.issuperset(shown)}


def tags(topk: Sequence[int]) -> dict[str, str]:
    """Map each metric's name to its tag in TensorBoard, where these numbers of items are shown to a user."""
    return {name: metric.tag for name, metric in at_each_k(topk).items()}
