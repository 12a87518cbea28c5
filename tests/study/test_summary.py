"""The summary compared with independent arithmetic and published values; its tables and its picture."""

import csv
import io
import itertools
import math
import re
import struct
from dataclasses import replace

import numpy as np
import pytest

from study import picture, summary
from study.baselines import BaselineScore
from study.four_experiments import DIFFERENCES, EXPERIMENTS, Experiment
from study.summary import Row
from tracking.metric_table import METRICS, SUMMARY_METRICS, EpochMetrics

TITLED = ("factorization_loss", "training_mse", "test_mse", "test_mrr")
# Two-sided, from the usual table of Student's t: degrees of freedom → 80 %, 90 %, 95 %, 99 %.
T_TABLE = {
    1: (3.078, 6.314, 12.706, 63.657),
    2: (1.886, 2.920, 4.303, 9.925),
    3: (1.638, 2.353, 3.182, 5.841),
    4: (1.533, 2.132, 2.776, 4.604),
    5: (1.476, 2.015, 2.571, 4.032),
    9: (1.383, 1.833, 2.262, 3.250),
    10: (1.372, 1.812, 2.228, 3.169),
    29: (1.311, 1.699, 2.045, 2.756),
    120: (1.289, 1.658, 1.980, 2.617),
}


@pytest.mark.parametrize("degrees", T_TABLE)
def test_students_t_agrees_with_the_published_table(degrees: int) -> None:
    for coverage, expected in zip((0.80, 0.90, 0.95, 0.99), T_TABLE[degrees], strict=True):
        assert round(summary.student_t(coverage, degrees), 3) == expected


def made(seeds: int, epochs: int = 7) -> dict[Experiment, dict[int, list[EpochMetrics]]]:
    rng = np.random.default_rng(0)
    return {
        experiment: {seed: [EpochMetrics(*row) for row in rng.random((epochs, 5)).tolist()] for seed in range(seeds)}
        for experiment in EXPERIMENTS
    }


def baseline_scores(seeds: int) -> dict[int, list[BaselineScore]]:
    mean = BaselineScore("global mean", "test_mse", 1.2)
    return {seed: [BaselineScore("popularity", "test_mrr", 0.05 + seed / 100), mean] for seed in range(seeds)}


def find(rows: list[Row], *key: str) -> Row:
    (row,) = [row for row in rows if row[:4] == key]
    return row


def test_means_deviations_and_best_epochs_agree_with_numpy() -> None:
    histories = made(5)
    rows = summary.summarize(histories, baseline_scores(5))
    for experiment, name in itertools.product(EXPERIMENTS, TITLED):
        curves = np.array([[getattr(each, name) for each in histories[experiment][seed]] for seed in range(5)])
        best, argbest = (np.max, np.argmax) if name == "test_mrr" else (np.min, np.argmin)
        test_mse = np.array([[each.test_mse for each in histories[experiment][seed]] for seed in range(5)])
        lowest = test_mse.argmin(1)
        for at, values, epoch in (
            ("last", curves[:, -1], 6.0),
            ("best", best(curves, 1), argbest(curves, 1).mean()),
            ("stopped", curves[range(5), lowest], lowest.mean()),
        ):
            row = find(rows, "experiment", str(experiment), name, at)
            half = 2.7764451 * values.std(ddof=1) / np.sqrt(5)
            expected = (values.mean(), values.std(ddof=1), values.mean() - half, values.mean() + half)
            assert (row.mean, row.sd, row.ci_low, row.ci_high) == pytest.approx(expected, rel=1e-6)
            assert row.epoch == pytest.approx(epoch)
            assert row.seeds == 5


def test_differences_are_of_the_same_seed() -> None:
    """A shift that two runs of a seed share cancels, even if it is a thousand times larger than the difference."""
    histories = made(4)
    (one, other), name = (EXPERIMENTS[0], EXPERIMENTS[3]), "shared minus separate, 0.99 / 0.01"
    for seed in range(4):
        histories[other][seed] = [EpochMetrics(*[1000.0 * seed] * 5)]
        histories[one][seed] = [EpochMetrics(*[1000.0 * seed + 1 + seed / 10] * 5)]
    row = find(summary.summarize(histories, baseline_scores(4)), "difference", name, "test_mse", "last")
    differences = np.array([1.0, 1.1, 1.2, 1.3])
    half = 3.1824463 * differences.std(ddof=1) / 2
    assert (row.mean, row.sd) == pytest.approx((1.15, differences.std(ddof=1)))
    assert (row.ci_low, row.ci_high) == pytest.approx((1.15 - half, 1.15 + half), rel=1e-6)


def test_the_homeworks_four_comparisons() -> None:
    histories = {
        experiment: {0: [EpochMetrics(*[value] * 5)]}
        for experiment, value in zip(EXPERIMENTS, (1, 10, 100, 1000), strict=True)
    }
    rows = summary.summarize(histories, baseline_scores(1))
    assert {row.name: row.mean for row in rows if row.kind == "difference"} == {
        "shared minus separate, 0.99 / 0.01": 1 - 1000,
        "shared minus separate, 0.5 / 0.5": 10 - 100,
        "0.99 / 0.01 minus 0.5 / 0.5, shared": 1 - 10,
        "0.99 / 0.01 minus 0.5 / 0.5, separate": 1000 - 100,
    }


