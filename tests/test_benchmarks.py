"""The plain procedure agrees with the project, and the benchmarks run."""

import json
import re
import subprocess
import sys
from pathlib import Path

import plain_trainer
import pytest
import torch

import data
from data import Interactions, random_train_test_split, synthetic
from metrics import mrr_score, mse_score
from models import MultiTaskNet
from study.baselines import ease
from train import Trainer
from training import preparation
from training.settings import Settings

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("sharing", [True, False])
def test_the_plain_procedure_and_this_project_get_the_same_figures(sharing: bool) -> None:
    """Three epochs on the same ratings from the same weights; 768 of them, so that all batches are full ones."""
    made = synthetic(num_users=60, num_items=90, num_interactions=808, seed=2)
    data, test = random_train_test_split(made, 40 / 808, torch.Generator().manual_seed(0))
    nets = []
    for _ in range(2):
        torch.manual_seed(0)
        nets.append(MultiTaskNet(60, 90, embedding_sharing=sharing))
    baseline, trainer = (
        plain_trainer.PlainTrainer(nets[0], data, 0.7, 0.3, seed=5),
        Trainer(nets[1], data, Settings(0.7, 0.3), 5),
    )
    for _ in range(3):
        assert trainer.run_epoch() == pytest.approx(baseline.fit(), rel=1e-4)
    assert mrr_score(nets[0], test, data) == pytest.approx(plain_trainer.plain_mrr(nets[0], test, data), rel=1e-5)
    assert mrr_score(nets[0], test) == pytest.approx(plain_trainer.plain_mrr(nets[0], test), rel=1e-5)
    assert mse_score(nets[0], test) == pytest.approx(plain_trainer.plain_mse(nets[0], test), rel=1e-5)
    assert mse_score(nets[1], test) == pytest.approx(plain_trainer.plain_mse(nets[0], test), rel=1e-3)


def test_plain_ranks_share_ties(split: tuple[Interactions, Interactions]) -> None:
    values = torch.tensor([3.0, 1.0, 1.0, 7.0, 3.0, 3.0]).numpy()
    assert plain_trainer.average_ranks(values).tolist() == [4, 1.5, 1.5, 6, 4, 4]


@pytest.mark.long
def test_the_speed_benchmark_prints_its_table_without_real_data(tmp_path: Path) -> None:
    arguments = ["--rounds", "1", "--epochs", "2", "--threads", "1", "--embeddings", "separate", "--synthetic", "5000"]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "speed.py", *arguments, "--data_dir", tmp_path],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.startswith("synthetic ratings")
    rows = [line.split(" | ")[:2] for line in done.stdout.splitlines() if line.endswith(") |")]
    assert [(row[0].strip("| "), row[1]) for row in rows] == [
        (name, "separate")
        for name in (
            "training epoch",
            "MSE",
            "MRR",
            "one epoch, start to exit",
            "200 epochs, start to exit*",
            "peak memory",
        )
    ]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.long
def test_the_graders_bands_are_printed(data_dir: Path) -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "rubric_bands.py"), "--seeds", "2"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].startswith("| 2 initializations | test MRR |")
    mrr = [float(line.split(" | ")[1].split(" ± ")[0]) for line in lines[2:]]
    assert 0.04 <= mrr[0] <= 0.08
    assert 0.06 <= mrr[1] <= 0.10


@pytest.mark.long
def test_the_scale_benchmark_prints_its_tables() -> None:
    script = ROOT / "benchmarks" / "scale.py"
    flags = ["--sizes", "100k", "--rounds", "1", "--ratings", "4096", "--batch_size", "128"]
    done = subprocess.run([sys.executable, script, *flags], capture_output=True, text=True, timeout=60, check=True)
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| 100k")]
    assert rows == ["100k adam", "100k lazy_adam"]
    flags = ["--processes", "--sizes", "100k", "--rounds", "1", "--ratings", "8192", "--batches", "8192"]
    done = subprocess.run([sys.executable, script, *flags], capture_output=True, text=True, timeout=60, check=True)
    cells = [line.split("|")[1:4] for line in done.stdout.splitlines() if line.startswith("| 100k")]
    assert [[cell.strip() for cell in row] for row in cells] == [["100k adam", "8192", n] for n in ("1", "2")]


@pytest.mark.long
def test_row_wise_adam_beside_dense_adam(data_dir: Path) -> None:
    script = [sys.executable, str(ROOT / "benchmarks" / "optimizers.py"), "--sizes", "100k", "--epochs", "1"]
    flags = ["--seeds", "2", "--rates", "0.001", "--data_dir", str(data_dir)]
    done = subprocess.run([*script, *flags], capture_output=True, text=True, check=True)
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[2:]]
    assert [row[0] for row in rows] == ["100k adam 0.001", "100k lazy_adam 0.001"]
    assert float(rows[0][2].split()[0]) < float(rows[1][2].split()[0])  # dense Adam is faster at first
    losses = []
    for seed in range(2):
        side, _ = random_train_test_split(data.load(data_dir), 0.05, torch.Generator().manual_seed(seed))
        torch.manual_seed(seed)
        losses.append(Trainer(MultiTaskNet(943, 1682), side, Settings(), seed).run_epoch().factorization_loss)
    assert float(rows[0][2].split()[0]) == pytest.approx(sum(losses) / 2, abs=1e-3)


@pytest.mark.exhaustive
def test_ranking_metrics_are_those_of_a_library() -> None:
    """With an installation of it."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "ranking_library.py"), "--epochs", "2"], check=False
    )
    assert done.returncode == 0


@pytest.mark.long
def test_the_preset_beside_tuned_peers(data_dir: Path) -> None:
    """Without those that have to be installed: EASE, tuned, and this project."""
    script = [sys.executable, str(ROOT / "benchmarks" / "peers.py"), "--tuned", "--seeds", "2", "--draws", "3"]
    done = subprocess.run(
        [*script, "--epochs", "1", "--peers", "--data_dir", str(data_dir)], capture_output=True, text=True, check=True
    )
    chosen, _, *table = done.stdout.splitlines()
    assert re.fullmatch(r'EASE: \{"penalty": (50|75|100)\}, validation MRR 0\.1\d+', chosen)
    assert [line.split("|")[1].strip() for line in table[2:]] == ["this project, --preset tuned", "EASE"]
    known = data.load(data_dir)
    scores = [
        mrr_score(ease(train, json.loads(chosen[6 : chosen.index("}") + 1])["penalty"]), test, train)
        for train, test in (preparation.split(known, 0.05, seed) for seed in (5, 6))
    ]
    assert table[3].split("|")[3].strip().startswith(f"{sum(scores) / 2:.4f} ± ")


@pytest.mark.long
@pytest.mark.parametrize("name", ["ml-1m", "ml-32m"])
def test_the_reading_benchmark_reads_and_starts_again(name: str) -> None:
    script = [sys.executable, str(ROOT / "benchmarks" / "reading.py"), "--dataset", name, "--ratings", "5000"]
    done = subprocess.run(script, capture_output=True, text=True, check=True)
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["drawn", "first reading", "second start"]
