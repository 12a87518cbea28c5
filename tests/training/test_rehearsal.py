"""The rehearsal: a fast way that differs is not taken, and a line names the first difference."""

import math
from collections.abc import Callable
from typing import Any

import edited_networks as nets
import pytest
import torch
from runs import Split
from torch import Tensor, nn
from torch.nn import functional

from metrics import ByForward, mrr_score
from models import MultiTaskNet
from train import Trainer
from training import fused, steps
from training.adam import Adam, SparseAdam
from training.evaluation import ByTables
from training.fused import CudaGraph, FusedStep
from training.group import Group
from training.rehearsal import Rehearsal, Way
from training.settings import Settings
from training.steps import EagerStep, LossWeights
from training.tuned import TunedStep
from training.tuned_batch import ForwardBatch, TableBatch

HALVES = LossWeights(0.5, 0.5)


def trainer(split: Split, network: Callable[[int, int], nn.Module], **settings: Any) -> Trainer:
    train, _ = split
    torch.manual_seed(0)
    net = network(train.num_users, train.num_items)
    return Trainer(net, train, Settings(**({"batch_size": 64} | settings)), make=network)


KEEPS = "training with the eager step: models.py or training/steps.py keeps "
HOOKS = "models.py has hooks on its parameters, which copies of the network lack"
RANKED = "training with the eager step", "ranking with forward"
PLAIN = "training with the eager step: models.py or training/steps.py gives another "
RANKS = "ranking with forward: models.py gives other predictions than u · q + b"


@pytest.mark.parametrize(
    ("network", "says"),
    [
        (nets.WithoutBias, [f"{PLAIN}∂L_F/∂B than the fused step", RANKS]),
        (nets.BiasTeachesNothing, [f"{PLAIN}∂L_F/∂B than the fused step"]),
        (nets.TwiceTheSlope, [f"{PLAIN}∂L_R/∂U than the fused step"]),
        (nets.Bounded, [f"{PLAIN}L_F than the fused step", RANKS]),
        (nets.NoStars, [f"{PLAIN}L_R than the fused step"]),
        (nets.InTrainingAlone, [f"{PLAIN}L_F than the fused step"]),
        (nets.InEvaluationAlone, [RANKS]),
        (nets.Random, [f"{PLAIN}∂L_F/∂U than the fused step"]),
        (nets.AtItsStartAlone, [f"{PLAIN}L_R than the fused step"]),
        (nets.ForItemsAbove60, [f"{PLAIN}L_F than the fused step", RANKS]),
        (nets.Counts, [f"{KEEPS}calls from step to step", f"{KEEPS}calls from step to step".replace(*RANKED)]),
        (nets.Collects, [f"{KEEPS}seen from step to step", f"{KEEPS}seen from step to step".replace(*RANKED)]),
        (nets.Remembers, [f"{KEEPS}mean from step to step", RANKS]),
        (nets.Hooked, [f"{PLAIN}∂L_F/∂U than the fused step"]),
        (nets.Elsewhere, ["training with the eager step: models.py has no nn.Embedding U or U_fact",
                     "ranking with forward: models.py has no nn.Embedding U or U_fact"]),
    ],
)  # fmt: skip
def test_a_network_that_differs_is_trained_and_ranked_plainly(
    network: type[nn.Module], says: list[str], split: Split
) -> None:
    found = trainer(split, network)
    assert found.notices == says
    assert type(found.step) is (EagerStep if says[0].startswith("training") else FusedStep)
    assert type(found.scorer) is (ByForward if says[-1].startswith("ranking") else ByTables)
    found.run_epoch()
    _, test = split
    assert mrr_score(found.scorer, test, found.train) == pytest.approx(mrr_score(found.model, test, found.train))


@pytest.mark.parametrize("sharing", [True, False])
def test_the_homeworks_network_is_trained_and_ranked_fast_and_left_as_it_was(sharing: bool, split: Split) -> None:
    found = trainer(split, lambda users, items: MultiTaskNet(users, items, 8, (24, 5), sharing))
    assert (found.notices, type(found.step), type(found.scorer)) == ([], FusedStep, ByTables)
    torch.manual_seed(0)
    own = MultiTaskNet(60, 90, 8, (24, 5), sharing)
    assert all(torch.equal(x, y) for x, y in zip(found.model.parameters(), own.parameters(), strict=True))


