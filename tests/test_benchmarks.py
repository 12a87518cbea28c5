"""The plain procedure compared with the project, and a short run of each benchmark."""

import json
import re
import subprocess
import sys
from pathlib import Path

import plain_trainer
import pytest
import torch

from data import Interactions, random_train_test_split, synthetic
from metrics import mrr_score, mse_score
from models import MultiTaskNet
from study.baselines import ease
from train import Trainer
from training import setup
from training.settings import Settings

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


def run(name: str, flags: str, data_dir: Path | None = None) -> list[str]:
    """Run a benchmark and return the lines of its output."""
    command = [sys.executable, str(BENCHMARKS / name), *flags.split()]
    command += [] if data_dir is None else ["--data_dir", str(data_dir)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("| ").split(" | ")]


@pytest.mark.parametrize("sharing", [True, False])
def test_the_plain_procedure_and_this_project_get_the_same_metrics(sharing: bool) -> None:
    """Both train for three epochs from the same weights, on 768 ratings, so that all batches are full."""
    made = synthetic(num_users=60, num_items=90, num_interactions=808, seed=2)
    train, test = random_train_test_split(made, 40 / 808, torch.Generator().manual_seed(0))
    nets = []
    for _ in range(2):
        torch.manual_seed(0)
        nets.append(MultiTaskNet(60, 90, embedding_sharing=sharing))
    settings = Settings(factorization_weight=0.7, regression_weight=0.3, seed=5)
    plain = plain_trainer.PlainTrainer(nets[0], train, settings)
    trainer = Trainer(nets[1], train, settings)
    for _ in range(3):
        assert trainer.run_epoch() == pytest.approx(plain.fit(), rel=1e-4)
    assert mrr_score(nets[0], test, train) == pytest.approx(plain_trainer.plain_mrr(nets[0], test, train), rel=1e-5)
    assert mrr_score(nets[0], test) == pytest.approx(plain_trainer.plain_mrr(nets[0], test), rel=1e-5)
    assert mse_score(nets[0], test) == pytest.approx(plain_trainer.plain_mse(nets[0], test), rel=1e-5)
    assert mse_score(nets[1], test) == pytest.approx(plain_trainer.plain_mse(nets[0], test), rel=1e-3)


def test_plain_ranks_share_ties() -> None:
    values = torch.tensor([3.0, 1.0, 1.0, 7.0, 3.0, 3.0]).numpy()
    assert plain_trainer.average_ranks(values).tolist() == [4, 1.5, 1.5, 6, 4, 4]


@pytest.mark.long
def test_the_speed_benchmark_prints_its_table(tmp_path: Path) -> None:
    made = synthetic(num_interactions=5000)
    rows = zip(made.user_ids.tolist(), made.item_ids.tolist(), made.ratings.tolist(), strict=True)
    lines = ["user,item,rating", *(f"{user},{item},{rating:g}" for user, item, rating in rows)]
    (tmp_path / "own.csv").write_text("\n".join(lines))
    flags = f"--rounds 1 --epochs 2 --threads 1 --embeddings separate --ratings {tmp_path / 'own.csv'}"
    lines = run("speed.py", flags, tmp_path)
    assert lines[0].startswith("own.csv; ")
    found = [cells(line) for line in lines if line.endswith(") |")]
    inside, processes = ["training epoch", "MSE", "MRR"], ["one epoch, start to exit", "200 epochs, start to exit*"]
    assert [row[:3] for row in found] == [[name, "separate", "1"] for name in (*inside, *processes, "peak memory")]


@pytest.mark.long
def test_the_graders_bands_are_printed(data_dir: Path) -> None:
    lines = run("rubric_bands.py", "--seeds 2")
    assert lines[0].startswith("| 2 initializations | test MRR |")
    mrr = [float(cells(line)[1].split(" ± ")[0]) for line in lines[2:]]
    assert 0.04 <= mrr[0] <= 0.08
    assert 0.06 <= mrr[1] <= 0.10


