"""The table of metrics: incomplete metrics are found before training, and a resumed run matches metrics by name."""

import csv
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Refused
from runs import curves, fit_in

import main
import train
from data import Interactions
from models import MultiTaskNet
from tracking import metric_table
from tracking.checkpoint import load_checkpoint
from tracking.folder import contains_run
from tracking.metric_table import METRICS, EpochMetrics, Metric
from tracking.report import counted
from training.settings import Settings

Split = tuple[Interactions, Interactions]
NORM = Metric("training/Norm", "", max, "epoch")


def trainer(train_set: Interactions, epochs: int = 2) -> train.Trainer:
    torch.manual_seed(0)
    net = MultiTaskNet(train_set.num_users, train_set.num_items, 4, (12, 5))
    return train.Trainer(net, train_set, Settings(epochs=epochs, seed=7))


def computed_without_a_row(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(train.MEASURES, "norm", lambda epoch: 1.0)


def a_row_that_is_not_computed(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(METRICS, "norm", NORM)


def a_score_of_the_ranking_that_is_not_computed(patch: pytest.MonkeyPatch) -> None:
    patch.delitem(train.MEASURES, "ndcg")


def two_rows_with_one_tag(patch: pytest.MonkeyPatch) -> None:
    patch.setitem(METRICS, "norm", NORM._replace(tag="eval/MSE"))
    patch.setitem(train.MEASURES, "norm", lambda epoch: 1.0)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        (
            computed_without_a_row,
            "metric norm is computed but has no row: add it to EpochMetrics or CLOSING in tracking/metric_table",
        ),
        (
            a_row_that_is_not_computed,
            "metric norm of tracking/metric_table.py is not computed: add it to MEASURES in train",
        ),
        (
            a_score_of_the_ranking_that_is_not_computed,
            "metric ndcg of tracking/metric_table.py is not computed: add it to",
        ),
        (two_rows_with_one_tag, "metric test_mse of tracking/metric_table.py has the tag of another one"),
    ],
)
def test_an_incomplete_metric_is_one_line_before_training(
    mistake: Callable[[pytest.MonkeyPatch], None],
    message: str,
    split: Split,
    tmp_path: Path,
    data_dir: Path,
    refused: Refused,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mistake(monkeypatch)
    monkeypatch.setattr(train.Trainer, "run_epoch", None)  # not called
    logdir = tmp_path / "command"
    errors = refused("main.py", main.main, ["--logdir", str(logdir), "--data_dir", str(data_dir)])
    assert errors.startswith(f"main.py: error: {message}")
    assert errors.count("\n") == 1
    with pytest.raises(ValueError, match=f"^{message}"):
        fit_in(tmp_path, trainer(split[0]), split[1])
    assert not contains_run(tmp_path)


@pytest.mark.parametrize("name", ["recall", "test_mrr", "validation_mse"])
def test_a_metric_that_raises_an_error_raises_it_before_training(
    name: str, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(train.MEASURES, name, lambda epoch: epoch.no_such_thing)
    monkeypatch.setattr(train.Trainer, "run_epoch", None)  # not called
    with pytest.raises(AttributeError, match="no_such_thing"):
        fit_in(tmp_path, trainer(split[0]), split[1])
    assert not contains_run(tmp_path)


def test_a_metric_added_after_a_checkpoint_has_empty_cells_for_its_epochs(split: Split, tmp_path: Path) -> None:
    """A column without a row in the table of metrics is left out."""
    whole = fit_in(tmp_path / "whole", trainer(split[0], 4), split[1])
    fit_in(tmp_path / "part", trainer(split[0]), split[1])
    found = load_checkpoint(tmp_path / "part")
    assert found is not None
    place = found.columns.index("joint_loss")
    columns = [name if name != "joint_loss" else "removed" for name in found.columns]
    rows_then = [row[place:] + row[:place] for row in found.history]
    dataclasses.replace(found, columns=columns[place:] + columns[:place], history=rows_then).save(tmp_path / "part")
    resumed = fit_in(tmp_path / "part", trainer(split[0], 4), split[1])
    assert [math.isnan(metrics.joint_loss) for metrics in resumed] == [True, True, False, False]
    assert resumed[2:] == whole[2:]
    assert [dataclasses.replace(each, joint_loss=0) for each in resumed] == [
        dataclasses.replace(each, joint_loss=0) for each in whole
    ]
    with (tmp_path / "part" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["epoch", *metric_table.columns(whole)]
    assert [bool(row["joint_loss"]) for row in rows] == [False, False, True, True]
    assert [step for step, _ in curves(tmp_path / "part")["training/Joint Loss"]] == [2, 3]
    assert [step for step, _ in curves(tmp_path / "part")["training/MSE"]] == [0, 1, 2, 3]


def test_the_columns_of_a_run() -> None:
    plain = [EpochMetrics(0.5, 3.0, 1.0), EpochMetrics(0.4, 2.0, 0.9, 0.1, 2.0)]
    assert metric_table.columns(plain) == ["factorization_loss", "training_mse", "joint_loss", "test_mrr", "test_mse"]
    validated = [*plain, EpochMetrics(0.4, 2.0, 0.9, 0.1, 2.0, 0.1, 2.0)]
    assert metric_table.columns(validated) == [*metric_table.columns(plain), "validation_mrr", "validation_mse"]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (0.0, "0.0000"),
        (0.00005, "0.0001"),
        (0.00004, "4.0000e-05"),
        (-0.25, "-0.2500"),
        (999999.0, "999999.0000"),
        (1e6, "1.0000e+06"),
        (7.5e58, "7.5000e+58"),
        (math.inf, "inf"),
    ],
)
def test_values_of_any_size_are_shown(value: float, said: str) -> None:
    assert metric_table.shown(value) == said


@pytest.mark.parametrize(
    ("epochs", "last", "said"),
    [
        (200, 199, "200 epochs (0 to 199)"),
        (2, 199, "2 epochs (198 to 199)"),
        (1, 0, "1 epoch (0)"),
        (0, 199, "0 epochs"),
    ],
)
def test_epochs_are_counted_and_named(epochs: int, last: int, said: str) -> None:
    assert counted(epochs, last) == said
