"""The biases of a rating baseline, and the values that a network learns, compared with plain loops."""

import math
from dataclasses import replace
from itertools import product

import pytest
import torch

from data import Interactions
from models import MultiTaskNet
from training.evaluation import Evaluation
from training.rows import start_from
from training.scale import DAMPINGS, Baseline, Dampings, Scale
from training.settings import Settings
from training.trainer import Trainer

USERS, ITEMS = 9, 11
Rating = tuple[int, int, float]


def interactions(factor: float = 1.0) -> Interactions:
    """Make 70 interactions, some of one user and item, some without a rating; the last user and item have none."""
    generator = torch.Generator().manual_seed(3)
    users = torch.randint(USERS - 1, (70,), generator=generator)
    items = torch.randint(ITEMS - 1, (70,), generator=generator)
    noise = torch.randint(3, (70,), generator=generator)
    ratings = (users % 3 + items % 2 + noise).float() / 2 + 0.5
    ratings[::6] = torch.nan
    users[1], items[1] = users[2], items[2]
    return Interactions(users, items, ratings * factor, USERS, ITEMS)


def listed(made: Interactions) -> list[Rating]:
    columns = made.user_ids.tolist(), made.item_ids.tolist(), made.ratings.tolist()
    return [each for each in zip(*columns, strict=True) if not math.isnan(each[2])]


def mean_of(ratings: list[Rating]) -> float:
    return sum(rating for _, _, rating in ratings) / len(ratings)


def item_bias(ratings: list[Rating], item: int, mean: float, damping: float) -> float:
    own = [rating - mean for _, other, rating in ratings if other == item]
    return sum(own) / (damping + len(own))


def user_bias(ratings: list[Rating], user: int, mean: float, damping: float, items: dict[int, float]) -> float:
    own = [rating - mean - items[item] for other, item, rating in ratings if other == user]
    return sum(own) / (damping + len(own))


def residuals(ratings: list[Rating], mean: float, dampings: Dampings) -> list[float]:
    """Compute what biases without the rating itself leave of each rating."""
    items = {item: item_bias(ratings, item, mean, dampings.items) for item in range(ITEMS)}
    found = []
    for place, (user, item, rating) in enumerate(ratings):
        others = ratings[:place] + ratings[place + 1 :]
        biases = user_bias(others, user, mean, dampings.users, items), item_bias(others, item, mean, dampings.items)
        found.append(rating - mean - sum(biases))
    return found


def test_biases_are_damped_means() -> None:
    ratings = listed(interactions())
    mean, dampings = mean_of(ratings), Dampings(2.0, 5.0)
    found = Baseline.of(interactions(), mean, dampings)
    items = {item: item_bias(ratings, item, mean, 5.0) for item in range(ITEMS)}
    assert found.items.tolist() == pytest.approx(list(items.values()), abs=1e-12)
    users = [user_bias(ratings, user, mean, 2.0, items) for user in range(USERS)]
    assert found.users.tolist() == pytest.approx(users, abs=1e-12)
    assert found.users[-1] == found.items[-1] == 0
    assert (found.lowest, found.highest) == (min(ratings, key=lambda x: x[2])[2], max(ratings, key=lambda x: x[2])[2])


def test_the_dampings_have_the_smallest_error_of_ratings_that_they_have_not_seen() -> None:
    ratings = listed(interactions())
    mean = mean_of(ratings)
    errors = {
        pair: sum(each**2 for each in residuals(ratings, mean, Dampings(*pair))) for pair in product(DAMPINGS, DAMPINGS)
    }
    best = min(errors, key=errors.__getitem__)
    assert Scale.of(interactions(), "star", with_baseline=True).baseline is not None
    assert Baseline.of(interactions(), mean).dampings == best
    assert DAMPINGS[0] < best[0] < DAMPINGS[-1]


@pytest.mark.parametrize(("unit", "factor"), [("star", 1.0), ("auto", 1.0), ("spread", 1.0), ("auto", 1e30)])
def test_the_network_learns_what_biases_without_the_rating_leave(unit: str, factor: float) -> None:
    made = interactions(factor)
    ratings, scale = listed(made), Scale.of(made, unit, with_baseline=True)
    mean = mean_of(ratings)
    spread = math.sqrt(sum((rating - mean) ** 2 for _, _, rating in ratings) / len(ratings))
    assert scale.spread == pytest.approx(spread if unit == "spread" or factor > 1 else 1)
    assert scale.mean == pytest.approx(mean)
    assert scale.baseline is not None
    expected = [each / scale.spread for each in residuals(ratings, mean, scale.baseline.dampings)]
    found = scale.targets(made)
    assert torch.equal(found.isnan(), made.ratings.isnan())
    assert found[made.rated].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("damping", [1.0, 4.0])
def test_the_bias_of_a_new_user(damping: float) -> None:
    made = interactions()
    mean = mean_of(listed(made))
    scale = Scale(mean, 2.0, Baseline.of(made, mean, Dampings(damping, 3.0)))
    items = {item: item_bias(listed(made), item, mean, 3.0) for item in range(ITEMS)}
    own: list[Rating] = [(0, 4, 5.0), (0, 7, 1.0), (0, 2, 4.0)]
    given = torch.tensor([5.0, 1.0, torch.nan, 4.0])
    of_user, values = scale.of_new_user(given, torch.tensor([4, 7, 8, 2]))
    assert of_user.baseline is not None
    assert of_user.baseline.users.tolist() == pytest.approx([user_bias(own, 0, mean, damping, items)])
    expected = []
    for place, (_, item, rating) in enumerate(own):
        bias = user_bias(own[:place] + own[place + 1 :], 0, mean, damping, items)
        expected.append((rating - mean - items[item] - bias) / 2)
    assert values[[0, 1, 3]].tolist() == pytest.approx(expected, abs=1e-6)
    assert values[2].isnan()
    without, none = scale.of_new_user(torch.tensor([torch.nan]), torch.tensor([4]))
    assert without.baseline is not None
    assert without.baseline.users.tolist() == [0]
    assert none.isnan().all()


