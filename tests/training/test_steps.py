"""steps.py and fused.py: each step against the same mathematics written plainly, and the steps against each other."""

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data import Interactions
from models import MultiTaskNet
from train import Trainer
from training import parts
from training.adam import Adam, SparseAdam
from training.fused import CudaGraph, FusedStep
from training.settings import Settings
from training.steps import EagerStep, LossWeights, Triples, bpr_loss, regression_loss

Array = NDArray[np.float64]
Split = tuple[Interactions, Interactions]


def network(data: Interactions, sharing: bool, layer_sizes: tuple[int, ...] = (12, 7), seed: int = 0) -> MultiTaskNet:
    torch.manual_seed(seed)
    return MultiTaskNet(data.num_users, data.num_items, layer_sizes[0] // 3, layer_sizes, sharing)


def epochs(data: Interactions, count: int, seed: int = 3) -> Iterator[Triples]:
    generator = torch.Generator().manual_seed(seed)
    for _ in range(count):
        order = torch.randperm(len(data), generator=generator)
        negatives = torch.randint(data.num_items, (len(data),), generator=generator)
        yield Triples(data.user_ids[order], data.item_ids[order], negatives, data.ratings[order])


def test_bpr_loss_is_equation_3() -> None:
    positive, negative = torch.tensor([1.0, -2.0, 0.0]), torch.tensor([0.0, 3.0, 0.0])
    terms = [1 - 1 / (1 + math.exp(-(p - n))) for p, n in zip(positive.tolist(), negative.tolist(), strict=True)]
    assert float(bpr_loss(positive, negative)) == pytest.approx(sum(terms) / 3)
    assert float(bpr_loss(positive, positive)) == 0.5
    assert float(bpr_loss(torch.tensor([200.0]), torch.tensor([-200.0]))) == 0
    assert float(bpr_loss(torch.tensor([-200.0]), torch.tensor([200.0]))) == 1


def test_regression_loss_is_equation_5() -> None:
    assert float(regression_loss(torch.tensor([3.0, 4.5]), torch.tensor([5.0, 4.0]))) == pytest.approx(4.25 / 2)


class PlainStep:
    """Forward, gradients and Adam (Kingma and Ba, 2015, algorithm 1) by hand: a loop over the batch, in float64."""

    def __init__(self, net: MultiTaskNet, weights: LossWeights, learning_rate: float = 1e-3) -> None:
        self.loss_weights, self.learning_rate = weights, learning_rate
        self.weights: dict[str, Array] = {name: w.double().numpy().copy() for name, w in net.state_dict().items()}
        self.fact, self.reg = ("", "") if net.embedding_sharing else ("_fact", "_reg")
        self.depth = (len(net.mlp_layers) + 1) // 2
        self.moments = {name: (np.zeros_like(w), np.zeros_like(w)) for name, w in self.weights.items()}
        self.steps = 0

    def __call__(self, batch: list[tuple[int, int, int, float]]) -> tuple[float, float]:
        w, n = self.weights, len(batch)
        gradient = {name: np.zeros_like(x) for name, x in w.items()}
        factorization = regression = 0.0
        for user, item, negative, rating in batch:
            U, Q = f"U{self.fact}.weight", f"Q{self.fact}.weight"
            difference = w[U][user] @ w[Q][item] + w["B.weight"][item, 0]
            difference -= w[U][user] @ w[Q][negative] + w["B.weight"][negative, 0]
            sigma = 1 / (1 + math.exp(-difference))
            factorization += (1 - sigma) / n
            slope = -self.loss_weights.factorization * sigma * (1 - sigma) / n
            gradient[U][user] += slope * (w[Q][item] - w[Q][negative])
            gradient[Q][item] += slope * w[U][user]
            gradient[Q][negative] -= slope * w[U][user]
            gradient["B.weight"][item] += slope
            gradient["B.weight"][negative] -= slope

            U, Q = f"U{self.reg}.weight", f"Q{self.reg}.weight"
            u, q = w[U][user], w[Q][item]
            inputs = [np.concatenate([u, q, u * q])]
            for layer in range(self.depth):
                out = w[f"mlp_layers.{2 * layer}.weight"] @ inputs[-1] + w[f"mlp_layers.{2 * layer}.bias"]
                inputs.append(np.maximum(out, 0) if layer < self.depth - 1 else out)
            error = inputs[-1][0] - rating
            regression += error**2 / n
            back = np.array([2 * self.loss_weights.regression * error / n])
            for layer in reversed(range(self.depth)):
                if layer < self.depth - 1:
                    back = back * (inputs[layer + 1] > 0)
                gradient[f"mlp_layers.{2 * layer}.weight"] += np.outer(back, inputs[layer])
                gradient[f"mlp_layers.{2 * layer}.bias"] += back
                back = w[f"mlp_layers.{2 * layer}.weight"].T @ back
            to_u, to_q, to_product = back.reshape(3, -1)
            gradient[U][user] += to_u + to_product * q
            gradient[Q][item] += to_q + to_product * u
        self.steps += 1
        for name, g in gradient.items():
            self.adam(self.weights[name], g, *self.moments[name], rows=self.updated(name, batch))
        return factorization, regression

    def updated(self, name: str, batch: list[tuple[int, int, int, float]]) -> slice | list[int]:
        """Which rows of a parameter a step moves: all."""
        return slice(None)

    def adam(self, weight: Array, gradient: Array, first: Array, second: Array, rows: slice | list[int]) -> None:
        first[rows] += 0.1 * (gradient[rows] - first[rows])
        second[rows] += 0.001 * (gradient[rows] ** 2 - second[rows])
        corrected = first[rows] / (1 - 0.9**self.steps), second[rows] / (1 - 0.999**self.steps)
        weight[rows] -= self.learning_rate * corrected[0] / (np.sqrt(corrected[1]) + 1e-8)


WAYS = ("eager step", "fused step")
LAZY_WAYS = ("eager row-wise step", "row-wise step")
SHAPES = [(12, 7), (9,), (6, 5, 4)]
WEIGHTS = [LossWeights(0.99, 0.01), LossWeights(0.5, 0.5), LossWeights(0.0, 1.0), LossWeights(2.0, 0.0)]


def make_step(way: str, net: MultiTaskNet, weights: LossWeights, adam: Adam | None = None) -> EagerStep | FusedStep:
    adam = Adam(net, 1e-3) if adam is None else adam
    if way == "eager step":
        return EagerStep(net, adam, weights)
    if way == "eager row-wise step":
        return EagerStep(net, SparseAdam(net, adam), weights)
    return FusedStep(net, adam, weights, lazy=way == "row-wise step", recorded=way == "CUDA graph")


def batches(triples: Triples, batch_size: int) -> list[list[tuple[int, int, int, float]]]:
    columns = (column.split(batch_size) for column in triples)
    return [list(zip(*(column.tolist() for column in batch), strict=True)) for batch in zip(*columns, strict=True)]


def check_weights(net: MultiTaskNet, expected: dict[str, Array]) -> None:
    """Allow single weights some steps of Adam, where rounding decides a gradient's sign."""
    for name, weight in net.state_dict().items():
        difference = np.abs(weight.numpy() - expected[name])
        assert difference.mean() < 1e-5, name
        assert difference.max() < 4e-3, name


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("layer_sizes", SHAPES)
@pytest.mark.parametrize("weights", WEIGHTS)
def test_two_epochs_equal_the_plain_steps(
    sharing: bool, layer_sizes: tuple[int, ...], weights: LossWeights, split: Split
) -> None:
    """900 triples in batches of 128, so that the last batch is a short one."""
    data, _ = split
    plain = PlainStep(network(data, sharing, layer_sizes), weights)
    expected = [plain(batch) for triples in epochs(data, 2) for batch in batches(triples, 128)]
    for way in WAYS:
        net = network(data, sharing, layer_sizes)
        step = make_step(way, net, weights)
        losses = torch.cat([step.run(triples, 128) for triples in epochs(data, 2)])
        np.testing.assert_allclose(losses.numpy(), expected, rtol=2e-4, atol=1e-6)
        check_weights(net, plain.weights)


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("layer_sizes", [*SHAPES, (96, 64)])
@pytest.mark.parametrize("batch_size", [1, 7, 256, 10_000])
def test_the_fused_step_equals_the_eager_one(
    sharing: bool, layer_sizes: tuple[int, ...], batch_size: int, split: Split
) -> None:
    """An epoch of both from the same weights: losses to a relative 1e-5, weights to 2e-5 on average.

    Single weights may differ by more, up to some steps of Adam, where rounding decides a gradient's sign.
    """
    data, _ = split
    data = data.select(torch.arange(100 if batch_size == 1 else len(data)))
    results = []
    for way in WAYS:
        net = network(data, sharing, layer_sizes)
        (triples,) = epochs(data, 1)
        losses = make_step(way, net, LossWeights(0.7, 0.3)).run(triples, batch_size)
        assert losses.shape == (math.ceil(len(data) / batch_size), 2)
        results.append((losses, net.state_dict()))
    (eager_losses, eager_weights), (fused_losses, fused_weights) = results
    torch.testing.assert_close(fused_losses, eager_losses, rtol=1e-5, atol=1e-6)
    for name, weight in eager_weights.items():
        difference = (weight - fused_weights[name]).abs()
        assert float(difference.mean()) < 2e-5, name
        assert float(difference.max()) < 4e-3, name


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("ways", [WAYS, LAZY_WAYS], ids=["dense", "row-wise"])
def test_both_steps_continue_each_other(ways: tuple[str, str], sharing: bool, split: Split) -> None:
    """They keep Adam's moments in the same place: an epoch of each, in either order, is two epochs."""
    data, _ = split
    eager, fused = ways
    results = []
    for kinds in ((eager, eager), (eager, fused), (fused, eager), (fused, fused)):
        net = network(data, sharing)
        adam = Adam(net, 1e-3)
        steps = [make_step(way, net, LossWeights(0.5, 0.5), adam) for way in kinds]
        losses = [step.run(triples, 64) for step, triples in zip(steps, epochs(data, 2), strict=True)]
        results.append(torch.cat(losses))
    for other in results[1:]:
        torch.testing.assert_close(other, results[0], rtol=1e-4, atol=1e-6)


def test_flatten_keeps_the_network_as_it_is(split: Split) -> None:
    data, _ = split
    net = network(data, False)
    before = {name: weight.clone() for name, weight in net.state_dict().items()}
    flat = parts.flatten(net)
    assert flat.numel() == sum(weight.numel() for weight in before.values())
    assert all(torch.equal(weight, before[name]) for name, weight in net.state_dict().items())
    with torch.no_grad():
        flat.zero_()
    assert not any(parameter.any() for parameter in net.parameters())
    net.U_fact(torch.tensor([0])).sum().backward()
    assert flat.grad is not None
    assert int(flat.grad.count_nonzero()) == net.embedding_dim


class Replay:
    """Stands in for a CUDA graph: does again what was recorded, on the tensors it was recorded with."""

    def __init__(self, recorded: CudaGraph) -> None:
        self.recorded, self.count = recorded, 0

    def replay(self) -> None:
        self.count += 1
        self.recorded.steps(self.recorded.captured)


@pytest.mark.parametrize(("longest", "replays"), [(512, 1), (8, 1), (3, 2), (2, 3), (1, 7)])
def test_replayed_steps_are_the_same_steps(
    longest: int, replays: int, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight batches, the last one shorter. Only a GPU can record: a stand-in takes some steps, as recording does."""
    data, _ = split
    recordings = []

    def record(graph: CudaGraph) -> Replay:
        graph.steps(graph.captured[:2])
        recordings.append(Replay(graph))
        return recordings[-1]

    monkeypatch.setattr(CudaGraph, "LONGEST", longest)
    monkeypatch.setattr(CudaGraph, "_record", record)
    results = []
    for way in ("fused step", "CUDA graph"):
        net = network(data, False)
        step = make_step(way, net, LossWeights(0.7, 0.3))
        losses = [step.run(triples, 128).clone() for triples in epochs(data, 3)]
        results.append((torch.cat(losses), torch.cat([p.detach().reshape(-1) for p in net.parameters()])))
    assert [each.count for each in recordings] == [3 * replays]
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("optimizer", ["adam", "lazy_adam"])
@pytest.mark.parametrize("sharing", [True, False])
def test_a_cuda_graph_takes_the_steps_of_the_eager_step(sharing: bool, optimizer: str, split: Split) -> None:
    """The sums of a GPU depend on the order in which its threads end, so that the losses agree up to rounding."""
    data, _ = split
    results = []
    for eager in (True, False):
        settings = Settings(batch_size=128, optimizer=optimizer)
        trainer = Trainer(network(data, sharing).cuda(), data, settings, eager=eager)
        if not eager:
            assert not [line for line in trainer.notices if "CUDA graph" in line]
        results.append([trainer.run_epoch() for _ in range(3)])
    for one, other in zip(*results, strict=True):
        assert one == pytest.approx(other, rel=1e-4)
