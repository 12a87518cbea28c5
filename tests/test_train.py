"""Training: its examples, its random numbers, its record, and its errors."""

import math
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from runs import Split, curves, fit_in, network

import train
from data import synthetic
from metrics import mrr_score, mse_score
from models import MultiTaskNet
from tracking.metric_table import METRICS, EpochMetrics, columns
from train import Trainer
from training import sampling, setup
from training.evaluation import Evaluation
from training.settings import Settings
from training.steps import Triples

ROOT = Path(__file__).parent.parent


def test_negatives_are_drawn_from_all_items_and_triples_are_all_used(split: Split) -> None:
    """Every triple once an epoch, in another order each time; each item about as often as any other as a negative."""
    data, _ = split
    sampler = sampling.Sampler(data, 100, torch.Generator().manual_seed(0))
    blocks = [[triples for triples, _ in sampler.epoch()] for _ in range(40)]
    epochs = [Triples(*map(torch.cat, zip(*each, strict=True))) for each in blocks]
    triples = sorted(zip(data.user_ids.tolist(), data.item_ids.tolist(), data.ratings.tolist(), strict=True))
    for epoch in epochs:
        assert sorted(zip(epoch.users.tolist(), epoch.items.tolist(), epoch.ratings.tolist(), strict=True)) == triples
        assert epoch.negatives.numel() == len(data)
    assert not torch.equal(epochs[0].users, epochs[1].users)
    counts = torch.bincount(torch.cat([epoch.negatives.view(-1) for epoch in epochs]), minlength=data.num_items)
    expected = 40 * len(data) / data.num_items
    assert float(((counts - expected) ** 2 / expected).sum()) < 150  # χ², 89 degrees of freedom; p = 0.0001


