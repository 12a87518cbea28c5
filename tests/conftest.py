"""What the tests share: real ratings where a source can be reached, synthetic ones everywhere."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

import data
from data import Interactions

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """A folder that holds MovieLens 100K: the project's own, filled on the first run."""
    try:
        data.load(ROOT / "data")
    except FileNotFoundError as error:
        pytest.skip(f"needs MovieLens 100K, and no source of it can be reached: {error}")
    return ROOT / "data"


@pytest.fixture(scope="session")
def movielens(data_dir: Path) -> Interactions:
    return data.load(data_dir)


@pytest.fixture(scope="session")
def split() -> tuple[Interactions, Interactions]:
    """Synthetic ratings, small, whose number is no multiple of a batch."""
    interactions = data.synthetic(num_users=60, num_items=90, num_interactions=1000, seed=1)
    return data.random_train_test_split(interactions, 0.1, torch.Generator().manual_seed(1))


class Experiments(NamedTuple):
    """A small run of experiments.py: its folder and what it said."""

    logdir: Path
    done: "subprocess.CompletedProcess[str]"


@pytest.fixture(scope="session")
def experiments(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> Experiments:
    """Four experiments, two seeds, four epochs. Made once; to be copied before anything in it is changed."""
    logdir = tmp_path_factory.mktemp("experiments") / "run"
    flags = ["--epochs=4", "--seeds=2", "--jobs=2", f"--logdir={logdir}", f"--data_dir={data_dir}"]
    command = [sys.executable, str(ROOT / "experiments.py"), *flags]
    return Experiments(logdir, subprocess.run(command, capture_output=True, text=True, timeout=120, check=False))
