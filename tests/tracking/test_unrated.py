"""The record of a run whose interactions have no ratings: no metric of ratings anywhere."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from runs import Split, curves, fit_in, network, same_result
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.custom_scalar import layout_pb2

from data import Interactions
from metrics import mrr_score, mse_score
from tracking import record
from tracking.checkpoint import METRICS
from tracking.metric_table import EpochMetrics, columns
from tracking.report import report
from train import MEASURES, Trainer, fit
from training.settings import Settings


def without_ratings(interactions: Interactions, share: float = 1.0) -> Interactions:
    missing = torch.rand(len(interactions), generator=torch.Generator().manual_seed(0)) < share
    return dataclasses.replace(interactions, ratings=interactions.ratings.masked_fill(missing, torch.nan))


def trainer(train_set: Interactions, epochs: int = 3) -> Trainer:
    return Trainer(network(train_set, True), train_set, Settings(0.5, 0.5, epochs=epochs))


def charts(folder: Path) -> list[str]:
    events = EventAccumulator(str(folder))
    events.Reload()
    [layout] = events.Tensors("custom_scalars__config__")
    return [chart.title for chart in layout_pb2.Layout.FromString(layout.tensor_proto.string_val[0]).category[0].chart]


def test_without_any_rating_there_is_no_mse(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[str] = []
    bar = record.progress_bar(0)
    monkeypatch.setattr(bar, "set_postfix_str", shown.append)
    monkeypatch.setattr(record, "progress_bar", lambda *_: bar)
    train_set, test = (without_ratings(part) for part in split)
    validation = test.select(torch.arange(50))
    history = fit_in(tmp_path / "whole", trainer(train_set), test, validation)
    header, *rows = (tmp_path / "whole" / METRICS).read_text().splitlines()
    assert header == "epoch,factorization_loss,joint_loss,test_mrr,validation_mrr"
    assert len(rows) == 3
    ranking = ("Recall", "NDCG", "Hit Rate", "Coverage", "Precision", "MAP")
    tags = {"training/Factorization Loss", "training/Joint Loss", "eval/Mean Reciprocal Rank"}
    assert curves(tmp_path / "whole").keys() == tags | {"validation/Mean Reciprocal Rank"} | {
        f"users/{name}@10" for name in ranking
    }
    assert charts(tmp_path / "whole") == ["Ranking: BPR loss and test MRR"]
    said = report(history, 3, 0, [10])
    assert [line.split(" 0.")[0] for line in said.splitlines()[1:3]] == ["BPR loss", "test MRR"]
    assert "MSE" not in "".join([said, *shown])
    assert "nan" not in "".join([said, *shown])
    assert not {"test_mse", "test_rmse", "test_mae"} & history.closing.keys()
    assert history.closing["test_mrr"] == history[history.recommending].test_mrr
    fit_in(tmp_path / "part", trainer(train_set, 2), test, validation)
    assert fit_in(tmp_path / "part", trainer(train_set), test, validation).closing == history.closing
    assert same_result(tmp_path / "whole", tmp_path / "part")


def test_a_test_set_without_ratings_has_no_mse_beside_that_of_the_training_set(split: Split, tmp_path: Path) -> None:
    train_set, test = without_ratings(split[0], 0.3), without_ratings(split[1])
    history = fit_in(tmp_path, trainer(train_set), test)
    assert (tmp_path / METRICS).read_text().startswith("epoch,factorization_loss,training_mse,joint_loss,test_mrr\n")
    assert "eval/MSE" not in curves(tmp_path)
    assert len(curves(tmp_path)["training/MSE"]) == 3
    assert not any(math.isnan(metrics.training_mse) for metrics in history)
    table = report(history, 3, 0, [10])
    assert "training MSE" in table
    assert "test MSE" not in table
    assert "test RMSE" not in table


def test_where_some_ratings_are_missing_the_mse_is_of_the_others(split: Split) -> None:
    train_set, test = (without_ratings(part, 0.5) for part in split)
    made = trainer(train_set)
    metrics = fit(made, test)[-1]
    assert metrics.test_mse == mse_score(made.model, test.select(test.rated))
    assert metrics.test_mrr == mrr_score(made.scorer, test, train_set)


def test_an_mrr_that_is_not_finite_ends_a_run_without_ratings(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MEASURES, "test_mrr", lambda epoch: math.nan)
    train_set, test = (without_ratings(part) for part in split)
    with pytest.raises(FloatingPointError, match=r"epoch 0: eval/Mean Reciprocal Rank is nan after the last step"):
        fit_in(tmp_path, trainer(train_set), test)


def test_the_columns_of_runs_with_and_without_ratings() -> None:
    """Before the first evaluation a run with training ratings has the column of a test MSE."""
    nan = math.nan
    names = ["factorization_loss", "training_mse", "joint_loss", "test_mrr", "test_mse"]
    assert columns([EpochMetrics(1.0, 2.0, 3.0)]) == names
    assert columns([EpochMetrics(1.0, 2.0, 3.0, 0.1, nan), EpochMetrics(1.0, 2.0, 3.0)]) == names[:4]
    assert columns([EpochMetrics(1.0, nan, 3.0)]) == ["factorization_loss", "joint_loss", "test_mrr"]


def test_the_progress_bar_leaves_out_what_an_epoch_lacks() -> None:
    shown = [record._in_short(EpochMetrics(*row)) for row in ((0.5, 1.0, 1.0, 0.1, 2.0), (0.5, 1.0, 1.0))]
    assert shown == ["BPR 0.500, MSE 1.000; test MSE 2.000, MRR 0.1000", "BPR 0.500, MSE 1.000"]
