"""The picture of the four experiments: a panel for each metric, with the mean over the seeds and its spread.

Only this file needs matplotlib, which is imported when the picture is drawn.
"""

import io
import math
import statistics
from collections.abc import Mapping, Sequence

import numpy as np

from study.baselines import BaselineScore
from study.four_experiments import EXPERIMENTS
from study.summary import Histories
from tracking.metric_table import SUMMARY_METRICS

# Okabe and Ito's colours, which colour-blind readers can tell apart, and strokes, because two experiments nearly agree.
STROKES = dict(
    zip(EXPERIMENTS, (("#0072B2", "-"), ("#E69F00", "-"), ("#009E73", "-"), ("#CC79A7", (0, (4, 3)))), strict=True)
)


def draw(histories: Histories, baselines: Mapping[int, Sequence[BaselineScore]]) -> bytes:
    """Draw the metrics of the runs that finished against epochs, and the baselines as dashed lines; return a PNG.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator

    every = [metrics for runs in histories.values() for history in runs.values() for metrics in history]
    shown = {
        name: metric
        for name, metric in SUMMARY_METRICS.items()
        if not all(math.isnan(getattr(metrics, name)) for metrics in every)
    }
    rows = math.ceil(len(shown) / 2)
    picture = Figure(figsize=(10, 3.5 * rows), layout="constrained")
    panels = picture.subplots(rows, 2, sharex=True).flat
    for panel in panels[len(shown) :]:
        panel.set_axis_off()
    for panel, (name, metric) in zip(panels, shown.items(), strict=False):
        title = metric.title
        for experiment, (colour, stroke) in STROKES.items():
            if not histories.get(experiment):
                continue
            runs = histories[experiment].values()
            curves = np.array([[getattr(metrics, name) for metrics in history] for history in runs])
            epochs, mean = np.arange(curves.shape[1]), curves.mean(0)
            style = {"color": colour, "linestyle": stroke, "linewidth": 1.8}
            panel.plot(epochs, mean, marker="o" if len(epochs) == 1 else "", label=str(experiment), **style)
            if len(curves) > 1:
                sd = curves.std(0, ddof=1)
                panel.fill_between(epochs, mean - sd, mean + sd, color=colour, alpha=0.2, linewidth=0)
        for same in zip(*baselines.values(), strict=True):
            if same[0].metric == name:
                level = statistics.fmean(each.value for each in same)
                panel.axhline(level, color="0.3", linewidth=0.9, linestyle=(0, (6, 4)))
                panel.annotate(
                    same[0].name, (1, level), (-4, -3), xycoords=("axes fraction", "data"), textcoords="offset points",
                    horizontalalignment="right", verticalalignment="top", color="0.3", fontsize=9,
                )  # fmt: skip
        if name == "training_mse":  # six times as high in the first epoch as later
            panel.set_yscale("log")
            panel.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            panel.yaxis.set_major_formatter("{x:g}")
            panel.yaxis.set_minor_formatter("")
            title = f"{title} (logarithmic)"
        panel.set_title(title, loc="left", fontsize=11)
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        panel.grid(color="0.9")
        panel.spines[["top", "right"]].set_visible(False)
    seeds = {seed for by_seed in histories.values() for seed in by_seed}
    over = f"mean over {len(seeds)} seeds; band: ± 1 standard deviation" if len(seeds) > 1 else "one seed"
    picture.supxlabel(f"epoch ({over})", fontsize=10)
    handles, labels = picture.axes[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc="outside upper center", ncols=len(EXPERIMENTS), frameon=False)
    payload = io.BytesIO()
    picture.savefig(payload, format="png", dpi=110)
    return payload.getvalue()
