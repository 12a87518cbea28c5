"""Tests of interactions without a rating: L_R is the mean over the others, in every way of taking a step."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import data
from data import Interactions
from models import MultiTaskNet
from training.sampling import Sampler
from training.scale import Scale
from training.settings import Settings
from training.steps import loss_of_rated, rated_in_batches
from training.trainer import NO_RATINGS, Trainer

BATCH = 32


def interactions(missing: float) -> Interactions:
    """Draw 500 ratings, of which this share is missing; the last examples of the first epoch are among them."""
    drawn = data.synthetic(40, 60, 500, seed=2)
    gaps = torch.rand(500, generator=torch.Generator().manual_seed(3)) < missing
    return replace(drawn, ratings=drawn.ratings.masked_fill(gaps, torch.nan))


def trainer(train: Interactions, eager: bool = False, **changes: Any) -> Trainer:
    settings = Settings(**{"embedding_dim": 8, "batch_size": BATCH, "factorization_weight": 0.6, **changes})
    torch.manual_seed(0)
    net = MultiTaskNet(train.num_users, train.num_items, 8, settings.layer_sizes, settings.shared_embeddings)
    return Trainer(net, train, settings, eager=eager)


def plain_epoch(made: Trainer) -> tuple[list[float], list[Tensor]]:
    """Train a copy for an epoch in float64 by torch.optim.Adam; return both mean losses, and the parameters."""
    settings, train = made.settings, made.train
    torch.manual_seed(0)
    net = MultiTaskNet(train.num_users, train.num_items, 8, settings.layer_sizes, settings.shared_embeddings).double()
    adam = torch.optim.Adam(net.parameters(), settings.learning_rate)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)  # Adam moves on where a batch has no rating
    generator = torch.Generator().manual_seed(settings.seeds.training)
    ranked: list[float] = []
    squares: list[float] = []
    for triples, _ in Sampler(train, BATCH, generator).epoch():
        for users, items, negatives, ratings in zip(*(column.split(BATCH) for column in triples), strict=True):
            positive, score = net(users, items)
            wrong = 1 - torch.sigmoid(positive - net(users, negatives)[0])
            errors = [(score[k] - float(r)) ** 2 for k, r in enumerate(ratings.tolist()) if r == r]
            loss = settings.factorization_weight * wrong.mean()
            if errors:
                loss = loss + settings.regression_weight * torch.stack(errors).mean()
            ranked += wrong.tolist()
            squares += [error.item() for error in errors]
            adam.zero_grad(set_to_none=False)
            loss.backward()
            adam.step()
    means = [sum(ranked) / len(ranked), sum(squares) / len(squares) if squares else float("nan")]
    return means, [parameter.detach() for parameter in net.parameters()]


@pytest.mark.parametrize("missing", [0.3, 0.97])
@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize("eager", [True, False])
def test_an_epoch_equals_a_plain_loop_over_the_rated(missing: float, sharing: bool, eager: bool) -> None:
    made = trainer(interactions(missing), eager, shared_embeddings=sharing, regression_weight=0.4)
    assert made.notices == []  # the fast way agrees
    losses = made.run_epoch()
    (factorization, mse), parameters = plain_epoch(made)
    assert losses.factorization_loss == pytest.approx(factorization, rel=1e-5)
    assert losses.training_mse == pytest.approx(mse, rel=1e-4)
    assert losses.joint_loss == pytest.approx(0.6 * factorization + 0.4 * mse, rel=1e-4)
    for parameter, expected in zip(made.model.parameters(), parameters, strict=True):
        torch.testing.assert_close(parameter.detach().double(), expected, rtol=1e-3, atol=2e-4)


TUNED = {"negatives": 8, "ranking_loss": "softmax", "watched_items": True, "weight_decay": 5.0, "dropout": 0.2}


@pytest.mark.parametrize("changes", [{"optimizer": "lazy_adam"}, TUNED], ids=["lazy_adam", "tuned"])
def test_other_steps_agree_with_their_plain_way(changes: dict[str, Any]) -> None:
    train = interactions(0.5)
    fast, plain = trainer(train, **changes), trainer(train, eager=True, **changes)
    assert type(fast.step) is not type(plain.step) or fast.step.__dict__["batch"] is not plain.step.__dict__["batch"]
    for _ in range(2):
        one, other = fast.run_epoch(), plain.run_epoch()
        assert one == pytest.approx(other, rel=1e-4)
    assert 0 < one.training_mse < 20


@pytest.mark.parametrize("changes", [{}, {"optimizer": "lazy_adam"}, TUNED], ids=["plain", "lazy_adam", "tuned"])
def test_without_any_rating_the_ranking_is_trained_as_if_it_were_the_only_task(changes: dict[str, Any]) -> None:
    train = interactions(1.0)
    changes = changes | {"dropout": 0.0, "weight_decay": 0.0}  # they also change a network that rates nothing
    made = trainer(train, shared_embeddings=False, **changes)
    ranking = trainer(
        replace(train, ratings=torch.full_like(train.ratings, 3.0)),
        shared_embeddings=False, **changes, regression_weight=0.0,
    )  # fmt: skip
    assert NO_RATINGS in made.notices
    mlp = [parameter.clone() for parameter in made.model.get_submodule("mlp_layers").parameters()]
    one, other = made.run_epoch(), ranking.run_epoch()
    assert one.factorization_loss == pytest.approx(other.factorization_loss, rel=1e-6)
    assert one.training_mse != one.training_mse  # NaN
    assert one.joint_loss == pytest.approx(0.6 * one.factorization_loss)
    for parameter, before in zip(made.model.get_submodule("mlp_layers").parameters(), mlp, strict=True):
        assert torch.equal(parameter, before)
    with pytest.raises(ValueError, match="there is nothing to learn from"):
        trainer(train, factorization_weight=0.0)


def test_the_loss_of_a_batch_is_the_mean_over_its_rated_examples() -> None:
    score = torch.tensor([1.0, 2.0, 5.0], requires_grad=True)
    loss = loss_of_rated(score, torch.tensor([3.0, torch.nan, 4.0]))
    loss.backward()
    assert loss.item() == (4 + 1) / 2
    assert score.grad is not None
    assert score.grad.tolist() == [-2.0, 0.0, 1.0]
    assert loss_of_rated(score, torch.full((3,), torch.nan)).item() == 0.0
    assert rated_in_batches(torch.tensor([1.0, torch.nan, 2.0, 3.0, torch.nan]), 2).tolist() == [1, 2, 0]


@pytest.mark.parametrize(("factor", "shift"), [(20.0, 0.0), (1000.0, 0.0), (1.0, 100.0), (1e30, 0.0), (-3.0, -1e4)])
@pytest.mark.parametrize("missing", [0.0, 0.4])
def test_ratings_of_any_scale_train_the_same_network(factor: float, shift: float, missing: float) -> None:
    """The reference learns the same ratings in their unit as well, which they need not by themselves."""
    train = interactions(missing)
    changed = replace(train, ratings=(train.ratings.double() * factor + shift).float())
    made, reference = trainer(changed), trainer(train, rating_unit="spread")
    assert "L_R is in units of the training ratings' variance" in made.notices[0]
    sign = 1 if factor > 0 else -1
    torch.testing.assert_close(sign * made.train.ratings, reference.train.ratings, rtol=1e-4, atol=1e-4, equal_nan=True)
    if sign < 0:
        return
    for _ in range(3):
        one, other = made.run_epoch(), reference.run_epoch()
        assert one.factorization_loss == pytest.approx(other.factorization_loss, rel=1e-4)
        assert one.training_mse / factor**2 == pytest.approx(other.training_mse, rel=1e-3)


def rated(ratings: list[float]) -> Interactions:
    """Make interactions of one user, each with its rating."""
    items = torch.arange(len(ratings))
    return Interactions(torch.zeros_like(items), items, torch.tensor(ratings), 1, len(ratings))


def test_predictions_are_in_the_ratings_own_unit_again() -> None:
    train = rated([10.0, 30.0, torch.nan, 50.0])
    scale = Scale.of(train, "auto")
    assert scale.mean == pytest.approx(30)
    assert scale.spread == pytest.approx((800 / 3) ** 0.5)
    pairs = train.user_ids, train.item_ids
    again = scale.from_units(scale.to_units(train.ratings, *pairs), *pairs)
    torch.testing.assert_close(again, train.ratings, equal_nan=True)


@pytest.mark.parametrize(
    ("ratings", "unit", "is_own"),
    [
        ([0.5, 5.0], "auto", True),
        ([1.0, 5.0], "spread", False),
        ([0.0, 5.0], "auto", False),
        ([1.0, 5.5], "auto", False),
        ([1.0, 100.0], "star", True),
        ([torch.nan], "spread", True),
    ],
)
def test_usual_ratings_are_learned_in_their_own_unit(ratings: list[float], unit: str, is_own: bool) -> None:
    train = rated(ratings)
    scale = Scale.of(train, unit)
    assert scale.is_own_unit is is_own
    if is_own:
        assert scale.targets(train) is train.ratings


def test_equal_ratings_have_a_spread_of_one() -> None:
    assert Scale.of(rated([7.0, 7.0]), "auto") == Scale(7.0, 1.0)


def test_a_loss_that_overflows_names_the_scale_of_the_ratings() -> None:
    train = interactions(0.0)
    large = replace(train, ratings=train.ratings * 1e30)
    with pytest.raises(FloatingPointError, match=r"the ratings reach 5e\+30, .* rating_unit star .* choose spread"):
        trainer(large, rating_unit="star").run_epoch()


def test_a_network_of_another_kind_takes_the_plain_step_over_the_rated() -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.users, self.items = nn.Embedding(40, 4), nn.Embedding(60, 4)

        def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
            product = (self.users(user_ids) * self.items(item_ids)).sum(1)
            return product, 3.0 + product

    made = Trainer(Other(), interactions(0.6), Settings(batch_size=BATCH))
    assert 0 < made.run_epoch().training_mse < 100