def test_only_seeds_of_both_experiments_are_compared() -> None:
    histories = made(5)
    del histories[EXPERIMENTS[0]][1]
    del histories[EXPERIMENTS[1]][3]
    histories[EXPERIMENTS[2]].clear()
    rows = summary.summarize(histories, baseline_scores(5))
    seeds = {row.name: row.seeds for row in rows}
    assert [seeds.get(str(experiment)) for experiment in EXPERIMENTS] == [4, 4, None, 5]
    assert [seeds.get(name) for name in DIFFERENCES] == [4, None, 3, None]
    row = find(rows, "difference", "0.99 / 0.01 minus 0.5 / 0.5, shared", "test_mse", "last")
    one, other = (histories[each] for each in EXPERIMENTS[:2])
    assert row.mean == pytest.approx(np.mean([one[s][-1].test_mse - other[s][-1].test_mse for s in (0, 2, 4)]))
    assert "| separate, 0.5 / 0.5 | – | – | – | – | 0 |" in summary.markdown(rows)


def test_runs_older_than_a_metric_are_left_out_of_its_cells() -> None:
    histories = made(3)
    for history in histories[EXPERIMENTS[0]].values():
        history[0] = replace(history[0], test_mrr=math.nan)
    del histories[EXPERIMENTS[1]][2]
    histories[EXPERIMENTS[1]][0][1] = replace(histories[EXPERIMENTS[1]][0][1], test_mrr=math.nan)
    rows = summary.summarize(histories, baseline_scores(3))
    assert not any(row.metric == "test_mrr" and row.name == str(EXPERIMENTS[0]) for row in rows)
    for at in summary.AT:
        row = find(rows, "experiment", str(EXPERIMENTS[1]), "test_mrr", at)
        assert (row.seeds, row.mean) == (1, histories[EXPERIMENTS[1]][1][int(row.epoch or 0)].test_mrr)
    assert "nan" not in (summary.markdown(rows) + summary.tidy(rows)).lower()


def test_one_seed_has_no_deviation_and_no_interval() -> None:
    rows = summary.summarize(made(1), baseline_scores(1))
    assert {(row.sd, row.ci_low, row.ci_high, row.seeds) for row in rows} == {(None, None, None, 1)}
    tables = summary.markdown(rows)
    assert re.search(r"\| shared, 0\.99 / 0\.01 \| 0\.\d{4} ± – \| 0\.\d{3} ± – \|", tables)
    assert re.search(r"\| shared minus separate, 0\.5 / 0\.5 \| [+-]0\.\d{4} \(–\) \|", tables)
    assert "nan" not in (tables + summary.tidy(rows)).lower()
    assert "by chance" not in tables


def test_the_csv_is_tidy_and_exact() -> None:
    rows = summary.summarize(made(3), baseline_scores(3))
    with io.StringIO(summary.tidy(rows)) as file:
        read = list(csv.DictReader(file))
    assert list(read[0]) == list(Row._fields)
    assert len({tuple(row[name] for name in Row._fields[:4]) for row in read}) == len(read) == 2 * 4 * 4 * 3 + 2
    assert [float(row["mean"]) for row in read] == [row.mean for row in rows]
    assert find(rows, "baseline", "popularity", "test_mrr", "").mean == pytest.approx(0.06)


def test_the_tables() -> None:
    values = {0: (0.1, 0.5, 0.0, 0.12, 0.9), 1: (0.2, 0.7, 0.0, 0.14, 1.1)}
    histories = {
        experiment: {
            seed: [EpochMetrics(0.4, 1, 1, 0.01, 0.8 + seed / 10), EpochMetrics(*row)] for seed, row in values.items()
        }
        for experiment in EXPERIMENTS
    }
    tables = summary.markdown(summary.summarize(histories, baseline_scores(2)))
    after, best, *_ = tables.split("\n\n")[1:]
    header = "| after the last epoch | BPR loss | training MSE | test MSE | test MRR | seeds |"
    cells = "0.1500 ± 0.0707 | 0.600 ± 0.141 | 1.000 ± 0.141 | 0.1300 ± 0.0141"
    assert after.splitlines()[0] == header
    assert after.splitlines()[2] == f"| shared, 0.99 / 0.01 | {cells} | 2 |"
    assert after.splitlines()[6:] == [
        "| popularity | – | – | – | 0.0550 ± 0.0071 | 2 |",
        "| global mean | – | – | 1.200 ± 0.000 | – | 2 |",
    ]
    assert "| 0.850 ± 0.071 (epoch 0) | 0.1300 ± 0.0141 (epoch 1) |" in best.splitlines()[2]
    assert "| shared minus separate, 0.5 / 0.5 | +0.0000 (+0.0000 to +0.0000) |" in tables  # and not −0
    assert "Of 44 such intervals about 2.2 miss 0 by chance" in tables


@pytest.mark.parametrize(("seeds", "epochs"), [(3, 7), (1, 1)])
def test_the_picture(seeds: int, epochs: int) -> None:
    pytest.importorskip("matplotlib")
    histories = made(seeds, epochs)
    histories[EXPERIMENTS[2]].clear()
    payload = picture.draw(histories, baseline_scores(seeds))
    assert payload.startswith(b"\x89PNG")
    width, height = struct.unpack(">II", payload[16:24])
    assert width > height > 600
    assert len(payload) < 300 * 1024


def test_the_picture_has_a_panel_for_each_metric_that_is_added(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    monkeypatch.setitem(SUMMARY_METRICS, "joint_loss", METRICS["joint_loss"]._replace(title="joint loss"))
    width, height = struct.unpack(">II", picture.draw(made(2), baseline_scores(2))[16:24])
    assert (width, height) == (1100, 1155)
