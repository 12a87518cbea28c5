"""Runs with a rating baseline: their metrics and stars compared with plain loops in float64, from main.py on."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import runs
import torch

import data
import main
from data import Interactions
from datasets.source import DataSource
from serving.recommender import Recommender
from tracking import trained
from training import setup

Rating = tuple[int, int, float]
USERS, ITEMS = 19, 31
THEN: list[Rating] = [
    (n % USERS, item, (n % 5 + n % USERS % 3 + item % 3) / 2)
    for n, item in enumerate((n * n + n // USERS) % ITEMS for n in range(420))
]
NEW_USER: list[Rating] = [(40, 3, 4.0), (40, 8, 0.5), (40, 14, 3.5)]
FLAGS = "--epochs 2 --embedding_dim 8 --layer_sizes 24 --batch_size 32 --learning_rate 0.03 --test_fraction 0.2"
UNITS = ["star", "spread"]


def write(path: Path, ratings: list[Rating]) -> None:
    lines = [f"{user},{item},{rating}" for user, item, rating in ratings]
    path.write_text("\n".join(["user,item,rating", *lines]))


def train(logdir: str, unit: str, flags: str = FLAGS) -> None:
    own = ["--rating_baseline", "--rating_unit", unit, "--logdir", logdir]
    assert main.main(["--ratings", "ratings.csv", *flags.split(), *own]) == 0


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write(tmp_path / "ratings.csv", THEN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Biases(NamedTuple):
    """μ, s and the range of training ratings, biases by ID, and products of factors by pair."""

    mean: float
    spread: float
    lowest: float
    highest: float
    users: dict[int, float]
    items: dict[int, float]
    products: dict[tuple[int, int], float]

    def stars(self, user: int, item: int, score: float) -> float:
        expected = self.mean + self.users.get(user, 0.0) + self.items.get(item, 0.0) + self.spread * score
        expected += self.products.get((user, item), 0.0)
        return min(self.highest, max(self.lowest, expected))


def biases_of(ratings: list[Rating], like: Recommender, mean: float | None = None) -> Biases:
    """Solve the normal equations of ratings' biases with a recommender's dampings and s, and its μ if none is given."""
    assert like.scale is not None
    assert like.scale.baseline is not None
    dampings = like.scale.baseline.dampings
    stars = [rating for _, _, rating in ratings]
    mean = sum(stars) / len(stars) if mean is None else mean
    ids = list({each for each, _, _ in ratings})
    ones = np.zeros((len(ratings), len(ids) + ITEMS))
    for row, (user, item, _) in enumerate(ratings):
        ones[row, ids.index(user)] = ones[row, len(ids) + item] = 1
    penalty = np.diag([dampings.users] * len(ids) + [dampings.items] * ITEMS)
    found = np.linalg.solve(ones.T @ ones + penalty, ones.T @ (np.array(stars) - mean)).tolist()
    users, items = dict(zip(ids, found, strict=False)), dict(enumerate(found[len(ids) :]))
    return Biases(mean, like.scale.spread, min(stars), max(stars), users, items, {})


def listed(part: Interactions) -> list[Rating]:
    users, items = torch.as_tensor(part.source_user_ids), torch.as_tensor(part.source_item_ids)
    ids = users[part.user_ids].tolist(), items[part.item_ids].tolist()
    return list(zip(*ids, part.ratings.tolist(), strict=True))


def scores_of(run: str, pairs: list[Rating]) -> list[float]:
    """Compute the network's own output for pairs of IDs."""
    found = trained.read(Path(run))
    users, items = torch.as_tensor(found.data.user_ids).tolist(), torch.as_tensor(found.data.item_ids).tolist()
    network = found.network(len(users), len(items)).eval()
    rows = torch.tensor([users.index(user) for user, _, _ in pairs])
    score: torch.Tensor = network(rows, torch.tensor([items.index(item) for _, item, _ in pairs]))[1]
    return score.double().tolist()


