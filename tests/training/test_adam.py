"""Row-wise Adam against a plain loop in float64, and against torch.optim.SparseAdam.

The 60 users and 90 items of the tests come many times in a batch of 128, as users or as items, positive and negative.
"""

from pathlib import Path

import numpy as np
import pytest
import torch
from runs import fit_in
from test_steps import LAZY_WAYS, SHAPES, WEIGHTS, PlainStep, Split, batches, check_weights, epochs, make_step, network
from torch import nn

import train
from models import MultiTaskNet
from tracking.checkpoint import load_checkpoint
from training import sampling
from training.adam import Adam, pick_optimizer
from training.settings import Settings
from training.steps import LossWeights, Triples, bpr_loss, regression_loss


class PlainRowwiseStep(PlainStep):
    """The plain step, which moves only those rows of the tables and of B that a batch looks up, each once."""

    def updated(self, name: str, batch: list[tuple[int, int, int, float]]) -> slice | list[int]:
        users, items, negatives, _ = zip(*batch, strict=True)
        if name.startswith("mlp"):
            return slice(None)
        if name.startswith("U"):
            return sorted(set(users))
        return sorted(set(items) | (set() if name.startswith("Q_reg") else set(negatives)))


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("layer_sizes", SHAPES)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_two_epochs_equal_the_plain_steps(
    sharing: bool, layer_sizes: tuple[int, ...], weights: LossWeights, split: Split
) -> None:
    """Batches of 16 leave most rows alone; the last is a short one."""
    data, _ = split
    start = network(data, sharing, layer_sizes)
    plain, dense = PlainRowwiseStep(start, weights), PlainStep(start, weights)
    parts = [Triples(*(column[:300] for column in triples)) for triples in epochs(data, 2)]
    every = [*batches(parts[0], 128), *batches(parts[1], 16)]
    expected = [plain(batch) for batch in every]
    for batch in every:
        dense(batch)
    # Dense Adam is a different algorithm, and the bounds of check_weights see it.
    assert max(np.abs(weight - dense.weights[name]).mean() for name, weight in plain.weights.items()) > 1e-4
    for way in LAZY_WAYS:
        net = network(data, sharing, layer_sizes)
        step = make_step(way, net, weights)
        losses = torch.cat([step.run(parts[0], 128), step.run(parts[1], 16)])
        np.testing.assert_allclose(losses.numpy(), expected, rtol=2e-4, atol=1e-6)
        check_weights(net, plain.weights)


@pytest.mark.parametrize("sharing", [True, False])
def test_the_tables_are_trained_as_by_sparse_adam(sharing: bool, split: Split) -> None:
    """torch.optim.SparseAdam and Adam on a network of its own; ε is given as small as makes it the same in both."""
    data, _ = split
    net = network(data, sharing)
    step = make_step("row-wise step", net, LossWeights(0.7, 0.3))
    torch.manual_seed(0)
    peer = MultiTaskNet(data.num_users, data.num_items, 4, (12, 7), sharing)
    tables = [module.weight for module in peer.modules() if isinstance(module, nn.Embedding)]
    for module in peer.modules():
        if isinstance(module, nn.Embedding):
            module.sparse = True
    sparse, dense = torch.optim.SparseAdam(tables), torch.optim.Adam(peer.mlp_layers.parameters())
    taken = 0
    for triples in epochs(data, 3):
        losses = step.run(triples, 32)
        for k, (users, items, negatives, ratings) in enumerate(zip(*(x.split(32) for x in triples), strict=True)):
            predictions, score = peer(users, items)
            factorization = bpr_loss(predictions, peer(users, negatives)[0])
            regression = regression_loss(score, ratings)
            sparse.zero_grad()
            dense.zero_grad()
            (0.7 * factorization + 0.3 * regression).backward()
            taken += 1
            sparse.param_groups[0]["eps"] = 1e-8 * (1 - 0.999**taken) ** 0.5
            sparse.step()
            dense.step()
            expected = torch.stack([factorization.detach(), regression.detach()])
            torch.testing.assert_close(losses[k], expected, rtol=1e-4, atol=1e-6)
    for name, weight in net.state_dict().items():
        assert float((weight - peer.state_dict()[name]).abs().mean()) < 2e-5, name


def test_rows_that_no_batch_looks_up_stay_as_they_are(split: Split) -> None:
    data, _ = split
    net = network(data, True)
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    adam = Adam(net, 1e-3)
    step = make_step("row-wise step", net, LossWeights(0.7, 0.3), adam)
    for triples in epochs(data, 2):
        step.run(type(triples)(triples.users % 7, triples.items % 5 + 20, triples.negatives % 9, triples.ratings), 64)
    for name, kept in {"U.weight": range(7, 60), "Q.weight": range(25, 90), "B.weight": range(25, 90)}.items():
        assert torch.equal(net.state_dict()[name][kept], before[name][kept]), name
        assert not torch.equal(net.state_dict()[name][:5], before[name][:5]), name
    assert adam.steps_taken.item() == 2 * 15


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


@pytest.mark.parametrize("batch_size", [7, 30])
def test_many_blocks_are_one_epoch(batch_size: int, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking examples up in blocks changes neither their order nor the random numbers, whatever the blocks' size."""
    data, _ = split
    results = []
    for block in (2**19, 100):
        monkeypatch.setattr(sampling, "BLOCK", block)
        trainer = train.Trainer(network(data, True), data, Settings(batch_size=batch_size))
        results.append((trainer.run_epoch()[:2], [x.clone() for x in trainer.model.state_dict().values()]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    assert all(torch.equal(x, y) for x, y in zip(results[0][1], results[1][1], strict=True))
