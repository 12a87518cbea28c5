"""Factors of ratings by variational Bayes, compared with plain loops in float64 and with drawn ratings."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from data import Interactions
from training import factors
from training.factors import FIRST_DAMPING, LEAST_SIZE, MOST_ERROR, SEED, Factors
from training.scale import Scale

Column = tuple[list[float], list[float], float]  # means, variances and the damping of one side of a dimension
Pair = tuple[int, int]


def drawn(users: int, items: int, each: int, dimensions: int, noise: float, seed: int = 1) -> Interactions:
    """Draw ratings of ``each`` items by each user: products of normal factors, plus noise."""
    generator = torch.Generator().manual_seed(seed)
    user_ids = torch.arange(users).repeat_interleave(each)
    item_ids = torch.cat([torch.randperm(items, generator=generator)[:each] for _ in range(users)])
    f, g = (torch.randn(n, dimensions, generator=generator) for n in (users, items))
    errors = (f[user_ids] * g[item_ids]).sum(1) + noise * torch.randn(len(user_ids), generator=generator)
    return Interactions(user_ids, item_ids, errors, users, items)


def factors_of(made: Interactions, dimensions: int) -> Factors:
    ids = made.user_ids, made.item_ids
    return Factors.of(made.ratings.double(), ids, (made.num_users, made.num_items), dimensions)


def posterior(column: Column, other: Column, errors: dict[Pair, float], side: int, noise: float) -> Column:
    """Compute one side of a dimension by the equations of ``training/factors.py``, row by row."""
    means, variances, damping = column
    means, variances, rated = list(means), list(variances), []
    for row in range(len(means)):
        own = [(pair[1 - side], error) for pair, error in errors.items() if pair[side] == row]
        weight = damping + sum(other[0][place] ** 2 + other[1][place] for place, _ in own)
        means[row] = sum(error * other[0][place] for place, error in own) / weight
        variances[row] = noise / weight
        rated += [means[row] ** 2 + variances[row]] if own else []
    return means, variances, noise * len(rated) / sum(rated)


def plain(made: Interactions, dimensions: int, sweeps: int) -> tuple[list[Column], list[Column]]:
    """Compute all factors by plain loops; the first ones are those of the same random numbers."""
    pairs = list(zip(made.user_ids.tolist(), made.item_ids.tolist(), strict=True))
    given = made.ratings.double().tolist()
    limit = MOST_ERROR * sorted(map(abs, given))[(len(given) - 1) // 2]
    assert limit < max(given)
    errors = {pair: min(limit, max(-limit, each)) for pair, each in zip(pairs, given, strict=True)}
    noise = sum(error**2 for error in errors.values()) / len(errors)
    damping = FIRST_DAMPING * noise**0.5
    generator = torch.Generator().manual_seed(SEED)
    start = torch.randn(made.num_items, dimensions, generator=generator, dtype=torch.float64) * (noise / damping) ** 0.5
    users: list[Column] = [([0.0] * made.num_users, [0.0] * made.num_users, damping) for _ in range(dimensions)]
    items: list[Column] = [(start[:, t].tolist(), [0.0] * made.num_items, damping) for t in range(dimensions)]
    for _ in range(sweeps):
        for t in range(dimensions):
            rest = {
                (i, j): error - sum(users[s][0][i] * items[s][0][j] for s in range(dimensions) if s != t)
                for (i, j), error in errors.items()
            }
            users[t] = posterior(users[t], items[t], rest, 0, noise)
            items[t] = posterior(items[t], users[t], rest, 1, noise)
        squares = 0.0
        for (i, j), error in errors.items():
            squares += (error - sum(f[0][i] * g[0][j] for f, g in zip(users, items, strict=True))) ** 2
            for f, g in zip(users, items, strict=True):
                squares += (f[0][i] ** 2 + f[1][i]) * (g[0][j] ** 2 + g[1][j]) - (f[0][i] * g[0][j]) ** 2
        noise = squares / len(errors)
    stay = [
        t
        for t, ((f, _, of_users), (g, _, of_items)) in enumerate(zip(users, items, strict=True))
        if math.hypot(*f) * math.hypot(*g) >= LEAST_SIZE * math.sqrt(of_users * of_items)
    ]
    return [users[t] for t in stay], [items[t] for t in stay]


@pytest.mark.parametrize(("dimensions", "left"), [(1, 1), (2, 1), (6, 2)])
def test_factors_are_those_of_a_plain_loop(dimensions: int, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in blocks of a few ratings; some dimensions fall to 0."""
    monkeypatch.setattr(factors, "SWEEPS", 4)
    monkeypatch.setattr(factors, "BLOCK", 16)
    made = drawn(20, 16, 9, 2, 0.3)
    made = Interactions(made.user_ids, made.item_ids, made.ratings, 21, 17)  # the last ones have no rating
    found, (users, items) = factors_of(made, dimensions), plain(made, dimensions, 4)
    assert (found.users.shape[1], len(users)) == (left, left)
    for t in range(left):
        assert found.users[:, t].tolist() == pytest.approx(users[t][0], abs=1e-9)
        assert found.items[:, t].tolist() == pytest.approx(items[t][0], abs=1e-9)
        assert found.dampings[:, t].tolist() == pytest.approx([users[t][2], items[t][2]])
    assert not found.users[-1].any()
    assert not found.items[-1].any()