@pytest.mark.parametrize(("unit", "factor"), [("star", 1.0), ("spread", 1.0), ("auto", 1e30)])
def test_test_errors_are_those_of_baseline_and_score_within_the_range(unit: str, factor: float) -> None:
    """Oracle: μ + a + c + s · score in float64, pair by pair; scores are so large that some are limited."""
    made = interactions(factor)
    train, test = made.select(torch.arange(50)), made.select(torch.arange(50, 70))
    torch.manual_seed(0)
    net = MultiTaskNet(USERS, ITEMS, 4, (12, 6))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_()
    trainer = Trainer(net, train, Settings(rating_unit=unit, rating_baseline=True))
    ratings, scale = listed(train), trainer.scale
    assert scale.baseline is not None
    mean, dampings = mean_of(ratings), scale.baseline.dampings
    items = {item: item_bias(ratings, item, mean, dampings.items) for item in range(ITEMS)}
    lowest, highest = min(r for _, _, r in ratings), max(r for _, _, r in ratings)
    errors, limited = [], 0
    for user, item, rating in listed(test):
        score = net(torch.tensor([user]), torch.tensor([item]))[1].double().item()
        stars = mean + user_bias(ratings, user, mean, dampings.users, items) + items[item] + scale.spread * score
        limited += not lowest <= stars <= highest
        shown = min(highest, max(lowest, stars))
        found = scale.from_units(torch.tensor([score]).float(), torch.tensor([user]), torch.tensor([item])).item()
        assert found == pytest.approx(shown, rel=1e-5)
        errors.append(shown - rating)
    assert 0 < limited < len(errors)
    evaluation = Evaluation(trainer.scorer, trainer.train, test, scale=scale)
    squares = sum(error**2 for error in errors) / len(errors)
    assert evaluation.mse() == pytest.approx(squares, rel=1e-4, abs=0)
    assert evaluation.mae() == pytest.approx(sum(map(abs, errors)) / len(errors), rel=1e-4, abs=0)


@pytest.mark.parametrize("unit", ["star", "spread"])
def test_the_training_mse_is_that_of_the_residuals(unit: str) -> None:
    made = interactions()
    settings = Settings(rating_unit=unit, rating_baseline=True, learning_rate=1e-12, batch_size=16)
    torch.manual_seed(0)
    trainer = Trainer(MultiTaskNet(USERS, ITEMS, 4, (12, 6)), made, settings)
    scale, ratings = trainer.scale, listed(made)
    assert scale.baseline is not None
    errors = [
        scale.spread * trainer.model(torch.tensor([user]), torch.tensor([item]))[1].item() - residual
        for (user, item, _), residual in zip(
            ratings, residuals(ratings, mean_of(ratings), scale.baseline.dampings), strict=True
        )
    ]
    expected = sum(error**2 for error in errors) / len(errors)
    assert trainer.run_epoch().training_mse == pytest.approx(expected, rel=1e-4)


def test_ratings_without_variation_are_the_baseline() -> None:
    made = interactions()
    equal = replace(made, ratings=made.ratings * 0 + 3.7)
    for unit in ("star", "spread"):
        scale = Scale.of(equal, unit, with_baseline=True)
        assert scale.targets(equal)[equal.rated].tolist() == pytest.approx([0.0] * int(equal.rated.sum()))
        stars = scale.from_units(torch.zeros(2), torch.tensor([0, 8]), torch.tensor([1, 10]))
        assert stars.tolist() == pytest.approx([3.7, 3.7])
    assert Scale.of(replace(made, ratings=made.ratings * torch.nan), "auto", with_baseline=True) == Scale()


@pytest.mark.parametrize("had", [False, True])
@pytest.mark.parametrize("has", [False, True])
def test_a_warm_start_changes_the_output_to_the_new_baseline(had: bool, has: bool) -> None:
    """A residual stays the same number of stars. A rating stays the same, too, but for the biases; the mean is new."""
    made = interactions()
    later = replace(made, ratings=made.ratings * 1.5)
    settings = Settings(embedding_dim=4, layer_sizes=(12, 6), rating_baseline=had)
    old = Trainer(MultiTaskNet(USERS, ITEMS, 4, (12, 6)), made, settings)
    new = replace(settings, rating_baseline=has, rating_unit="spread")
    trainer = Trainer(MultiTaskNet(USERS, ITEMS, 4, (12, 6)), later, new)
    ids = torch.arange(USERS), torch.arange(ITEMS)
    start_from(trainer, old.model, *ids, old.scale)
    pair = torch.tensor([2]), torch.tensor([3])
    before, now = (each.model(*pair)[1].item() for each in (old, trainer))
    expected = before
    if not (had and has):
        expected += (mean_of(listed(made)) if had else 0) - mean_of(listed(later))
    assert now * trainer.scale.spread == pytest.approx(expected, abs=1e-5)
