"""Which users are ranked, after which epochs, and what a run keeps of the epochs between two evaluations."""

import csv
import math
from pathlib import Path

import kill
import pytest
import torch

import train
from data import Interactions
from metrics import mrr_score, mse_score, ranking_scores
from models import MultiTaskNet
from tracking import saving
from tracking.checkpoint import Checkpoint, load
from tracking.folder import RunFolder
from tracking.history import EpochMetrics, closing_table
from training import evaluation
from training.evaluation import Evaluation, check_eval_users
from training.parallel import Group
from training.settings import Settings

Split = tuple[Interactions, Interactions]


@pytest.fixture
def net(split: Split) -> MultiTaskNet:
    torch.manual_seed(0)
    net = MultiTaskNet(split[0].num_users, split[0].num_items, 4, (12, 5))
    with torch.no_grad():
        net.B.weight.normal_()
    return net


def test_a_sample_is_ranked_exactly(net: MultiTaskNet, split: Split) -> None:
    """The mean over a sample's users is that of each user alone, over all items, the training items last."""
    data, test = split
    sample = Evaluation(net, data, test, 7, seed=3)
    assert (sample.ranked, sample.tested) == (7, len(test.user_ids.unique()))
    assert sample.users is not None
    alone = [mrr_score(net, test.select(test.user_ids == user), data) for user in sample.users]
    assert len(set(alone)) == 7
    assert sample.mrr() == pytest.approx(sum(alone) / 7, rel=1e-5)
    assert sample.mse() == mse_score(net, test)


def test_the_sample_is_of_the_seed_and_all_is_all(net: MultiTaskNet, split: Split) -> None:
    data, test = split
    samples = [Evaluation(net, data, test, 7, seed=seed).users for seed in (3, 3, 4)]
    assert samples[0] is not None
    assert torch.equal(samples[0], samples[1])  # type: ignore[arg-type]
    assert not torch.equal(samples[0], samples[2])  # type: ignore[arg-type]
    for users in ("all", 10**6, "auto"):
        assert Evaluation(net, data, test, users).mrr() == mrr_score(net, test, data)


def test_auto_ranks_all_users_while_that_takes_less_than_a_fifth(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """By sizes alone, and not by a clock."""
    monkeypatch.setattr(evaluation, "FEWEST_USERS", 1)
    data, test = split
    net = MultiTaskNet(data.num_users, data.num_items)
    work = len(data) * (3 * (96 * 64 + 64) + 256 * 32)
    a_user = data.num_items * (32 + evaluation.COMPARISON * len(test) / len(test.user_ids.unique()))
    monkeypatch.setattr(evaluation, "SHARE", 20.5 * a_user / work)
    sample = Evaluation(net, data, test)
    assert sample.ranked == 20
    assert sample.notice == f"ranking a sample of 20 of {sample.tested} test users (--eval_users)"
    assert Evaluation(net, data, test, "all").notice == ""


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "some", ""])
def test_other_numbers_of_users_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"eval_users is .*: expected a positive whole number, all or auto"):
        check_eval_users(text)


def test_epochs_without_an_evaluation_are_empty_cells(split: Split, tmp_path: Path) -> None:
    """Every third epoch and the last; resumed to the bit, and TensorBoard gets what there is."""
    data, test = split

    def fit(epochs: int, logdir: Path) -> list[EpochMetrics]:
        torch.manual_seed(0)
        trainer = train.Trainer(MultiTaskNet(data.num_users, data.num_items), data, Settings(), 7)
        with RunFolder(logdir) as folder:
            scores = Evaluation(trainer.model, data, test, every=3)
            return train.fit(trainer, test, epochs, folder, None, load(logdir), scores)

    history = fit(8, tmp_path / "whole")
    evaluated = [epoch for epoch, metrics in enumerate(history) if not math.isnan(metrics.test_mse)]
    assert evaluated == [2, 5, 7]
    assert [epoch for epoch, metrics in enumerate(history) if not math.isnan(metrics.test_mrr)] == evaluated
    with (tmp_path / "whole" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows if row["test_mrr"] and row["test_mse"]] == ["2", "5", "7"]
    assert all(row["training_mse"] for row in rows)
    assert [step for step, _ in kill.curves(tmp_path / "whole")["eval/MSE"]] == evaluated
    assert len(kill.curves(tmp_path / "whole")["training/MSE"]) == 8
    assert closing_table(history).count("–") == 0
    fit(6, tmp_path / "part")  # the sixth is due anyway
    fit(8, tmp_path / "part")
    one, other = load(tmp_path / "whole"), load(tmp_path / "part")
    assert one is not None
    assert other is not None
    assert all(torch.equal(x, other.tensors[name]) for name, x in one.tensors.items())
    assert (tmp_path / "whole" / "metrics.csv").read_bytes() == (tmp_path / "part" / "metrics.csv").read_bytes()


def test_the_closing_table_without_a_last_evaluation() -> None:
    nan = math.nan
    table = closing_table([EpochMetrics(0.5, 3.0, 1.0, 0.1, 2.0), EpochMetrics(0.4, 2.0, 1.0, nan, nan)])
    assert [line.split() for line in table.splitlines()[3:]] == [
        ["test", "MSE", "–", "2.0000", "(epoch", "0)"], ["test", "MRR", "–", "0.1000", "(epoch", "0)"],
    ]  # fmt: skip


def test_checkpoints_are_written_from_the_live_tensors_when_due_and_copied_otherwise(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where each epoch's checkpoint is due, no second copy is made; where none is, the last good epoch is kept."""
    data, test = split
    copies: list[int] = []
    copy = Checkpoint.copy

    def counted(self: Checkpoint) -> Checkpoint:
        copies.append(len(self.history))
        return copy(self)

    monkeypatch.setattr(Checkpoint, "copy", counted)
    for seconds, expected in ((0, []), (1e9, [2, 3, 4])):
        copies.clear()
        monkeypatch.setattr(saving, "CHECKPOINT_SECONDS", seconds)
        trainer = train.Trainer(MultiTaskNet(data.num_users, data.num_items), data, Settings(), 7)
        with RunFolder(tmp_path / str(seconds)) as folder:
            train.fit(trainer, test, 4, folder)
        assert copies == expected


def test_the_closing_ranking_is_that_of_the_users_ranked(split: Split) -> None:
    data, test = split
    net = MultiTaskNet(data.num_users, data.num_items)
    assert Evaluation(net, data, test, "all").ranking() == ranking_scores(net, test, data)
    sample = Evaluation(net, data, test, 5, seed=3)
    assert sample.users is not None
    own = test.select(torch.isin(test.user_ids, sample.users).nonzero().squeeze(1))
    expected = ranking_scores(net, own, data)
    assert sample.ranking() == pytest.approx(expected)
    for rank in range(2):  # of several processes each ranks a part, but this is of all
        assert Evaluation(net, data, test, 5, seed=3, group=Group(rank, 2)).ranking() == pytest.approx(expected)