def logistic(positive: Tensor, negative: Tensor) -> Tensor:
    return -functional.logsigmoid(positive - negative).mean()


@pytest.mark.parametrize(
    ("loss", "edited", "differs"),
    [
        ("bpr_loss", logistic, "L_F"),
        ("regression_loss", functional.l1_loss, "L_R"),
        ("joint_loss", lambda l_f, l_r, weights: 3 * (weights[0] * l_f + weights[1] * l_r), "∂L_F/∂U"),
    ],
)
def test_a_loss_that_is_edited_is_the_one_that_trains(
    loss: str, edited: Callable[..., Tensor], differs: str, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, loss, edited)
    found = trainer(split, MultiTaskNet)
    assert found.notices == [f"{PLAIN}{differs} than the fused step"]
    lazy = trainer(split, MultiTaskNet, optimizer="lazy_adam")
    assert type(lazy.step) is EagerStep
    assert isinstance(lazy.step.optimizer, SparseAdam)
    assert lazy.notices[0] == f"{PLAIN}{differs} than the row-wise step"


@pytest.mark.parametrize(
    ("rate", "kept", "says"),
    [
        (lambda adam: 1.01 * adam.learning_rate, False, f"{PLAIN}step of U than the fused step"),
        (lambda adam: adam.learning_rate * 0.9999 ** adam.steps_taken.item(), False,
         f"{PLAIN}step of U than the fused step"),
        (lambda adam: adam.learning_rate * 0.999999, True, f"{KEEPS}EagerStep.optimizer from step to step"),
    ],
    ids=["longer", "falling", "lowered by each step"],
)  # fmt: skip
def test_a_step_of_another_length_is_seen(
    rate: Callable[[Adam], float], kept: bool, says: str, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain_step = EagerStep.step

    def step(self: EagerStep, *batch: Tensor) -> Tensor:
        assert isinstance(self.optimizer, Adam)
        usual = self.optimizer.learning_rate
        self.optimizer.learning_rate = rate(self.optimizer)
        losses = plain_step(self, *batch)
        if not kept:
            self.optimizer.learning_rate = usual
        return losses

    monkeypatch.setattr(EagerStep, "step", step)
    assert trainer(split, MultiTaskNet).notices[0] == says


def test_auto_is_dense_adam_for_a_table_that_is_read_other_than_by_look_ups(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.adam.MANY_ROWS", 1)
    monkeypatch.setattr("training.adam.ROWS_A_LOOKUP", 0)
    assert trainer(split, MultiTaskNet).optimizer == "lazy_adam"
    assert trainer(split, MultiTaskNet, weight_decay=1.0).optimizer == "adam"
    assert trainer(split, nets.ReadsTheWholeTable).optimizer == "adam"
    with pytest.raises(ValueError, match=r"lazy_adam cannot train the network of models\.py: "):
        trainer(split, nets.ReadsTheWholeTable, optimizer="lazy_adam")


def test_the_tuned_step_falls_back_in_two_stages(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    ingredients = {"ranking_loss": "softmax", "watched_items": True, "embedding_dropout": 0.2, "dropout": 0.2}

    def step(network: Callable[[int, int], nn.Module]) -> tuple[object, bool, list[str]]:
        found = trainer(split, network, negatives=4, optimizer="adam", **ingredients)
        assert isinstance(found.step, TunedStep)
        assert math.isfinite(found.run_epoch().joint_loss)
        return found.step.batch, found.step.by_hand, found.notices

    assert step(MultiTaskNet) == (TableBatch, True, [])
    batch, own, notices = step(nets.WithoutBias)
    assert (batch, own, notices[0]) == (ForwardBatch, False, f"{PLAIN}∂L_F/∂B than the tuned step")
    monkeypatch.setattr("training.tuned.softmax_losses", lambda p, negative: 2 * negative.logsumexp(1) - p)
    batch, own, notices = step(MultiTaskNet)
    assert (batch, own) == (TableBatch, False)
    assert notices[0].startswith("training with the tuned step with the plain loss: ")


@pytest.mark.parametrize(
    ("ingredient", "says"),
    [
        ("watched_items", "models.py has no nn.Embedding U or U_fact, which watched_items"),
        ("dropout", "the network has no nn.ReLU layers, whose outputs dropout changes"),
    ],
)
def test_an_ingredient_without_anything_to_change_is_refused(ingredient: str, says: str, split: Split) -> None:
    with pytest.raises(ValueError, match=says):
        trainer(split, nets.Elsewhere, **{ingredient: 0.5 if ingredient == "dropout" else True})


def test_other_ingredients_work_by_forward_alone(split: Split) -> None:
    ingredients = {
        "negatives": 3, "unseen_negatives": True, "ranking_loss": "softmax", "user_balance": 0.25,
        "weight_decay": 5.0, "lr_schedule": "linear",
    }  # fmt: skip
    found = trainer(split, nets.Elsewhere, epochs=2, **ingredients)
    assert isinstance(found.step, TunedStep)
    assert [math.isfinite(found.run_epoch().joint_loss) for _ in range(2)] == [True, True]


def eager(lazy: bool = False) -> Way:
    return Way(
        "eager step",
        lambda model, adam, weights, *_: EagerStep(model, SparseAdam(model, adam) if lazy else adam, weights),
    )


def choose(network: Callable[[int, int], nn.Module], others: list[Way], group: Group | None = None) -> tuple[str, str]:
    rehearsed = Rehearsal(network(60, 90), 60, 90, network, group or Group())
    rehearsed.take_plainly(eager(), HALVES)
    way, notice = rehearsed.fastest_way(others)
    return way.name, notice


def test_a_graph_that_cannot_be_recorded_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU: the fused step is taken, which agrees."""

    def record(graph: CudaGraph) -> None:
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    monkeypatch.setattr(CudaGraph, "_record", record)
    assert choose(MultiTaskNet, fused.ways(False, torch.device("cuda"))) == (
        "fused step",
        "training with the fused step: the CUDA graph does not fit models.py (RuntimeError: operation not permitted "
        "when stream is capturing)",
    )


def test_a_way_that_differs_in_another_process_is_taken_by_none() -> None:
    class Other(Group):
        def add_up(self, tensor: Tensor) -> Tensor:
            return tensor + 1  # the other process objects

    rehearsed = Rehearsal(MultiTaskNet(60, 90), 60, 90, MultiTaskNet, Other(0, 2))
    assert rehearsed.ranking_difference(ByTables) == "it differs in another process"


def test_rehearsing_prints_nothing_and_restores_the_random_numbers(
    split: Split, capsys: pytest.CaptureFixture[str]
) -> None:
    train, _ = split
    net = nets.Loud(60, 90)
    torch.manual_seed(1)
    Trainer(net, train, Settings(), make=nets.Loud)
    following = torch.rand(2)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(2), following)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("network", "step", "says"),
    [
        (MultiTaskNet, FusedStep, []),
        (nets.Hooked, EagerStep, [f"training with the eager step: {HOOKS}", f"ranking with forward: {HOOKS}"]),
        (nets.Uncopyable, EagerStep, ["training with the eager step: models.py makes a network that cannot be copied",
                                 "ranking with forward: models.py makes a network that cannot be copied"]),
    ],
)  # fmt: skip
def test_without_a_way_to_make_it_a_network_is_copied_and_one_that_cannot_be_copied_is_taken_plainly(
    network: Callable[[int, int], nn.Module], step: type, says: list[str], split: Split
) -> None:
    train, _ = split
    found = Trainer(network(60, 90), train, Settings())
    assert (type(found.step), found.notices) == (step, says)
    found.run_epoch()


def test_only_rounding_is_allowed() -> None:
    """Differences of float32's order pass for each parameter; a thousandth does not."""
    rehearsed = Rehearsal(MultiTaskNet(60, 90), 60, 90, MultiTaskNet)

    def scaled(way: Way, factor: float) -> Way:
        return Way(
            "scaled step",
            lambda model, adam, weights, *others: way.make(
                model, adam, LossWeights(weights.factorization * factor, weights.regression * factor), *others
            ),
        )

    for lazy in (False, True):
        (fast,) = fused.ways(lazy, torch.device("cpu"))
        rehearsed.take_plainly(eager(lazy), HALVES)
        assert rehearsed.difference(scaled(fast, 1 + 1e-6)) is None
        assert rehearsed.difference(scaled(fast, 1.001)) is not None
