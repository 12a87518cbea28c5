"""Baselines compared with plain loops."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from data import Interactions, synthetic
from datasets.source import DataSource
from study import ablation, baselines, trials
from study.trials import Scores
from training import setup
from training.settings import Settings

Split = tuple[Interactions, Interactions]


def triples(interactions: Interactions) -> list[tuple[int, int, float]]:
    columns = (interactions.user_ids, interactions.item_ids, interactions.ratings)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_the_baselines_agree_with_plain_loops(split: Split) -> None:
    train, test = split
    mean = sum(rating for _, _, rating in triples(train)) / len(train)
    item_bias, user_bias = {}, {}
    for item in range(train.num_items):
        off = [rating - mean for _, j, rating in triples(train) if j == item]
        item_bias[item] = sum(off) / (25 + len(off))
    for user in range(train.num_users):
        off = [rating - mean - item_bias[j] for i, j, rating in triples(train) if i == user]
        user_bias[user] = sum(off) / (10 + len(off))
    by_mean = [(mean - rating) ** 2 for _, _, rating in triples(test)]
    by_means = [(mean + user_bias[i] + item_bias[j] - rating) ** 2 for i, j, rating in triples(test)]

    counts = [sum(j == item for _, j, _ in triples(train)) for item in range(train.num_items)]
    of_users = []
    for user in sorted({i for i, _, _ in triples(test)}):
        seen = {j for i, j, _ in triples(train) if i == user}
        scores = [-1 if item in seen else count for item, count in enumerate(counts)]
        reciprocal = []
        for item in [j for i, j, _ in triples(test) if i == user]:
            above = sum(score > scores[item] for score in scores)
            ties = sum(score == scores[item] for score in scores)
            reciprocal.append(1 / (above + (ties + 1) / 2))
        of_users.append(sum(reciprocal) / len(reciprocal))

    found = {(each.name, each.metric): each.value for each in baselines.scores(train, test)}
    assert found == {
        ("popularity", "test_mrr"): pytest.approx(sum(of_users) / len(of_users), rel=1e-5),
        ("global mean", "test_mse"): pytest.approx(sum(by_mean) / len(test), rel=1e-6),
        ("user and item means", "test_mse"): pytest.approx(sum(by_means) / len(test), rel=1e-6),
    }


def test_items_and_users_without_training_ratings_get_the_mean_and_the_last_rank() -> None:
    train = Interactions(torch.tensor([0, 0]), torch.tensor([0, 1]), torch.tensor([2.0, 5.0]), 2, 3)
    means = baselines.user_and_item_means(train)
    assert means.predict_ratings(torch.tensor([1]), torch.tensor([2])).tolist() == [3.5]
    assert means.predict_all_items(torch.tensor([0, 1])).tolist() == [[1, 1, 0], [1, 1, 0]]


def test_only_interactions_with_a_rating_count_for_the_means(split: Split) -> None:
    train, test = split
    gaps = torch.arange(len(train)) % 3 == 0
    some = dataclasses.replace(train, ratings=train.ratings.masked_fill(gaps, torch.nan))
    found, rated = baselines.scores(some, test), baselines.scores(train.select(~gaps), test)
    assert [each.value for each in found[1:]] == [each.value for each in rated[1:]]
    assert found[0] == baselines.scores(train, test)[0]
    none = dataclasses.replace(train, ratings=torch.full((len(train),), torch.nan))
    popularity, *errors = baselines.scores(none, test)
    assert popularity == found[0]
    assert all(math.isnan(each.value) for each in errors)


def test_the_means_help_if_users_and_items_differ(movielens: Interactions) -> None:
    """Published results on MovieLens 100K have an RMSE of about 0.94."""
    train, _, test = setup.split(movielens, Settings())
    mrr, mean, means = (each.value for each in baselines.scores(train, test))
    assert means**0.5 == pytest.approx(0.94, abs=0.02)
    assert mean > 1.3 * means
    assert 0.04 < mrr < 0.07


def test_ease_solves_its_problem_column_by_column() -> None:
    """The weights of each item minimize ‖x_j − X b‖² + λ‖b‖² with b_j = 0: a ridge regression without the item."""
    made = synthetic(num_users=40, num_items=12, num_interactions=110, seed=4)
    X = np.zeros((40, 12))
    X[made.user_ids, made.item_ids] = 1
    found = baselines.ease(made, penalty=3.0)
    for item in range(12):
        others = [k for k in range(12) if k != item]
        A = X[:, others]
        weights = np.linalg.solve(A.T @ A + 3.0 * np.eye(11), A.T @ X[:, item])
        np.testing.assert_allclose(found.weights[others, item].numpy(), weights, atol=1e-5)
        assert found.weights[item, item] == 0
    np.testing.assert_allclose(found.predict_all_items(torch.arange(40)).numpy(), X @ found.weights.numpy(), atol=1e-5)


def test_the_memory_of_ease_is_that_of_its_matrices() -> None:
    made = synthetic(num_users=3000, num_items=1000, num_interactions=2000, seed=4)
    fitted = baselines.ease(made)
    kept = fitted.rated.nbytes + fitted.weights.nbytes
    assert kept < baselines.ease_bytes(made) < 10 * kept


def test_ratings_too_many_for_ease_leave_it_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.csv").write_text("user,item,rating\n" + "".join(f"{n % 9},{n % 11},3\n" for n in range(99)))
    scores = Scores(0.1, 1.0, 2.0)
    monkeypatch.setattr(trials, "results", lambda _, work, __: (each for each in [(key, scores) for key in work]))
    monkeypatch.setattr(ablation, "LARGEST_EASE", 1000)
    source = DataSource(ratings=tmp_path / "mine.csv", data_dir=tmp_path)
    split = {"split": "user", "test_fraction": 0.2, "folds": 0}
    tables = ablation.make_tables(ablation.Options(seeds=2), source, split)
    assert ablation.EASE not in tables
    assert f"{ablation.EASE} is left out: it needs 0 GiB" in capsys.readouterr().err
    monkeypatch.setattr(ablation, "LARGEST_EASE", 10**6)
    assert ablation.EASE in ablation.make_tables(ablation.Options(seeds=2), source, split)