@pytest.mark.parametrize("unit", UNITS)
def test_metrics_and_stars_are_those_of_a_plain_loop(unit: str, home: Path) -> None:
    train("run", unit)
    split = setup.split(data.read(DataSource(ratings=Path("ratings.csv"))), trained.read(Path("run")).settings)
    test, one = listed(split.test), Recommender.load("run")
    biases = biases_of(listed(split.train), one)
    deviations = [(rating - biases.mean) ** 2 for _, _, rating in listed(split.train)]
    spread = (sum(deviations) / len(deviations)) ** 0.5 if unit == "spread" else 1.0
    assert biases.spread == pytest.approx(spread)
    scores = zip(test, scores_of("run", test), strict=True)
    stars = [biases.stars(user, item, score) for (user, item, _), score in scores]
    squares = [(each - rating) ** 2 for each, (_, _, rating) in zip(stars, test, strict=True)]
    mse = sum(squares) / len(squares)
    assert json.loads(Path("run/result.json").read_text())["test_mse"] == pytest.approx(mse, rel=1e-5)
    users, items = [user for user, _, _ in test], [item for _, item, _ in test]
    assert one.predict(users, items)["stars"].tolist() == pytest.approx(stars, abs=1e-5)
    for of in ("users", "items"):
        quarters = one.quartiles().query(f"of == '{of}'")
        assert (quarters["MSE"] * quarters["test_ratings"]).sum() / len(test) == pytest.approx(mse, rel=1e-5)
    first = one.recommend([3], 4)
    again = one.predict([3] * len(first), first["item"].tolist())
    assert first["stars"].tolist() == pytest.approx(again["stars"].tolist(), abs=1e-5)
    assert first["stars"].nunique() > 1


def test_a_resumed_run_is_bit_identical(home: Path) -> None:
    for logdir, epochs in (("whole", 4), ("part", 2), ("part", 4)):
        train(logdir, "spread", FLAGS.replace("--epochs 2", f"--epochs {epochs}"))
    assert runs.same_result(Path("whole"), Path("part"))


@pytest.mark.parametrize("unit", UNITS)
def test_biases_follow_ratings_that_have_changed(unit: str, home: Path) -> None:
    """The mean, the spread and the dampings are the run's."""
    train("run", unit)
    before = Recommender.load("run")
    assert before.scale is not None
    now = [*[each for each in THEN if each[0] != 5], *NEW_USER, (2, 77, 4.0)]
    write(home / "ratings.csv", now)
    kept = list({(user, item): (user, item, rating) for user, item, rating in now if item < ITEMS}.values())
    one = Recommender.load("run")
    biases = biases_of(kept, before, before.scale.mean)
    pairs = [(2, 9, 0.0), (5, 3, 0.0), (7, 30, 0.0)]
    scores = zip(pairs, scores_of("run", pairs), strict=True)
    expected = [biases.stars(user, item, score) for (user, item, _), score in scores]
    assert one.predict([2, 5, 7], [9, 3, 30])["stars"].tolist() == pytest.approx(expected, abs=1e-5)
    item_ids = torch.tensor([item for _, item, _ in NEW_USER])
    residuals = one.new_users._values[one.ratings.user_ids == one.user(40)]
    assert before.scale.baseline is not None
    dampings = before.scale.baseline.dampings
    for residual, (user, item, rating) in zip(residuals.tolist(), NEW_USER, strict=True):
        error = rating - biases.mean - biases.users[user] - biases.items[item]
        others = sum(each == item for _, each, _ in kept) - 1
        expected_value = error * (1 + 1 / (dampings.users + 2) + 1 / (dampings.items + others)) / biases.spread
        assert residual == pytest.approx(expected_value, abs=1e-5)
    rows = one.new_users.embeddings(item_ids, residuals, [3])
    p, score = one.new_users.network.pairs(rows, torch.zeros(1, dtype=torch.int64), torch.tensor([20]))
    found = one.predict([40], [20])
    assert found["p"][0] == pytest.approx(p.item(), abs=1e-5)
    assert found["stars"][0] == pytest.approx(biases.stars(40, 20, score.item()), abs=1e-5)


def test_biases_of_the_run_stay_if_its_ratings_are_gone(home: Path) -> None:
    train("run", "star")
    before = Recommender.load("run").predict([2, 7, 11], [9, 3, 30])
    lines = [f"{user},{item}," for user, item, _ in [*THEN, (1_000, 3, 0.0), (-4, 3, 0.0)]]
    (home / "ratings.csv").write_text("\n".join(["user,item,rating", *lines]))
    now = Recommender.load("run")
    assert "its ratings are gone" in now.changes
    pd.testing.assert_frame_equal(now.predict([2, 7, 11], [9, 3, 30]), before, atol=1e-5)


