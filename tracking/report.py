"""The closing lines of a run: the table of its metrics, the best epoch, and the metrics of the end."""

import math
from collections.abc import Mapping, Sequence

from tracking.metric_table import METRICS, SUMMARY_METRICS, EpochMetrics, History, at_each_k, columns, shown


def report(history: History, epochs: int, patience: int, topk: Sequence[int]) -> str:
    """Return a run's closing lines: the table, the best epoch, an early stop, the metrics of the end.

    Args:
        history: the metrics of each epoch, at least one, and of the end.
        epochs: the number of epochs in the settings.
        patience: the number of epochs without a better one that ends a run.
        topk: the numbers of items that a user is shown.
    """
    lines = [closing_table(history, history.best)]
    if history.best is not None:
        lines.append(_choice(history, history.best))
    if len(history) < epochs:
        lines.append(f"stopped after epoch {len(history) - 1}: no epoch was better in the last {patience} (patience)")
    return "\n".join([*lines, *closing_lines(history.closing, topk)])


def closing_table(history: Sequence[EpochMetrics], best: int | None = None) -> str:
    """Format a table of each metric ("–" if not evaluated) after the best epoch by the validation set and at its best.

    Without a validation set, ``best`` is None, and the last epoch is shown in place of the best one.
    """
    names = columns(history)
    rows_of = {name: metric for name, metric in SUMMARY_METRICS.items() if name in names}
    width = max(len(metric.title) for metric in rows_of.values()) + 1
    epoch = len(history) - 1 if best is None else best
    which = f"last of {len(history)} (epoch {epoch})" if best is None else f"best epoch {best} of {len(history)}"
    rows = [f"{'':{width}}{which:26}best"]
    for name, metric in rows_of.items():
        values = [getattr(metrics, name) for metrics in history]
        taken = [value for value in values if not math.isnan(value)]
        value = "–" if math.isnan(values[epoch]) else shown(values[epoch])
        highest = f"{shown(metric.best(taken))} (epoch {values.index(metric.best(taken))})" if taken else "–"
        rows.append(f"{metric.title:{width}}{value:26}{highest}")
    return "\n".join(rows)


def _choice(history: History, best: int) -> str:
    """Format the line of the best epoch: why it was chosen, and its test metrics."""
    chosen = history[best]
    by, value = "MRR / MSE", f"{chosen.validation_mrr:.4f} / {shown(chosen.validation_mse)}"
    if history.by_ranking or math.isnan(chosen.validation_mse):
        by, value = "MRR", f"{chosen.validation_mrr:.4f}"
    mse = "" if math.isnan(chosen.test_mse) else f"test MSE {shown(chosen.test_mse)}, "
    return (
        f"best epoch {best}, with the highest {by} of the validation set, {value}: {mse}"
        f"test MRR {chosen.test_mrr:.4f}; in best.pt"
    )


def closing_lines(closing: Mapping[str, float], topk: Sequence[int]) -> list[str]:
    """Format the metrics of the end of a run: a line of those with one value, and a line for each k."""
    titles = {name: metric.title for name, metric in at_each_k(topk).items() if metric.when == "end"}
    shown_of = {name: f"{title} {shown(closing[name])}" for name, title in titles.items() if title and name in closing}
    lines = [[each for name, each in shown_of.items() if name in METRICS]]
    lines += [[each for name, each in shown_of.items() if name.endswith(f"@{k}")] for k in topk]
    return [", ".join(line) for line in lines if line]


def counted(epochs: int, last: int) -> str:
    """Format the number of epochs trained and their range, numbered from 0 like TensorBoard's steps."""
    if epochs == 0:
        return "0 epochs"
    return f"{epochs} epochs ({last - epochs + 1} to {last})" if epochs > 1 else f"1 epoch ({last})"