def test_as_many_dimensions_remain_as_the_ratings_were_drawn_with() -> None:
    made = drawn(300, 200, 40, 2, 0.5)
    found = factors_of(made, 6)
    assert found.items.shape == (200, 2)
    truth = drawn(300, 200, 40, 2, 0.0)
    predicted = found.predicted(made.user_ids, made.item_ids)
    assert (predicted - truth.ratings).square().mean() < 0.1 * truth.ratings.square().mean()


@pytest.mark.parametrize("each", [3, 30])
def test_noise_has_no_factors(each: int) -> None:
    made = drawn(300, 200, each, 0, 1.0)
    predicted = factors_of(made, 8).predicted(made.user_ids, made.item_ids)
    assert predicted.square().mean() < 1e-6


@pytest.mark.parametrize("factor", [1e-6, 20.0, 1e30])
def test_factors_have_no_unit(factor: float) -> None:
    made = drawn(40, 30, 12, 1, 0.5)
    one, other = (factors_of(replace(made, ratings=made.ratings * by), 3) for by in (1.0, factor))
    ids = made.user_ids, made.item_ids
    assert other.predicted(*ids).tolist() == pytest.approx((factor * one.predicted(*ids)).tolist(), rel=1e-4)
    assert torch.allclose(other.variances(*ids), one.variances(*ids), rtol=1e-4)


def test_ratings_without_errors_have_no_factors() -> None:
    made = drawn(5, 6, 3, 0, 0.0)
    found = factors_of(made, 3)
    assert (found.users.shape, found.items.shape, found.dampings.shape) == ((5, 0), (6, 0), (2, 0))
    assert not found.predicted(made.user_ids, made.item_ids).any()


def ridge(errors: Tensor, g: Tensor, dampings: Tensor) -> list[float]:
    """Solve the normal equations of one user's factors."""
    left = g.numpy().T @ g.numpy() + np.diag(dampings.numpy())
    solved: list[float] = np.linalg.solve(left, g.numpy().T @ errors.numpy()).tolist()
    return solved


def test_factors_of_other_users_solve_the_normal_equations() -> None:
    made = drawn(60, 40, 15, 2, 0.3)
    found, others = factors_of(made, 3), drawn(8, 40, 6, 2, 0.3, seed=2)
    errors = others.ratings.double()
    of_others = found.of_users(errors, others.user_ids, others.item_ids, 9)
    for user in range(8):
        own = others.user_ids == user
        expected = ridge(errors[own], found.items[others.item_ids[own]], found.dampings[0])
        assert of_others.users[user].tolist() == pytest.approx(expected)
    assert not of_others.users[8].any()
    assert torch.equal(of_others.items, found.items)


@pytest.mark.parametrize("with_items", [False, True])
def test_variances_are_those_without_each_rating(with_items: bool) -> None:
    made = drawn(14, 12, 9, 1, 0.3)
    found = factors_of(made, 2)
    assert found.items.shape[1] > 0
    pairs = list(zip(made.user_ids.tolist(), made.item_ids.tolist(), strict=True))
    f, g, dampings = found.users.tolist(), found.items.tolist(), found.dampings.tolist()
    variances = found.variances(made.user_ids, made.item_ids, with_items=with_items).tolist()
    for (i, j), variance in zip(pairs, variances, strict=True):
        expected = 0.0
        for t in range(found.items.shape[1]):
            others = sum(g[k][t] ** 2 for h, k in pairs if h == i and k != j)
            expected += g[j][t] ** 2 / (dampings[0][t] + others)
            if with_items:
                others = sum(f[h][t] ** 2 for h, k in pairs if k == j and h != i)
                expected += f[i][t] ** 2 / (dampings[1][t] + others)
        assert variance == pytest.approx(expected)