@pytest.mark.parametrize("unit", UNITS)
def test_stars_of_a_new_user_have_a_bias(unit: str, home: Path) -> None:
    train("run", unit)
    one = Recommender.load("run")
    split = setup.split(data.read(DataSource(ratings=Path("ratings.csv"))), one.settings)
    biases = biases_of(listed(split.train), one)
    rest = [rating - biases.mean - biases.items[item] for _, item, rating in NEW_USER]
    assert one.scale is not None
    assert one.scale.baseline is not None
    damping = one.scale.baseline.dampings.users
    own = sum(rest) / (damping + 3)
    values = [(each - (sum(rest) - each) / (damping + 2)) / biases.spread for each in rest]
    found = one.recommend_new({item: rating for _, item, rating in NEW_USER}, n=ITEMS)
    rows = one.new_users.embeddings(torch.tensor([3, 8, 14]), torch.tensor(values), [3])
    items = torch.tensor([one.item(item) for item in found["item"].tolist()])
    p, scores = one.new_users.network.pairs(rows, torch.zeros_like(items), items)
    assert found["p"].tolist() == pytest.approx(p.tolist(), abs=1e-4)
    biases.users[40] = own
    stars = [biases.stars(40, item, score) for item, score in zip(found["item"], scores.tolist(), strict=True)]
    assert found["stars"].tolist() == pytest.approx(stars, abs=1e-4)


def test_a_warm_start_predicts_alike(home: Path) -> None:
    """The ratings are the same, so the biases are, and the last layer changes with the unit."""
    train("run", "star")
    before = Recommender.load("run").predict([3, 4, 6], [1, 2, 3])
    own = "--rating_baseline --rating_unit spread --epochs 1 --learning_rate 1e-9 --test_fraction 0.2"
    assert main.main(["--warm_start", "run", "--logdir", "next", *own.split()]) == 0
    pd.testing.assert_frame_equal(Recommender.load("next").predict([3, 4, 6], [1, 2, 3]), before, atol=1e-4)


CROSSED: list[Rating] = [
    (user, item, 2 + (-1) ** (user + item) + (7 * user + 3 * item) % 5 / 4)
    for user in range(USERS)
    for item in range(ITEMS)
    if (3 * user + item) % 7 > 0
]
FACTORS = FLAGS + " --rating_factors 3"


def products_of(ratings: list[Rating], biases: Biases, like: Recommender) -> dict[tuple[int, int], float]:
    """Solve the normal equations of users' factors, with a recommender's dampings and factors of items."""
    assert like.scale is not None
    assert like.scale.baseline is not None
    factors = like.scale.baseline.factors
    of_items = {item: factors.items[like.item(item)].numpy() for item in range(ITEMS)}
    found: dict[tuple[int, int], float] = {}
    for user in {user for user, _, _ in ratings}:
        own = [(item, rating) for each, item, rating in ratings if each == user]
        rows = np.array([of_items[item] for item, _ in own])
        errors = np.array([rating - biases.mean - biases.users[user] - biases.items[item] for item, rating in own])
        f = np.linalg.solve(rows.T @ rows + np.diag(factors.dampings[0].numpy()), rows.T @ errors)
        found |= {(user, item): float(f @ g) for item, g in of_items.items()}
    return found


def test_stars_contain_the_products_of_factors(home: Path) -> None:
    """The factors themselves have a test of their own, tests/training/test_factors.py."""
    write(home / "ratings.csv", CROSSED)
    train("run", "spread", FACTORS)
    split = setup.split(data.read(DataSource(ratings=Path("ratings.csv"))), trained.read(Path("run")).settings)
    test, one = listed(split.test), Recommender.load("run")
    assert one.scale is not None
    assert one.scale.baseline is not None
    f, g, _ = one.scale.baseline.factors
    products = {(user, item): float(f[one.user(user)] @ g[one.item(item)]) for user, item, _ in test}
    assert max(products.values()) > 0.7
    biases = biases_of(listed(split.train), one)._replace(products=products)
    scores = zip(test, scores_of("run", test), strict=True)
    stars = [biases.stars(user, item, score) for (user, item, _), score in scores]
    mse = sum((each - rating) ** 2 for each, (_, _, rating) in zip(stars, test, strict=True)) / len(test)
    assert json.loads(Path("run/result.json").read_text())["test_mse"] == pytest.approx(mse, rel=1e-5)
    found = one.predict([user for user, _, _ in test], [item for _, item, _ in test])
    assert found["stars"].tolist() == pytest.approx(stars, abs=1e-5)


