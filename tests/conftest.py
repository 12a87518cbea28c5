"""What the tests share: real ratings where a source can be reached, synthetic ones everywhere."""

from pathlib import Path

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
