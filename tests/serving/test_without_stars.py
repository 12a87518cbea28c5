"""Recommendations where some interactions have no rating, or none has."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import Refused
from test_recommender import TITLES, ratings, recommender

import data
import main
import recommend
from serving.fold_in import Known, NewRows, fold_in
from serving.quartiles import quartiles
from serving.recommender import Recommender
from training.scale import Scale
from training.steps import LossWeights


def unrated(some: bool = False) -> Recommender:
    """Return a recommender of interactions without ratings, or of which ``some`` have a rating; all have times."""
    made = ratings()
    gaps = torch.full((1000,), torch.nan)
    gaps[::2] = made.ratings[::2] if some else torch.nan
    times = torch.arange(1000, dtype=torch.float64) * 7 % 1000
    made = replace(made, ratings=gaps[: len(made)], times=times[: len(made)])
    return Recommender(recommender().model, made, scale=Scale() if some else None)


def test_there_are_no_stars_without_ratings() -> None:
    one = unrated()
    assert list(one.recommend([100], n=3).columns) == ["user", "rank", "item", "title", "p"]
    assert list(one.predict([100], [9]).columns) == ["user", "item", "title", "p"]
    assert list(one.recommend_new(["Title 3", "Title 8"], n=3).columns) == ["rank", "item", "title", "p"]
    assert "stars" in unrated(some=True).recommend([100], n=3)


def test_the_latest_items_stand_for_the_highest_rated() -> None:
    one = unrated()
    frame = one.rated(104, 4)
    assert list(frame.columns) == ["item", "title"]
    assert one.ratings.times is not None
    own = [(one.ratings.times[n].item(), item) for n, item in enumerate(one.ratings.item_ids.tolist())
           if one.ratings.user_ids[n] == 2]  # fmt: skip
    assert frame["item"].tolist() == [item + 7 for _, item in sorted(own, reverse=True)[:4]]


def test_items_without_a_rating_come_after_the_rated_ones() -> None:
    frame = unrated(some=True).rated(104, 90)
    found = frame["rating"].tolist()
    rated = [rating for rating in found if rating == rating]
    assert 0 < len(rated) < len(found)
    assert found[: len(rated)] == sorted(rated, reverse=True)


def test_a_user_without_ratings_watched_the_latest_items(capsys: pytest.CaptureFixture[str]) -> None:
    one = unrated(some=True)
    ratings = one.ratings.ratings.masked_fill(one.ratings.user_ids == 2, torch.nan)
    one = Recommender(one.model, replace(one.ratings, ratings=ratings), scale=Scale())
    for user, heading in (("104", "watched last"), ("106", "rated highest")):
        recommend.show(one, one.recommend([user], 3), argparse.Namespace(user=[user], top=3))
        printed = capsys.readouterr().out
        assert heading in printed
        assert ("rating" in printed) == (user == "106")


def test_only_items_with_a_rating_count_for_the_rating_task() -> None:
    """The loss of both tasks over three items, one of them rated, has its minimum at the embeddings found."""
    one = unrated(some=True)
    network = NewRows(one.scorer)
    items, stars = torch.tensor([3, 8, 11]), torch.tensor([torch.nan, 5.0, torch.nan])
    with_gaps = fold_in(network, Known(items, stars, [3]), LossWeights(0.0, 1.0))
    alone = fold_in(network, Known(items[1:2], stars[1:2], [1]), LossWeights(0.0, 3.0))  # as heavy as three items
    torch.testing.assert_close(with_gaps, alone, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("some", "rated", "says"),
    [
        (False, {"Title 3": 5}, "Title 3 is rated 5: expected no rating, because the network was trained without"),
        (False, ["Title 3", "title 3 (1993)"], "the same item"),
        (False, [9, 9], "the same item"),
        (False, [], "there are no items of the new user"),
        (True, {"Title 3": 6}, "Title 3 is rated 6: expected 1 to 5"),
    ],
)
def test_ratings_that_do_not_fit_the_network_are_refused(some: bool, rated: dict[int | str, float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        unrated(some).recommend_new(rated)


def test_a_rating_may_be_missing_where_interactions_lack_some() -> None:
    frame = unrated(some=True).recommend_new({"Title 3": 5, "Title 8": None}, n=90)
    assert not {TITLES[3], TITLES[8]} & set(frame["title"])
    with pytest.raises(ValueError, match="Title 8 has no rating: expected 1 to 5"):
        recommender().recommend_new({"Title 3": 5, "Title 8": None})


def test_stars_are_in_the_unit_of_the_ratings() -> None:
    """The network predicts in units of a scale that turns its scores of about 0 into about 300."""
    scale, made = Scale(300.0, 40.0), ratings()
    one = Recommender(recommender().model, replace(made, ratings=made.ratings * 100), scale=scale)
    _, score = one.model(torch.tensor([0, 9]), torch.tensor([0, 3]))
    expected = (score.detach() * 40 + 300).clamp(100, 500).tolist()
    assert one.predict([100, 118], [7, 10])["stars"].tolist() == pytest.approx(expected)
    assert one.recommend_new({"Title 3": 500.0, "Title 8": 100.0}, n=3)["stars"].between(100, 500).all()


def test_metrics_by_quarter_are_in_the_unit_of_the_ratings() -> None:
    """Oracle: the MSE of a plain loop over the test ratings of a quarter."""
    scale, one = Scale(300.0, 40.0), unrated(some=True)
    made = replace(one.ratings, ratings=one.ratings.ratings * 100)
    train, test = data.random_train_test_split(made, 0.4, torch.Generator().manual_seed(0))
    frame = quartiles(one.scorer, train, test, scale=scale)
    errors = []
    for user, item, rating in zip(test.user_ids, test.item_ids, test.ratings.tolist(), strict=True):
        stars = one.model(user.reshape(1), item.reshape(1))[1].item() * 40 + 300
        counts = torch.bincount(train.user_ids, minlength=60)
        if rating == rating and int(user) in counts.argsort(stable=True)[:15].tolist():
            errors.append((stars - rating) ** 2)
    assert frame["MSE"][0] == pytest.approx(sum(errors) / len(errors), rel=1e-4)
    without = quartiles(one.scorer, train, test, scale=None)
    assert list(without.columns) == list(frame.columns.drop("MSE"))


def test_a_run_without_ratings_recommends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refused: Refused
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = [f"u{n % 20},film {n * n % 37},{n}" for n in range(400)]
    Path("plays.csv").write_text("\n".join(["user,item,time", *lines]))
    assert main.main(["--ratings", "plays.csv", "--epochs", "1", "--logdir", "run", "--test_fraction", "0.2"]) == 0
    capsys.readouterr()
    assert recommend.main(["--logdir", "run", "--user", "u3", "--top", "2"]) == 0
    printed = capsys.readouterr().out
    assert "watched last" in printed
    assert "stars" not in printed
    assert "rating" not in printed
    assert recommend.main(["--logdir", "run", "--rated", "film 3", "film 9", "--top", "2"]) == 0
    assert capsys.readouterr().out.split("\n")[0].split() == ["rank", "item", "p"]
    assert recommend.main(["--logdir", "run", "--quartiles"]) == 0
    assert "MSE" not in capsys.readouterr().out
    errors = refused("recommend.py", recommend.main, ["--logdir", "run", "--rated", "film 3=5"])
    assert "film 3 is rated 5: expected no rating, because the network was trained without" in errors
    Path("plays.csv").write_text("\n".join(["user,item,time", *lines, "new,film 3,9", "new,film 9,9"]))
    assert recommend.main(["--logdir", "run", "--user", "new", "--top", "2"]) == 0
    changed = capsys.readouterr()
    assert "1 new user is folded in" in changed.err
    assert "stars" not in changed.out