def test_factors_of_users_follow_ratings_that_have_changed(home: Path) -> None:
    write(home / "ratings.csv", CROSSED)
    train("run", "spread", FACTORS)
    before = Recommender.load("run")
    assert before.scale is not None
    now = [*[each for each in CROSSED if each[0] != 5], *NEW_USER]
    write(home / "ratings.csv", now)
    kept = list({(user, item): (user, item, rating) for user, item, rating in now}.values())
    biases = biases_of(kept, before, before.scale.mean)
    biases = biases._replace(products=products_of(kept, biases, before))
    pairs = [(2, 9, 0.0), (7, 30, 0.0)]
    scores = zip(pairs, scores_of("run", pairs), strict=True)
    expected = [biases.stars(user, item, score) for (user, item, _), score in scores]
    assert Recommender.load("run").predict([2, 7], [9, 30])["stars"].tolist() == pytest.approx(expected, abs=1e-5)


def test_factors_of_the_run_stay_if_its_ratings_are_gone(home: Path) -> None:
    write(home / "ratings.csv", CROSSED)
    train("run", "star", FACTORS)
    before = Recommender.load("run").predict([2, 7, 11], [9, 3, 30])
    lines = [f"{user},{item}," for user, item, _ in [*CROSSED, (1_000, 3, 0.0)]]
    (home / "ratings.csv").write_text("\n".join(["user,item,rating", *lines]))
    pd.testing.assert_frame_equal(Recommender.load("run").predict([2, 7, 11], [9, 3, 30]), before, atol=1e-5)


def test_stars_of_a_new_user_have_factors(home: Path) -> None:
    write(home / "ratings.csv", CROSSED)
    train("run", "spread", FACTORS)
    one = Recommender.load("run")
    split = setup.split(data.read(DataSource(ratings=Path("ratings.csv"))), one.settings)
    own: list[Rating] = [(40, item, 2.0 + (-1) ** item) for item in (3, 8, 14, 21)]
    biases = biases_of(listed(split.train), one)
    assert one.scale is not None
    assert one.scale.baseline is not None
    rest = [rating - biases.mean - biases.items[item] for _, item, rating in own]
    biases.users[40] = sum(rest) / (one.scale.baseline.dampings.users + len(own))
    biases = biases._replace(products=products_of(own, biases, one))
    assert max(biases.products.values()) > 0.3
    given = torch.tensor([rating for _, _, rating in own])
    of_user, values = one.scale.of_new_user(given, torch.tensor([one.item(item) for _, item, _ in own]))
    found = one.recommend_new({item: rating for _, item, rating in own}, n=ITEMS)
    rows = one.new_users.embeddings(torch.tensor([one.item(item) for _, item, _ in own]), values, [len(own)])
    items = torch.tensor([one.item(item) for item in found["item"].tolist()])
    _, scores = one.new_users.network.pairs(rows, torch.zeros_like(items), items)
    stars = [biases.stars(40, item, score) for item, score in zip(found["item"], scores.tolist(), strict=True)]
    assert found["stars"].tolist() == pytest.approx(stars, abs=1e-4)
    errors = [rating - biases.stars(40, item, 0.0) for _, item, rating in own]
    assert of_user.baseline is not None
    variances = of_user.baseline.factors.variances(
        torch.zeros(4, dtype=torch.int64), torch.tensor([one.item(item) for _, item, _ in own]), with_items=False
    )
    of_bias = 1 / (one.scale.baseline.dampings.users + len(own) - 1)
    expected = [e * (1 + of_bias + v) / biases.spread for e, v in zip(errors, variances.tolist(), strict=True)]
    assert values.tolist() == pytest.approx(expected, abs=1e-4)


def test_factors_without_a_baseline_are_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["--ratings", "ratings.csv", *FACTORS.split(), "--logdir", "run"]) == 0
    assert "rating_factors 3 changes nothing without rating_baseline" in capsys.readouterr().err
