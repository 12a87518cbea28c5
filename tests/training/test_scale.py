"""The biases of a rating baseline, and the values that a network learns, compared with dense normal equations."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from data import Interactions
from models import MultiTaskNet
from training.baseline import LEAST_DAMPING, MOST_DAMPING, Baseline, Dampings
from training.evaluation import Evaluation
from training.rows import start_from
from training.scale import Scale
from training.settings import Settings
from training.trainer import Trainer

USERS, ITEMS = 9, 11
Rating = tuple[int, int, float]
Biases = tuple[list[float], list[float]]  # of users and items, by ID


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


def solved(ratings: list[Rating], mean: float, dampings: Dampings, users: int = USERS, items: int = ITEMS) -> Biases:
    """Solve the normal equations of all biases in float64."""
    ones = np.zeros((len(ratings), users + items))
    for row, (user, item, _) in enumerate(ratings):
        ones[row, user] = ones[row, users + item] = 1
    penalty = np.diag([dampings.users] * users + [dampings.items] * items)
    right = ones.T @ np.array([rating - mean for _, _, rating in ratings])
    found = np.linalg.solve(ones.T @ ones + penalty, right).tolist()
    return found[:users], found[users:]


def errors_of(ratings: list[Rating], mean: float, biases: Biases) -> list[float]:
    users, items = biases
    return [rating - mean - users[user] - items[item] for user, item, rating in ratings]


def objective(ratings: list[Rating], mean: float, dampings: Dampings, biases: Biases) -> float:
    squares = [sum(bias**2 for bias in of_kind) for of_kind in biases]
    errors = sum(error**2 for error in errors_of(ratings, mean, biases))
    return errors + dampings.users * squares[0] + dampings.items * squares[1]


def residuals(ratings: list[Rating], mean: float, dampings: Dampings) -> list[float]:
    """Compute the leave-one-out residuals from the solved biases, with the variances of two damped means."""
    found = errors_of(ratings, mean, solved(ratings, mean, dampings))
    for place, (user, item, _) in enumerate(ratings):
        by_user, by_item = (sum(each[of] == own for each in ratings) - 1 for of, own in ((0, user), (1, item)))
        found[place] *= 1 + 1 / (dampings.users + by_user) + 1 / (dampings.items + by_item)
    return found


def drawn(users: int, items: int, each: int, user_spread: float, item_spread: float, noise: float) -> Interactions:
    """Draw biases, and ratings of ``each`` items by each user, from the normal distributions of the model."""
    generator = torch.Generator().manual_seed(5)
    user_ids = torch.arange(users).repeat_interleave(each)
    item_ids = torch.cat([torch.randperm(items, generator=generator)[:each] for _ in range(users)])
    of_users = torch.randn(users, generator=generator) * user_spread
    of_items = torch.randn(items, generator=generator) * item_spread
    ratings = 3 + of_users[user_ids] + of_items[item_ids] + torch.randn(len(user_ids), generator=generator) * noise
    return Interactions(user_ids, item_ids, ratings, users, items)


@pytest.mark.parametrize("dampings", [None, Dampings(2.0, 5.0), Dampings(0.5, 30.0)])
@pytest.mark.parametrize("shift", [0.0, -0.7])
def test_biases_solve_the_normal_equations(dampings: Dampings | None, shift: float) -> None:
    """With a shift, μ is not the mean of the ratings, as that of an earlier run."""
    ratings = listed(interactions())
    mean = mean_of(ratings) + shift
    found = Baseline.of(interactions(), mean, dampings)
    assert dampings in (None, found.dampings)
    users, items = solved(ratings, mean, found.dampings)
    assert found.users.tolist() == pytest.approx(users, abs=5e-5)
    assert found.items.tolist() == pytest.approx(items, abs=5e-5)
    assert found.users[-1] == found.items[-1] == 0
    assert (found.lowest, found.highest) == (min(ratings, key=lambda x: x[2])[2], max(ratings, key=lambda x: x[2])[2])


def test_the_dampings_are_a_fixed_point_of_the_evidence() -> None:
    made = drawn(60, 40, 12, 0.5, 0.8, 0.6)
    ratings, mean = listed(made), mean_of(listed(made))
    found = Baseline.of(made, mean).dampings
    biases = solved(ratings, mean, found, 60, 40)
    numbers = []
    for of, damping in enumerate(found):
        counts = np.bincount([each[of] for each in ratings])
        numbers.append(float((counts / (counts + damping)).sum()))
    squares = sum(error**2 for error in errors_of(ratings, mean, biases))
    variance = squares / (len(ratings) - sum(numbers))
    for damping, number, of_kind in zip(found, numbers, biases, strict=True):
        assert damping == pytest.approx(variance * number / sum(bias**2 for bias in of_kind), rel=2e-3)


@pytest.mark.parametrize(("user_spread", "item_spread"), [(0.5, 0.8), (0.9, 0.2)])
def test_the_dampings_are_ratios_of_the_variances_that_ratings_were_drawn_with(
    user_spread: float, item_spread: float
) -> None:
    made = drawn(800, 700, 25, user_spread, item_spread, 0.6)
    found = Baseline.of(made, 3.0).dampings
    assert found.users == pytest.approx(0.6**2 / user_spread**2, rel=0.15)
    assert found.items == pytest.approx(0.6**2 / item_spread**2, rel=0.15)


def test_the_values_are_leave_one_out_residuals() -> None:
    """Oracle: biases that are solved without each rating. A user and an item without other ratings are exact."""
    made = drawn(40, 30, 14, 0.5, 0.8, 0.6)
    users, items = torch.cat([made.user_ids, torch.tensor([40])]), torch.cat([made.item_ids, torch.tensor([30])])
    made = Interactions(users, items, torch.cat([made.ratings, torch.tensor([5.0])]), 41, 31)
    ratings, mean = listed(made), mean_of(listed(made))
    dampings = Dampings(1.5, 3.0)
    found = Scale(mean, 1.0, Baseline.of(made, mean, dampings)).targets(made).tolist()
    errors = errors_of(ratings, mean, solved(ratings, mean, dampings, 41, 31))
    for place in [*range(0, 560, 20), 560]:
        others = ratings[:place] + ratings[place + 1 :]
        exact = errors_of([ratings[place]], mean, solved(others, mean, dampings, 41, 31))[0]
        assert found[place] - errors[place] == pytest.approx(exact - errors[place], rel=0.05, abs=1e-6)
    assert found[-1] == pytest.approx(5 - mean)


@pytest.mark.parametrize(
    ("ratings", "is_additive"),
    [
        ([(0, 0, 4.0)], False),
        ([(1, 0, 4.0), (1, 0, 2.0)], False),
        ([(0, item, item % 4.0) for item in range(9)], False),
        ([(user, 0, user % 4.0) for user in range(8)], False),
        ([(place, place, place % 5.0) for place in range(8)], False),
        ([(user, item, 1.0 + user + 2 * item) for user in range(4) for item in range(3)], True),
        ([(user, user + more, 5.0 * user) for user in range(8) for more in (0, 1)], False),
    ],
    ids=["one", "one pair", "one user", "one item", "lone pairs", "additive", "chain"],
)
def test_few_ratings_give_finite_dampings_and_values(ratings: list[Rating], is_additive: bool) -> None:
    users, items, values = (torch.tensor(column) for column in zip(*ratings, strict=True))
    made = Interactions(users, items, values, USERS, ITEMS)
    scale = Scale.of(made, "star", with_baseline=True)
    assert scale.baseline is not None
    dampings = scale.baseline.dampings
    assert all(LEAST_DAMPING <= each <= MOST_DAMPING for each in dampings)
    found = scale.baseline.users.tolist(), scale.baseline.items.tolist()
    smallest = objective(ratings, scale.mean, dampings, solved(ratings, scale.mean, dampings))
    assert objective(ratings, scale.mean, dampings, found) == pytest.approx(smallest, rel=0.02)
    assert scale.targets(made).isfinite().all()
    if is_additive:
        assert dampings == (LEAST_DAMPING, LEAST_DAMPING)


def test_no_rating_gives_no_bias() -> None:
    made = replace(interactions(), ratings=interactions().ratings * torch.nan)
    found = Baseline.of(made, 3.0)
    assert not found.users.any()
    assert not found.items.any()
    assert (found.lowest, found.highest) == (-math.inf, math.inf)


@pytest.mark.parametrize(("unit", "factor"), [("star", 1.0), ("auto", 1.0), ("spread", 1.0), ("auto", 1e30)])
def test_the_values_are_in_units_of_the_spread(unit: str, factor: float) -> None:
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
    _, items = solved(listed(made), mean, Dampings(damping, 3.0))
    own: list[Rating] = [(0, 4, 5.0), (0, 7, 1.0), (0, 2, 4.0)]
    given = torch.tensor([5.0, 1.0, torch.nan, 4.0])
    of_user, values = scale.of_new_user(given, torch.tensor([4, 7, 8, 2]))
    assert of_user.baseline is not None
    above = [rating - mean - items[item] for _, item, rating in own]
    assert of_user.baseline.users.tolist() == pytest.approx([sum(above) / (damping + 3)], abs=1e-5)
    expected = [(each - (sum(above) - each) / (damping + 2)) / 2 for each in above]
    assert values[[0, 1, 3]].tolist() == pytest.approx(expected, abs=1e-5)
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
    mean = mean_of(ratings)
    users, items = solved(ratings, mean, scale.baseline.dampings)
    lowest, highest = min(r for _, _, r in ratings), max(r for _, _, r in ratings)
    errors, limited = [], 0
    for user, item, rating in listed(test):
        score = net(torch.tensor([user]), torch.tensor([item]))[1].double().item()
        stars = mean + users[user] + items[item] + scale.spread * score
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
