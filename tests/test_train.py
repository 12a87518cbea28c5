"""train.py: sampling, seeds, metrics in TensorBoard, learning, and refused settings."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from runs import fit_in
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import train
from data import Interactions, synthetic
from metrics import mrr_score, mse_score
from models import MultiTaskNet
from tracking.history import METRICS, EpochMetrics, columns
from train import Trainer
from training import setup
from training.settings import Settings
from training.steps import Triples

Array = NDArray[np.float64]
Split = tuple[Interactions, Interactions]


def network(data: Interactions, sharing: bool, layer_sizes: tuple[int, ...] = (12, 7), seed: int = 0) -> MultiTaskNet:
    torch.manual_seed(seed)
    return MultiTaskNet(data.num_users, data.num_items, layer_sizes[0] // 3, layer_sizes, sharing)


def test_negatives_are_drawn_from_all_items_and_triples_are_all_used(split: Split) -> None:
    """An epoch has each triple once, in a new order; each item is a negative about equally often."""
    data, _ = split
    trainer = Trainer(network(data, True), data, Settings(batch_size=100))
    seen: list[Triples] = []

    class Watch:
        def run(self, triples: Triples, batch_size: int) -> torch.Tensor:
            seen.append(triples)
            return torch.zeros(-(-len(data) // batch_size), 2)

    trainer.step = Watch()
    for _ in range(40):
        trainer.run_epoch()
    epochs = [torch.stack([column.double() for column in triples]) for triples in seen]
    triples = sorted(zip(data.user_ids.tolist(), data.item_ids.tolist(), data.ratings.tolist(), strict=True))
    for epoch in epochs:
        assert sorted(zip(*epoch[[0, 1, 3]].tolist(), strict=True)) == triples
    assert not torch.equal(epochs[0], epochs[1])
    counts = torch.bincount(torch.cat([epoch[2] for epoch in epochs]).long(), minlength=data.num_items)
    expected = 40 * len(data) / data.num_items
    assert float(((counts - expected) ** 2 / expected).sum()) < 150  # χ², 89 degrees of freedom; p = 0.0001


def test_an_epoch_is_bit_identical_for_the_same_seed_and_differs_for_another(split: Split) -> None:
    data, _ = split
    states = []
    for seed in (0, 0, 1):
        net = network(data, True)
        trainer = Trainer(net, data, Settings(seed=seed))
        losses = [trainer.run_epoch() for _ in range(3)]
        states.append((losses, net.state_dict()))
    assert states[0][0] == states[1][0] != states[2][0]
    assert all(torch.equal(states[0][1][name], states[1][1][name]) for name in states[0][1])


def read_events(logdir: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = EventAccumulator(str(logdir))
    accumulator.Reload()
    return {tag: [(e.step, e.value) for e in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]}


def test_tensorboard_gets_the_five_metrics_of_every_epoch(split: Split, tmp_path: Path) -> None:
    data, test = split
    net = network(data, False)
    history = fit_in(tmp_path, Trainer(net, data, Settings(epochs=3)), test)
    events = {tag: values for tag, values in read_events(tmp_path).items() if not tag.startswith("users/")}
    assert list(events) == [
        "training/Factorization Loss", "training/MSE", "training/Joint Loss", "eval/Mean Reciprocal Rank", "eval/MSE",
    ]  # fmt: skip
    for name in columns(history):
        written = events[METRICS[name].tag]
        assert [step for step, _ in written] == [0, 1, 2]
        assert [value for _, value in written] == pytest.approx([getattr(each, name) for each in history], rel=1e-6)
    assert history[-1].test_mrr == mrr_score(net, test, data)
    assert history[-1].test_mse == mse_score(net, test)


def test_an_epochs_metrics_can_be_read_as_soon_as_it_ends(split: Split, tmp_path: Path) -> None:
    data, test = split

    class Reader(Trainer):
        def run_epoch(self) -> train.Losses:
            if self.epoch > 0:
                assert len(read_events(tmp_path)["eval/MSE"]) == self.epoch
            return super().run_epoch()

    trainer = Reader(network(data, True), data, Settings(epochs=4))
    fit_in(tmp_path, trainer, test)
    assert trainer.epoch == 4


def test_a_small_network_is_trained_on_one_thread(split: Split) -> None:
    data, _ = split
    before = torch.get_num_threads()
    for layer_sizes, batch_size, threads in (
        ((12, 7), 256, 1),
        ((96, 64), 256, 1),
        ((384, 4096), 4096, setup.ALL_THREADS),
    ):
        trainer = Trainer(network(data, True, layer_sizes), data, Settings(batch_size=batch_size))
        with setup.threads_for(trainer.model, trainer.batch_size):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == before


def test_training_learns_both_tasks(tmp_path: Path) -> None:
    """On ratings from latent tastes, both training losses and both metrics get clearly better."""
    made = synthetic(200, 150, 6000, seed=0)
    order = torch.randperm(6000, generator=torch.Generator().manual_seed(0))
    data, test = made.select(order[:5700]), made.select(order[5700:])
    net = network(data, True, (48, 16))
    settings = Settings(0.5, 0.5, epochs=15, batch_size=64, learning_rate=3e-3)
    start = EpochMetrics(0.5, 13, 7, mrr_score(net, test, data), mse_score(net, test))
    end = fit_in(tmp_path, Trainer(net, data, settings), test)[-1]
    assert end.factorization_loss < 0.42
    assert end.training_mse < 1.2
    assert end.test_mse < 1.4 < start.test_mse
    assert end.test_mrr > 1.8 * start.test_mrr


def test_a_loss_that_is_not_finite_ends_training(split: Split, tmp_path: Path) -> None:
    data, test = split
    for batch_size, message in (
        (256, r"epoch 0, step 2 of 4: the (factorization|regression) loss became (inf|nan); learning_rate 1e\+30 or"),
        (10**6, r"epoch 0: eval/.* is nan after the last step"),
    ):
        settings = Settings(0.5, 0.5, epochs=5, batch_size=batch_size, learning_rate=1e30)
        trainer = Trainer(network(data, True), data, settings)
        with pytest.raises(FloatingPointError, match=message):
            fit_in(tmp_path / str(batch_size), trainer, test)


@pytest.mark.parametrize(("change", "message"), [
    ({"factorization_weight": -0.5}, "factorization_weight is -0.5: expected a number from 0 to"),
    ({"regression_weight": math.nan}, "regression_weight is nan"),
    ({"regression_weight": math.inf}, "regression_weight is inf"),
    ({"factorization_weight": 0.0, "regression_weight": 0.0}, "are both 0"),
    ({"batch_size": 0}, "batch_size is 0"),
    ({"learning_rate": 0.0}, "learning_rate is 0.0"),
    ({"learning_rate": math.nan}, "learning_rate is nan"),
])  # fmt: skip
def test_settings_out_of_range_are_refused(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Settings(**change)  # type: ignore[arg-type]


def test_a_network_that_does_not_fit_the_data_is_refused(split: Split) -> None:
    data, _ = split
    with pytest.raises(ValueError, match="the network has 59 users and 90 items, but the ratings have 60 and 90"):
        Trainer(MultiTaskNet(59, 90), data, Settings())
    with pytest.raises(ValueError, match="no training ratings"):
        Trainer(MultiTaskNet(60, 90), data.select(torch.arange(0)), Settings())