def test_the_values_of_ratings_are_what_factors_leave_without_them() -> None:
    """Their mean square is that of errors on a test set, or up to 15 % less; without the variances it is far less."""
    made = drawn(150, 120, 40, 2, 0.8)
    order = torch.randperm(len(made), generator=torch.Generator().manual_seed(3))
    train, test = made.select(order[600:]), made.select(order[:600])
    scale = Scale.of(train, "spread", with_baseline=True, dimensions=4)
    values = scale.targets(train) * scale.spread
    on_test = scale.to_units(test.ratings, test.user_ids, test.item_ids) * scale.spread
    on_train = scale.to_units(train.ratings, train.user_ids, train.item_ids) * scale.spread
    assert 0.85 < values.square().mean() / on_test.square().mean() < 1.05
    assert on_train.square().mean() < 0.8 * on_test.square().mean()


@pytest.mark.parametrize("rows", [(40, 30), (200, 150)])
def test_ratings_without_noise_give_finite_numbers(rows: tuple[int, int]) -> None:
    """Two groups of users and items: ratings are 5 within a group and 1 between groups."""
    users, items = (each.reshape(-1) for each in torch.meshgrid(*map(torch.arange, rows), indexing="ij"))
    made = Interactions(users, items, 1 + 4 * (users % 2 == items % 2).float(), *rows)
    scale = Scale.of(made, "spread", with_baseline=True, dimensions=8)
    assert scale.targets(made).isfinite().all()
    for given in ([5.0], [5.0, 5.0], [5.0, 1.0], [math.nan, math.nan]):
        of_user, values = scale.of_new_user(torch.tensor(given), torch.tensor([4, 6])[: len(given)])
        assert values.isfinite().tolist() == [not math.isnan(each) for each in given]
        stars = of_user.from_units(torch.zeros(2), torch.zeros(2, dtype=torch.int64), torch.tensor([8, 9]))
        assert stars.isfinite().all()
        if given == [5.0, 5.0]:
            assert stars[0] > stars[1] + 1


def test_a_new_user_without_a_rating_has_no_factors() -> None:
    scale = Scale.of(drawn(30, 20, 10, 1, 0.2), "spread", with_baseline=True, dimensions=2)
    assert scale.baseline is not None
    assert scale.baseline.factors.items.any()
    of_user, values = scale.of_new_user(torch.tensor([math.nan]), torch.tensor([3]))
    assert values.isnan().all()
    assert of_user.baseline is not None
    assert not of_user.baseline.factors.users.any()


def test_bits_depend_on_no_number_of_threads() -> None:
    made, before = drawn(900, 400, 60, 2, 0.8), torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        found.append(Scale.of(made, "spread", with_baseline=True, dimensions=4))
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    for other in found[1:]:
        assert other.numbers == found[0].numbers
        assert other.baseline is not None
        assert found[0].baseline is not None
        assert all(map(torch.equal, other.baseline.tables, found[0].baseline.tables))


def with_biases(users: int, items: int, each: int) -> Interactions:
    """Draw ratings from biases and noise, about 1 to 5."""
    made = drawn(users, items, each, 0, 0.7)
    biases = (made.user_ids % 7 - 3) / 6 + (made.item_ids % 5 - 2) / 4
    return replace(made, ratings=3 + biases + made.ratings)


@pytest.mark.parametrize(("number", "value"), [(3, 45.0), (5, 30.0), (60, 99.0)])
def test_outliers_are_no_factors(number: int, value: float) -> None:
    """A few training ratings are typing errors or a code; the others are predicted as by biases alone."""
    train, test = with_biases(150, 120, 40), with_biases(150, 120, 30)
    places = torch.randperm(len(train), generator=torch.Generator().manual_seed(2))[:number]
    train.ratings[places] = value
    errors = []
    for dimensions in (0, 8):
        scale = Scale.of(train, "spread", with_baseline=True, dimensions=dimensions)
        predicted = scale.from_units(torch.zeros(len(test)), test.user_ids, test.item_ids)
        errors.append((predicted - test.ratings).square().mean())
    assert errors[1] < 1.01 * errors[0]


@pytest.mark.parametrize("dimensions", [0, 8])
def test_factors_of_noise_that_differs_between_users_are_left_out(dimensions: int) -> None:
    made = with_biases(300, 200, 40)
    noisy = made.ratings + torch.randn(len(made), generator=torch.Generator().manual_seed(4)) * (made.user_ids % 9) ** 2
    made = replace(made, ratings=noisy)
    biases, found = (Scale.of(made, "spread", True, each) for each in (0, dimensions))
    left, left_by_biases = (each.targets(made).square().mean() for each in (found, biases))
    assert left <= left_by_biases
    assert found.baseline is not None
    assert found.baseline.factors.items.shape[1] == 0 or left < left_by_biases
