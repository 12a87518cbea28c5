"""The choice of Adam, and resumed runs with row-wise Adam; test_steps.py has its steps."""

from pathlib import Path

import pytest
import torch
from runs import fit_in, network

import train
from data import Interactions
from tracking.checkpoint import load_checkpoint
from training.adam import pick_optimizer
from training.settings import Settings

Split = tuple[Interactions, Interactions]


@pytest.mark.parametrize("eager", [True, False])
def test_a_resumed_run_is_bit_identical_to_an_uninterrupted_one(eager: bool, split: Split, tmp_path: Path) -> None:
    data, test = split

    def fit(epochs: int, logdir: Path, seed: int = 0) -> dict[str, torch.Tensor]:
        settings = Settings(optimizer="lazy_adam", batch_size=20, epochs=epochs)
        fit_in(logdir, train.Trainer(network(data, True, seed=seed), data, settings, eager=eager), test)
        loaded = load_checkpoint(logdir)
        assert loaded is not None
        return loaded.tensors

    whole = fit(4, tmp_path / "whole")
    fit(2, tmp_path / "part")
    rest = fit(4, tmp_path / "part", seed=1)
    assert all(torch.equal(x, rest[name]) for name, x in whole.items())


def test_auto_is_dense_for_small_tables_and_row_by_row_for_large_ones() -> None:
    for users, items, batch_size, expected in (
        (943, 1682, 256, "adam"),
        (943, 1682, 1, "adam"),
        (6040, 3706, 256, "adam"),
        (69878, 10677, 256, "lazy_adam"),
        (69878, 10677, 8192, "adam"),
        (200948, 84432, 256, "lazy_adam"),
    ):
        rows = users + items
        assert pick_optimizer("auto", rows, batch_size) == expected
        assert [pick_optimizer(name, rows, batch_size) for name in ("adam", "lazy_adam")] == ["adam", "lazy_adam"]
