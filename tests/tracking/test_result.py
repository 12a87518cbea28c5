"""result.json: the closing metrics of a run by name, with its data and settings."""

import json
import math
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from runs import Split, network

import data
import main
import train
from cli import VERSION
from cli.signals import Stopped
from metrics import mae_score, mrr_score, mse_score, ranking_scores
from tracking.checkpoint import BEST, METRICS, RESULT, Run, load_checkpoint
from tracking.result import data_of, write_result
from training import parts, setup
from training.evaluation import ByTables
from training.settings import Settings

RANKING = ("recall", "ndcg", "hit_rate", "coverage", "precision", "map")
ABOUT = {"epoch", "epochs", "seconds", "seed", "split", "data", "settings", "device", "processes", "versions"}


def read(folder: Path) -> dict[str, Any]:
    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    found: dict[str, Any] = json.loads((folder / RESULT).read_text(), parse_constant=refuse)
    return found


def test_the_result_of_a_command_is_that_of_its_best_network(
    tmp_path: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also after a run that is resumed after its end, with another topk."""
    flags = ["--validation_fraction=0.1", "--epochs=3", "--learning_rate=0.05", "--seed=4", "--device=cpu"]
    flags += [f"--data_dir={data_dir}", f"--logdir={tmp_path}"]
    assert main.main([*flags, "--topk", "5", "20"]) == 0
    found = read(tmp_path)
    kept = load_checkpoint(tmp_path, BEST)
    assert kept is not None
    settings = Settings(validation_fraction=0.1, epochs=3, learning_rate=0.05, seed=4, topk=(5, 20))
    split = setup.split(data.load(data_dir), settings)
    net = setup.make_network(settings, 943, 1682, torch.device("cpu"))
    parts.load_state(net, kept.tensors)
    scorer = ByTables(net, 1682)
    shown = ranking_scores(scorer, split.test, split.train, (5, 20))
    expected = {f"{name}@{k}": getattr(shown[k], name) for name in RANKING for k in (5, 20)}
    expected |= {"test_mse": mse_score(net, split.test), "test_mrr": mrr_score(scorer, split.test, split.train)}
    expected |= {"test_rmse": math.sqrt(expected["test_mse"]), "test_mae": mae_score(net, split.test)}
    assert split.validation is not None
    expected["validation_mrr"] = mrr_score(scorer, split.validation, split.train)
    expected["validation_mse"] = mse_score(net, split.validation)
    assert found.keys() == expected.keys() | ABOUT
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert (found["epoch"], found["epochs"], found["seed"]) == (len(kept.history) - 1, 3, 4)
    assert (found["split"], found["device"], found["processes"]) == ("random", "cpu", 1)
    assert found["settings"]["topk"] == [5, 20]
    assert found["settings"].keys() == vars(settings).keys()
    assert found["versions"] == found["versions"] | {"program": VERSION, "torch": torch.__version__}
    assert found["versions"]["numpy"] == np.__version__
    about = found["data"]
    assert (about["name"], about["options"], about["users"], about["items"]) == ("ml-100k", {}, 943, 1682)
    assert about["fingerprint"] == data.fingerprint(split.train, split.test, split.validation)
    test_users, test_items = len(split.test.user_ids.unique()), len(split.test.item_ids.unique())
    assert about["test"] == {"users": test_users, "items": test_items, "interactions": 5000, "rated": 5000}
    assert (about["train"]["interactions"], about["validation"]["interactions"]) == (85500, 9500)
    assert f"recall@20 {found['recall@20']:.4f}, NDCG@20 {found['ndcg@20']:.4f}" in capsys.readouterr().out
    assert main.main([*flags, "--topk", "20", "--resume"]) == 0
    again = read(tmp_path)
    assert again.keys() == {name for name in found if not name.endswith("@5")}
    assert {name: again[name] for name in expected if name in again} == {
        name: found[name] for name in expected if name in again
    }


def test_an_unfinished_run_has_no_result(tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = [f"--data_dir={data_dir}", f"--logdir={tmp_path}", "--resume"]
    assert main.main([*flags, "--epochs=1"]) == 0
    assert (read(tmp_path)["epoch"], read(tmp_path)["epochs"]) == (0, 1)

    def interrupted(self: train.Trainer) -> train.Losses:
        assert not (tmp_path / RESULT).exists()
        raise Stopped(15)

    with monkeypatch.context() as patch:
        patch.setattr(train.Trainer, "run_epoch", interrupted)
        assert main.main([*flags, "--epochs=2"]) == 143
    assert not (tmp_path / RESULT).exists()
    assert main.main([*flags, "--epochs=2"]) == 0
    assert (read(tmp_path)["epoch"], read(tmp_path)["epochs"]) == (1, 2)
    assert float((tmp_path / METRICS).read_text().splitlines()[-1].split(",")[-1]) == read(tmp_path)["test_mse"]


def test_metrics_that_a_run_lacks_are_absent(split: Split, tmp_path: Path) -> None:
    """The ratings are missing, and the data has a split of its own."""
    train_set, test = (
        data.Interactions(
            part.user_ids, part.item_ids, torch.full_like(part.ratings, torch.nan), part.num_users, part.num_items,
            parts=torch.full((len(part),), number, dtype=torch.int8),
        )
        for part, number in zip(split, (0, 2), strict=True)
    )  # fmt: skip
    trainer = train.Trainer(network(train_set, True), train_set, Settings(epochs=1))
    history = train.fit(trainer, test)
    run = Run({"split": "auto"})
    write_result(tmp_path, history, run, trainer, data_of(run, setup.Split(train_set, None, test), 7), 1.0)
    found = read(tmp_path)
    assert found.keys() == {"test_mrr", *(f"{name}@10" for name in RANKING)} | ABOUT
    assert found["split"] == "own"
    assert "validation" not in found["data"]
    assert found["data"]["test"]["ranked"] == 7
    assert (found["data"]["train"]["interactions"], found["data"]["train"]["rated"]) == (900, 0)
