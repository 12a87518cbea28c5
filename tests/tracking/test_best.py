"""The best epoch by a validation set: its choice, its checkpoint, and the end of a run that finds no better one."""

import csv
import dataclasses
import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Refused
from runs import fit_in

import data
import main
from cli.signals import Stopped
from data import Interactions
from metrics import mae_score, mrr_score, mse_score, ranking_scores, rmse_score
from models import MultiTaskNet
from serving.recommender import Recommender
from tracking.checkpoint import BEST, load_checkpoint
from tracking.metric_table import EpochMetrics, best_epoch, columns
from tracking.record import Record
from tracking.report import report
from tracking.resuming import restore
from tracking.tensorboard import EventFile
from train import Trainer, fit
from training import setup
from training.settings import Settings

Split = tuple[Interactions, Interactions]


def trainer(train: Interactions, epochs: int = 8, patience: int = 0, **more: Any) -> Trainer:
    torch.manual_seed(0)
    net = MultiTaskNet(train.num_users, train.num_items, 8, (24, 16))
    settings = Settings(
        0.5,
        0.5,
        epochs=epochs,
        batch_size=16,
        learning_rate=3e-2,
        seed=3,
        validation_fraction=0.2,
        patience=patience,
        **more,
    )
    return Trainer(net, train, settings)


def run(split: Split, folder: Path, epochs: int, patience: int = 0) -> list[EpochMetrics]:
    train, validation = data.random_train_test_split(split[0], 0.2, torch.Generator().manual_seed(2))
    return fit_in(folder, trainer(train, epochs, patience), split[1], validation)


def test_the_best_epoch_is_that_of_a_plain_loop_and_its_checkpoint_is_kept(split: Split, tmp_path: Path) -> None:
    history = run(split, tmp_path, 8)
    train, validation = data.random_train_test_split(split[0], 0.2, torch.Generator().manual_seed(2))
    again, scores, weights = trainer(train), [], []
    for metrics in history:
        again.run_epoch()
        scores.append(mrr_score(again.model, validation, train) / mse_score(again.model, validation))
        weights.append(again.adam.flat.detach().clone())
        assert metrics.validation_mse == mse_score(again.model, validation)
    best = scores.index(max(scores))
    assert best_epoch(history) == best
    assert 0 < best < 7
    kept = load_checkpoint(tmp_path, BEST)
    assert kept is not None
    assert len(kept.history) == best + 1
    restored = trainer(train)
    restore(restored, kept)
    assert torch.equal(restored.adam.flat, weights[best])
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert [float(row["validation_mrr"]) / float(row["validation_mse"]) for row in rows] == scores


def test_a_run_stops_when_its_patience_ends(split: Split, tmp_path: Path) -> None:
    whole = run(split, tmp_path / "whole", 30)
    stopped = run(split, tmp_path / "stopped", 30, patience=3)
    best = best_epoch(stopped)
    assert best is not None
    assert len(stopped) == best + 4 < 30
    assert stopped == whole[: best + 4]
    assert columns(stopped) == columns(whole)
    assert run(split, tmp_path / "stopped", 30, patience=3) == stopped  # resuming changes nothing
    run(split, tmp_path / "resumed", 2, patience=3)
    assert run(split, tmp_path / "resumed", 30, patience=3) == stopped
    kept, other = load_checkpoint(tmp_path / "resumed", BEST), load_checkpoint(tmp_path / "stopped", BEST)
    assert kept is not None
    assert other is not None
    assert all(torch.equal(x, other.tensors[name]) for name, x in kept.tensors.items())


@pytest.mark.long
@pytest.mark.parametrize("more", [{}, {"watched_items": True, "topk": (3, 10)}])
def test_the_metrics_of_the_end_are_those_of_the_best_epoch(more: dict[str, Any], split: Split, tmp_path: Path) -> None:
    """Of a run without a record, of one with a record, and of one that is resumed after its best epoch."""
    train, validation = data.random_train_test_split(split[0], 0.2, torch.Generator().manual_seed(2))
    test, topk = split[1], more.get("topk", (10,))
    history = fit_in(tmp_path / "whole", trainer(train, **more), test, validation)
    assert history.best is not None
    assert 0 < history.best < 6
    again = trainer(train, **more)
    for _ in range(history.best + 1):
        again.run_epoch()
    with again.as_evaluated():
        expected = {"test_mrr": mrr_score(again.scorer, test, train), "test_mse": mse_score(again.model, test)}
        expected |= {"test_rmse": rmse_score(again.model, test), "test_mae": mae_score(again.model, test)}
        for k, scores in ranking_scores(again.scorer, test, train, topk).items():
            expected |= {f"{name}@{k}": value for name, value in scores._asdict().items()}
    assert history.closing == expected
    assert expected["test_mse"] != history[-1].test_mse
    of_python = trainer(train, **more)
    assert fit(of_python, test, validation).closing == expected
    last = history.best + 1
    fit_in(tmp_path / "part", trainer(train, **more), test, validation, on_epoch=lambda epoch, _: epoch == last)
    resumed = trainer(train, **more)
    assert fit_in(tmp_path / "part", resumed, test, validation).closing == expected
    for _ in itertools.repeat(None, 7 - history.best):
        again.run_epoch()
    for each in (of_python, resumed):  # the trainer has the network of the last epoch, and can be trained on
        assert torch.equal(each.adam.flat, again.adam.flat)
        assert each.epoch == 8
        assert torch.equal(each.generator.get_state(), again.generator.get_state())
    missing = trainer(train, epochs=9)
    with pytest.raises(ValueError, match=f"the record lacks the state after the best epoch, {history.best}"):
        fit(missing, test, history=[*history, *history][:9], record=Record())


