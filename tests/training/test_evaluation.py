"""The users that are ranked, the epochs that are evaluated, and the record of the epochs between two evaluations."""

import csv
import dataclasses
import math
from pathlib import Path

import pytest
import torch
from runs import Split, curves, fit_in, network

from data import random_train_test_split, synthetic
from metrics import mrr_score, mse_score, ranking_scores
from models import MultiTaskNet
from tracking import record
from tracking.checkpoint import METRICS, Checkpoint, load_checkpoint
from tracking.metric_table import EpochMetrics
from tracking.report import closing_table
from train import Trainer
from training import evaluation
from training.evaluation import ByTables, Evaluation
from training.scale import Scale
from training.settings import Settings


@pytest.fixture
def net(split: Split) -> MultiTaskNet:
    net = network(split[0], True)
    with torch.no_grad():
        net.B.weight.normal_()
    return net


def fit(split: Split, folder: Path, settings: Settings) -> list[EpochMetrics]:
    data, test = split
    return fit_in(folder, Trainer(network(data, True), data, settings), test)


def test_a_sample_is_ranked_exactly(net: MultiTaskNet, split: Split) -> None:
    """The mean over a sample's users is that of each user alone, over all items, the training items last."""
    data, test = split
    sample = Evaluation(net, data, test, users=7, seed=3)
    assert (sample.ranked, sample.tested) == (7, len(test.user_ids.unique()))
    assert sample.users is not None
    alone = [test.select(test.user_ids == user) for user in sample.users]
    scores = [mrr_score(net, own, data) for own in alone]
    assert len(set(scores)) == 7
    assert sample.mrr() == pytest.approx(sum(scores) / 7, rel=1e-5)
    assert sample.mse() == mse_score(net, test)
    recalls = [ranking_scores(net, own, data).recall for own in alone]
    assert sample.rankings([10])[10].recall == pytest.approx(sum(recalls) / 7)
    own = test.select(torch.isin(test.user_ids, sample.users).nonzero().squeeze(1))
    several = sample.rankings([3, 10])
    assert {k: tuple(scores) for k, scores in several.items()} == {
        k: pytest.approx(ranking_scores(net, own, data, k)) for k in (3, 10)
    }


def test_the_seed_determines_the_sample_and_all_users_are_no_sample(net: MultiTaskNet, split: Split) -> None:
    data, test = split
    samples = [Evaluation(net, data, test, users=7, seed=seed).users for seed in (3, 3, 4)]
    assert [None if sample is None else len(sample) for sample in samples] == [7, 7, 7]
    assert torch.equal(samples[0], samples[1])  # type: ignore[arg-type]
    assert not torch.equal(samples[0], samples[2])  # type: ignore[arg-type]
    for users in ("all", 10**6, "auto"):
        whole = Evaluation(net, data, test, users=users)
        assert whole.mrr() == mrr_score(net, test, data)
        assert whole.rankings([10])[10] == ranking_scores(net, test, data)