@pytest.mark.long
def test_the_scale_benchmark_prints_a_row_for_each_step_and_size_in_one_process_and_in_two() -> None:
    flags = ["--sizes", "100k", "--rounds", "1", "--steps", "tuned", "homework"]
    command = [sys.executable, str(BENCHMARKS / "scale.py"), *flags]
    lines = subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout.splitlines()
    assert "; processes: 1; rounds: 1; " in lines[0]
    rows = [cells(line) for line in lines if line.startswith("| 100k")]
    assert [row[0] for row in rows] == ["100k tuned, adam", "100k homework, adam"]
    with_two = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        *command[1:4],
        "--batch_size",
        "4096",
    ]
    two = subprocess.run([sys.executable, *with_two], capture_output=True, text=True, timeout=90, check=True).stdout
    assert "; processes: 2; " in two
    assert two.count("| 100k tuned, adam | 1 | ") == 1
    tuned, homework = ([float(row[place].split()[0].rstrip(",")) for place in range(2, len(row))] for row in rows)
    assert tuned[1] == 1
    assert homework[1] == pytest.approx(homework[0] / tuned[0], abs=0.01)
    assert all(row[3] == pytest.approx(row[0] * 0.095, abs=0.006) for row in (tuned, homework))  # s for 95,000 ratings
    assert all(0.1 < row[-1] < 2 for row in (tuned, homework))


@pytest.mark.long
def test_a_preset_beside_a_tuned_peer(data_dir: Path, movielens: Interactions) -> None:
    """The peers are EASE, tuned, and this project, because the others have to be installed."""
    chosen, _, *table = run("peers.py", "--seeds 2 --draws 3 --epochs 1 --peers", data_dir)
    found = re.fullmatch(r'EASE: (\{\}|\{"penalty": (?:50|75)\}), validation MRR 0\.1\d+', chosen)
    assert found
    assert [cells(line)[0] for line in table[2:]] == ["this project, --preset tuned", "EASE"]
    splits = [setup.split(movielens, Settings(seed=seed)) for seed in (5, 6)]
    mrr = [mrr_score(ease(train, **json.loads(found[1])), test, train) for train, _, test in splits]
    assert cells(table[3])[2].startswith(f"{sum(mrr) / 2:.4f} ± ")


@pytest.mark.long
def test_a_preset_beside_published_metrics(data_dir: Path, movielens: Interactions) -> None:
    """The precision and the RMSE are those of a plain loop: three quarters of each user's ratings, ten unseen items."""
    heading, _, header, _, own, *published = run("published.py", "--preset homework --seeds 2 --epochs 1", data_dir)
    assert heading.startswith("MovieLens 100K, 75/25 per user; ")
    assert cells(header) == ["precision@10", "recall@10", "NDCG@10", "RMSE", "MAE"]
    assert "| BiVAE | 0.412 | 0.219 | 0.475 | – | – |" in published
    precisions, errors = [], []
    for seed in (0, 1):
        settings = Settings(split="user", test_fraction=0.25, seed=seed, epochs=1)
        train, _, test = setup.split(movielens, settings)
        assert abs(len(test) / len(movielens) - 0.25) < 0.002
        trainer = setup.make_trainer(settings, train, torch.device("cpu"))
        trainer.run_epoch()
        with torch.no_grad():
            scores = trainer.scorer.predict_all_items(torch.arange(943)).clone()
            predicted = trainer.model(test.user_ids, test.item_ids)[1]
        scores[train.user_ids, train.item_ids] = -torch.inf
        shown = scores.topk(10).indices.tolist()
        relevant = [set(test.item_ids[test.user_ids == user].tolist()) for user in range(943)]
        hits = [len(own & set(items)) / 10 for own, items in zip(relevant, shown, strict=True) if own]
        precisions.append(sum(hits) / len(hits))
        errors.append(float((predicted - test.ratings).square().mean().sqrt()))
    found = [float(cell.split(" ± ")[0]) for cell in cells(own)[1:]]
    assert found[0] == pytest.approx(sum(precisions) / 2, abs=6e-4)
    assert found[3] == pytest.approx(sum(errors) / 2, abs=6e-4)


@pytest.mark.long
@pytest.mark.parametrize("name", ["ml-1m", "ml-32m"])
def test_the_reading_benchmark_reads_and_starts_again(name: str) -> None:
    lines = run("reading.py", f"--dataset {name} --ratings 5000")
    assert [line.split(":")[0] for line in lines] == ["drawn", "first reading", "second start"]