@pytest.mark.parametrize("damage", ["is missing: put it back, or start again", "is damaged or not a checkpoint"])
def test_a_run_without_its_best_epoch_is_not_resumed(
    damage: str, tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    flags = ["--validation_fraction=0.1", "--epochs=1", f"--data_dir={data_dir}", f"--logdir={tmp_path}"]
    assert main.main(flags) == 0
    capsys.readouterr()
    (tmp_path / BEST).unlink()
    if "damaged" in damage:
        (tmp_path / BEST).write_bytes(b"no checkpoint")
    assert damage in refused("main.py", main.main, [*flags, "--resume"])


def test_the_best_epoch_is_the_one_that_ranks_best_where_ratings_do_not_vary(split: Split) -> None:
    """There the MSE is noise. The ratings are all 1, or are missing."""
    for value in (1.0, float("nan")):
        likes, test = (dataclasses.replace(part, ratings=torch.full_like(part.ratings, value)) for part in split)
        train, validation = data.random_train_test_split(likes, 0.2, torch.Generator().manual_seed(2))
        history = fit(trainer(train), test, validation)
        ranked = [metrics.validation_mrr for metrics in history]
        assert history.by_ranking
        assert history.best == ranked.index(max(ranked))
        said = report(history, 8, 0, [10])
        assert f"epoch {history.best}, with the highest MRR of the validation set, {max(ranked):.4f}: test M" in said
        assert ("MSE" in said) == (value == 1)


def test_without_a_validation_set_nothing_is_chosen(split: Split, tmp_path: Path) -> None:
    train, test = split
    history = fit_in(tmp_path, trainer(train, 2), test)
    assert best_epoch(history) is None
    assert not (tmp_path / BEST).exists()
    assert "validation" not in (tmp_path / "metrics.csv").read_text()


def test_the_validation_set_is_a_part_of_the_other_ratings(movielens: Interactions) -> None:
    whole, sets = setup.split(movielens, Settings()), setup.split(movielens, Settings(validation_fraction=0.1))
    assert whole.validation is None
    assert sets.validation is not None
    assert torch.equal(whole.test.user_ids, sets.test.user_ids)

    def pairs(*parts: Interactions) -> list[int]:
        return sorted(torch.cat([part.user_ids * 2000 + part.item_ids for part in parts]).tolist())

    assert pairs(sets.train, sets.validation) == pairs(whole.train)
    assert len(sets.validation) == 9500


def test_the_command_names_the_best_epoch_and_recommends_with_it(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--validation_fraction", "0.1", "--patience", "1", "--learning_rate", "0.05", "--data_dir", str(data_dir)]
    assert main.main([*flags, "--logdir", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    kept = load_checkpoint(tmp_path, BEST)
    assert kept is not None
    best = len(kept.history) - 1
    assert f"best epoch {best}, with the highest MRR / MSE of the validation set" in said
    assert f"stopped after epoch {best + 1}: no epoch was better in the last 1 (patience)" in said
    recommender = Recommender.load(tmp_path)
    assert recommender.epochs == best + 1
    assert torch.equal(recommender.model.state_dict()["U.weight"], kept.tensors["network.U.weight"])


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--validation_fraction 0.1 --patience 2 --eval_every 3", "patience is 2: expected at least eval_every"),
        ("--validation_fraction 1e-9", "validation_fraction 1e-09 of 95000 ratings leaves the validation set empty"),
        ("--validation_fraction 1", "validation_fraction is 1.0: expected a number from 0 to below 1"),
        ("--validation_fraction 0.1 --patience -1", "patience is -1: expected at least 0"),
        ("--patience 3", "patience needs a validation set: give validation_fraction as well"),
    ],
)
def test_flags_that_do_not_fit_are_refused(
    flags: str, says: str, tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([*flags.split(), "--logdir", str(tmp_path), "--data_dir", str(data_dir)]) == 2
    assert says in capsys.readouterr().err


def test_a_run_that_is_stopped_while_it_writes_keeps_its_best_epoch(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """best.pt is the best epoch of the checkpoint's history after a signal in any epoch, and after resuming."""
    whole = run(split, tmp_path / "whole", 4)
    add = EventFile.add
    for stop in range(4):

        def interrupted(self: EventFile, epoch: int, metrics: dict[str, float], at: float, stop: int = stop) -> None:
            add(self, epoch, metrics, at)
            if epoch == stop:
                raise Stopped(15)

        folder = tmp_path / f"{stop}"
        with monkeypatch.context() as patch:
            patch.setattr(EventFile, "add", interrupted)
            with pytest.raises(Stopped):
                run(split, folder, 4)
        kept, latest = load_checkpoint(folder, BEST), load_checkpoint(folder)
        assert kept is not None
        assert latest is not None
        assert len(kept.history) - 1 == best_epoch(latest.metrics)
        assert run(split, folder, 4) == whole
        kept = load_checkpoint(folder, BEST)
        assert kept is not None
        assert len(kept.history) - 1 == best_epoch(whole)


def test_the_best_of_several_epochs_without_error_is_the_one_that_ranks_best() -> None:
    nan = float("nan")
    judged = [(0.5, 0.1), (0.1, 0.0), (nan, nan), (0.2, 0.0), (0.2, 0.0)]
    history = [EpochMetrics(0, 0, 0, 0, 0, *scores) for scores in judged]
    assert [best_epoch(history[:n]) for n in range(6)] == [None, 0, 1, 1, 3, 3]