def test_auto_ranks_all_users_unless_that_takes_more_than_a_fifth(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, test = split
    monkeypatch.setattr(evaluation, "FEWEST_USERS", 1)
    net = MultiTaskNet(data.num_users, data.num_items)
    work = len(data) * (3 * (96 * 64 + 64) + 256 * 32)
    user = data.num_items * (32 + evaluation.COMPARISON * len(test) / len(test.user_ids.unique()))
    monkeypatch.setattr(evaluation, "SHARE", 20.5 * user / work)
    sample = Evaluation(net, data, test)
    assert sample.ranked == 20
    assert sample.notice == f"ranking a sample of 20 of {sample.tested} test users (eval_users)"
    assert Evaluation(net, data, test, users="all").notice == ""


def test_auto_ranks_all_of_many_users_with_few_ratings() -> None:
    """Ranking them would take more than a fifth of an epoch of the homework's step, but only a moment."""
    interactions = synthetic(num_users=3000, num_items=3000, num_interactions=24000, seed=1)
    train, test = random_train_test_split(interactions, 0.1, torch.Generator().manual_seed(1))
    net = MultiTaskNet(train.num_users, train.num_items)
    few = Evaluation(ByTables(net, train.num_items), train, test)
    assert few.ranked == few.tested > evaluation.FEWEST_USERS
    by_forward = Evaluation(net, train, test)  # takes a hundred times as long
    assert by_forward.ranked < by_forward.tested


@pytest.mark.parametrize(("factor", "shift"), [(20.0, 0.0), (1e3, -7.0), (1.0, 100.0), (1e30, 0.0), (1e-30, 0.0)])
def test_errors_are_in_the_unit_of_the_ratings(factor: float, shift: float, net: MultiTaskNet, split: Split) -> None:
    """They are computed in units of the spread, and compared with float64 loops in the ratings' own unit."""
    data, test = (dataclasses.replace(part, ratings=part.ratings * factor + shift) for part in split)
    scale = Scale.of(data, "spread")
    in_units = dataclasses.replace(data, ratings=scale.targets(data))
    predicted = [scale.mean + scale.spread * score for score in net(test.user_ids, test.item_ids)[1].tolist()]
    errors = [abs(each - rating) for each, rating in zip(predicted, test.ratings.tolist(), strict=True)]
    found = Evaluation(net, in_units, test, scale=scale)
    assert found.mse() == pytest.approx(sum(error**2 for error in errors) / len(errors), rel=1e-4, abs=0)
    assert found.mae() == pytest.approx(sum(errors) / len(errors), rel=1e-4, abs=0)
    assert Evaluation(net, in_units, test, scale=scale).mrr() == Evaluation(net, *split).mrr()


def test_epochs_without_an_evaluation_are_empty_cells(split: Split, tmp_path: Path) -> None:
    """Every third epoch and the last are evaluated; the resumed run is bit-identical."""
    history = fit(split, tmp_path / "whole", Settings(epochs=8, eval_every=3))
    evaluated = [epoch for epoch, metrics in enumerate(history) if not math.isnan(metrics.test_mse)]
    assert evaluated == [2, 5, 7]
    assert [epoch for epoch, metrics in enumerate(history) if not math.isnan(metrics.test_mrr)] == evaluated
    with (tmp_path / "whole" / METRICS).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows if row["test_mrr"] and row["test_mse"]] == ["2", "5", "7"]
    assert all(row["training_mse"] for row in rows)
    assert [step for step, _ in curves(tmp_path / "whole")["eval/MSE"]] == evaluated
    assert len(curves(tmp_path / "whole")["training/MSE"]) == 8
    assert closing_table(history).count("–") == 0
    for epochs in (6, 8):  # the sixth is evaluated in both runs
        fit(split, tmp_path / "part", Settings(epochs=epochs, eval_every=3))
    one, other = load_checkpoint(tmp_path / "whole"), load_checkpoint(tmp_path / "part")
    assert one is not None
    assert other is not None
    assert all(torch.equal(x, other.tensors[name]) for name, x in one.tensors.items())
    assert (tmp_path / "whole" / METRICS).read_bytes() == (tmp_path / "part" / METRICS).read_bytes()


def test_the_closing_table_without_a_last_evaluation() -> None:
    nan = math.nan
    table = closing_table([EpochMetrics(0.5, 3.0, 1.0, 0.1, 2.0), EpochMetrics(0.4, 2.0, 1.0, nan, nan)])
    assert [line.split() for line in table.splitlines()[3:]] == [
        ["test", "MSE", "–", "2.0000", "(epoch", "0)"], ["test", "MRR", "–", "0.1000", "(epoch", "0)"],
    ]  # fmt: skip


@pytest.mark.parametrize(("seconds", "copied"), [(0.0, []), (1e9, [2, 3, 4])])
def test_a_checkpoint_is_copied_only_if_it_is_not_written_at_once(
    seconds: float, copied: list[int], split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[int] = []
    copy = Checkpoint.copy

    def counted(self: Checkpoint) -> Checkpoint:
        copies.append(len(self.history))
        return copy(self)

    monkeypatch.setattr(Checkpoint, "copy", counted)
    monkeypatch.setattr(record, "CHECKPOINT_SECONDS", seconds)
    fit(split, tmp_path, Settings(epochs=4))
    assert copies == copied