@pytest.mark.parametrize("batch_size", [7, 30])
def test_many_blocks_are_one_epoch(batch_size: int, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking examples up in blocks changes neither their order nor the random numbers, at any block size."""
    data, _ = split
    results = []
    for block in (2**19, 100):
        monkeypatch.setattr(sampling, "BLOCK", block)
        trainer = Trainer(network(data, True), data, Settings(batch_size=batch_size))
        results.append((trainer.run_epoch()[:2], [x.clone() for x in trainer.model.state_dict().values()]))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-6)
    assert all(torch.equal(x, y) for x, y in zip(results[0][1], results[1][1], strict=True))


def test_an_epoch_is_the_same_bits_every_time_and_another_for_another_seed(split: Split) -> None:
    data, _ = split
    states = []
    for seed in (0, 0, 1):
        net = network(data, True)
        trainer = Trainer(net, data, Settings(seed=seed))
        losses = [trainer.run_epoch() for _ in range(3)]
        states.append((losses, net.state_dict()))
    assert states[0][0] == states[1][0] != states[2][0]
    assert all(torch.equal(states[0][1][name], states[1][1][name]) for name in states[0][1])


def test_tensorboard_gets_the_five_metrics_of_every_epoch_as_soon_as_it_ends(split: Split, tmp_path: Path) -> None:
    data, test = split
    net = network(data, False)

    class Reader(Trainer):
        def run_epoch(self) -> train.Losses:
            assert self.epoch == 0 or len(curves(tmp_path)["eval/MSE"]) == self.epoch
            return super().run_epoch()

    history = fit_in(tmp_path, Reader(net, data, Settings(epochs=3)), test)
    events = {tag: values for tag, values in curves(tmp_path).items() if not tag.startswith("users/")}
    assert list(events) == [
        "training/Factorization Loss", "training/MSE", "training/Joint Loss", "eval/Mean Reciprocal Rank", "eval/MSE",
    ]  # fmt: skip
    for name in columns(history):
        written = events[METRICS[name].tag]
        assert [step for step, _ in written] == [0, 1, 2]
        assert [value for _, value in written] == pytest.approx([getattr(each, name) for each in history], rel=1e-6)
    assert history[-1].test_mrr == mrr_score(net, test, data)
    assert history[-1].test_mse == mse_score(net, test)


def test_a_small_network_is_trained_on_one_thread(split: Split) -> None:
    data, _ = split
    before = torch.get_num_threads()
    for layer_sizes, batch_size, threads in (
        ((12, 7), 256, 1),
        ((96, 64), 256, 1),
        ((384, 4096), 4096, setup.ALL_THREADS),
    ):
        trainer = Trainer(network(data, True, layer_sizes), data, Settings(batch_size=batch_size))
        with setup.resources_for(trainer.model, trainer.batch_size):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == before


# Prints the resident bytes after a tensor of 64 MiB was freed: before, while, and after a large network is trained.
FREED_MEMORY = """
import resource
import torch
from training import setup

def resident():
    torch.ones(2**24)
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()

print(resident())
with setup.resources_for(torch.nn.Linear(384, 4096), 4096):
    print(resident())
print(resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc's malloc")
def test_memory_stays_in_the_process_while_a_large_network_is_trained() -> None:
    """In a process of its own: one that ran other tests may have a gap of that size that no setting returns."""
    done = subprocess.run([sys.executable, "-c", FREED_MEMORY], cwd=ROOT, capture_output=True, text=True, check=True)
    before, during, after = map(int, done.stdout.split())
    assert during - before > 2**25
    assert during - after > 2**25


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


def test_a_callback_sees_each_epoch_and_can_stop_training(split: Split) -> None:
    data, test = split
    seen: list[tuple[int, EpochMetrics]] = []

    def watch(epoch: int, metrics: EpochMetrics) -> bool:
        seen.append((epoch, metrics))
        return epoch == 2

    trainer = Trainer(network(data, True), data, Settings(epochs=5, eval_every=2))
    history = train.fit(trainer, test, on_epoch=watch)
    assert seen == list(enumerate(history))
    assert trainer.epoch == len(history) == 3
    assert math.isnan(history[2].test_mse)  # the end is evaluated
    assert history.closing["test_mse"] == mse_score(trainer.model, test)
    assert history.closing["test_mrr"] == mrr_score(trainer.scorer, test, data)
    assert len(train.fit(trainer, test, history=history, on_epoch=lambda epoch, metrics: None)) == 5


def test_arguments_of_another_kind_are_named_in_the_words_of_python(split: Split) -> None:
    data, test = split
    trainer = Trainer(network(data, True), data, Settings(epochs=1))
    with pytest.raises(TypeError, match=r"validation is 3: expected Interactions or an Evaluation; the number of epo"):
        train.fit(trainer, test, 3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"test is None: expected Interactions or an Evaluation"):
        train.fit(trainer, None)  # type: ignore[arg-type]
    assert trainer.epoch == 0


def test_patience_without_a_validation_set_is_refused(split: Split) -> None:
    data, test = split
    trainer = Trainer(network(data, True), data, Settings(epochs=2, patience=1))
    with pytest.raises(ValueError, match="patience is 1, which needs a validation set"):
        train.fit(trainer, test)
    assert trainer.epoch == 0


def test_no_epoch_is_trained_with_a_learning_rate_of_0(split: Split) -> None:
    data, test = split
    trainer = Trainer(network(data, True), data, Settings(epochs=2, lr_schedule="linear"))
    history = train.fit(trainer, test)
    trainer.settings = Settings(epochs=4, lr_schedule="linear")
    with pytest.raises(
        ValueError, match=r"the learning rate is 0 after 2 epochs .lr_schedule.: make a trainer for more"
    ):
        train.fit(trainer, test, history=history)
    assert trainer.epoch == 2


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


def test_a_network_that_does_not_fit_the_data_is_refused(split: Split) -> None:
    data, _ = split
    with pytest.raises(ValueError, match="the network has 59 users and 90 items, but the ratings have 60 and 90"):
        Trainer(MultiTaskNet(59, 90), data, Settings())
    with pytest.raises(ValueError, match="no training ratings"):
        Trainer(MultiTaskNet(60, 90), data.select(torch.arange(0)), Settings())


def test_training_is_continued_with_the_history_that_fit_returned(split: Split) -> None:
    """The validation set prefers an epoch of the first part, the last of it, or one of the second part."""
    train_set, test = split
    for best in (0, 1, 3):
        scores = iter([0.9 if epoch == best else 0.1 for epoch in range(4)])

        class Validation(Evaluation):
            def mrr(self, values: Iterator[float] = scores) -> float:
                return next(values)

            def mse(self) -> float:
                return 1.0

        whole = Trainer(network(train_set, True), train_set, Settings(epochs=2))
        validation = Validation(whole.scorer, whole.train, test)
        history = train.fit(whole, test, validation)
        whole.settings = Settings(epochs=4)
        history = train.fit(whole, test, validation, history=history)
        assert history.best == best
        fresh = Trainer(network(train_set, True), train_set, Settings(epochs=best + 1))
        train.fit(fresh, test)
        with train.recommending(whole, history):
            assert torch.equal(whole.adam.flat, fresh.adam.flat)
    plain = [EpochMetrics(validation_mrr=mrr, validation_mse=1.0) for mrr in (0.2, 0.1)]
    with pytest.raises(ValueError, match="history lacks the state after its best epoch"):
        train.fit(whole, test, validation, history=plain)
