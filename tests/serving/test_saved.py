"""Recommenders from a trainer, and from a file."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from test_recommender import ratings, recommender

import recommend
import train
from data import Interactions
from models import MultiTaskNet
from serving.recommender import Recommender
from training import setup
from training.settings import Settings


def trained(settings: Settings, interactions: Interactions) -> Recommender:
    split = setup.split(interactions, settings)
    trainer = setup.make_trainer(settings, split.train, torch.device("cpu"))
    for _ in range(settings.epochs):
        trainer.run_epoch()
    recommender = Recommender.of(trainer, interactions)
    with trainer.as_evaluated():
        pairs = torch.tensor([3, 4]), torch.tensor([5, 6])
        p, score = trainer.model.eval()(*pairs)
    found = recommender.predict([106, 108], [12, 13])
    assert found["p"].tolist() == pytest.approx(p.tolist(), abs=1e-5)
    stars = trainer.scale.from_units(score.detach(), *pairs).clamp(1, 5)
    assert found["stars"].tolist() == pytest.approx(stars.tolist())
    trainer.run_epoch()
    pd.testing.assert_frame_equal(recommender.predict([106, 108], [12, 13]), found)
    return recommender


def test_the_network_after_the_best_epoch_recommends() -> None:
    """Oracle: a run that ends with the best epoch."""
    values = {"embedding_dim": 8, "learning_rate": 0.2, "validation_fraction": 0.2, "watched_items": True}
    split = setup.split(ratings(), Settings(epochs=6, **values))  # type: ignore[arg-type]
    trainer = setup.make_trainer(Settings(epochs=6, **values), split.train)  # type: ignore[arg-type]
    history = train.fit(trainer, split.test, split.validation)
    assert history.best is not None
    assert history.best < 5
    shorter = setup.make_trainer(Settings(epochs=history.best + 1, **values), split.train)  # type: ignore[arg-type]
    train.fit(shorter, split.test)
    found = Recommender.of(trainer, ratings(), history).recommend(n=3)
    pd.testing.assert_frame_equal(found, Recommender.of(shorter, ratings()).recommend(n=3))
    assert not found.equals(Recommender.of(trainer, ratings()).recommend(n=3))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"watched_items": True},
        {"rating_unit": "spread", "shared_embeddings": False},
        {"rating_baseline": True},
        {"rating_baseline": True, "rating_unit": "spread"},
        {"rating_baseline": True, "rating_factors": 3},
    ],
)
def test_a_saved_recommender_answers_alike(values: dict[str, object], tmp_path: Path) -> None:
    one = trained(Settings(epochs=2, embedding_dim=8, **values), ratings())  # type: ignore[arg-type]
    one.save(tmp_path / "mine.pt")
    other = Recommender.load(tmp_path / "mine.pt")
    pd.testing.assert_frame_equal(other.recommend(n=4), one.recommend(n=4))
    pd.testing.assert_frame_equal(other.rated(106), one.rated(106))
    new: dict[int | str, float | None] = {"Title 3": 5.0, "Title 8": 1.0}
    pd.testing.assert_frame_equal(other.recommend_new(new, 4), one.recommend_new(new, 4))


def test_strings_and_a_network_of_ones_own_are_saved(tmp_path: Path) -> None:
    recommender(string_ids=True).save(tmp_path / "mine.pt")
    with pytest.raises(ValueError, match=r"was saved with another network: .* was .*float32 of shape"):
        Recommender.load(tmp_path / "mine.pt")
    again = Recommender.load(tmp_path / "mine.pt", make=lambda users, items: MultiTaskNet(users, items, 8, (24, 16)))
    assert again.recommend(["u03"]).equals(recommender(string_ids=True).recommend(["u03"]))


def test_the_command_answers_from_a_saved_recommender(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one = trained(Settings(epochs=1), ratings())
    one.save(tmp_path / "mine.pt")
    assert recommend.main(["--logdir", str(tmp_path / "mine.pt"), "--user", "106", "--top", "1"]) == 0
    printed = capsys.readouterr()
    assert one.recommend([106], 1)["title"][0] in printed.out
    assert printed.err == ""


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"not a zip"])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"mine\.pt is damaged or no recommender: \w+$"):
        Recommender.load(tmp_path / "mine.pt")


def test_other_files_are_refused(tmp_path: Path) -> None:
    for content in ({"a": 1}, {"format": "recommender 1", "ratings": {}}):
        torch.save(content, tmp_path / "mine.pt")
        with pytest.raises(ValueError, match=r"mine\.pt (holds no recommender|is damaged)"):
            Recommender.load(tmp_path / "mine.pt")


def test_a_trainer_of_other_interactions_is_refused() -> None:
    made = ratings()
    trainer = setup.make_trainer(Settings(embedding_dim=8), made, torch.device("cpu"))
    fewer = replace(made.select(made.item_ids < 5), num_items=5, source_item_ids=torch.arange(5), titles=())
    with pytest.raises(
        ValueError, match="there are 60 users and 5 items: expected those of the training set, 60 and 90"
    ):
        Recommender.of(trainer, fewer)
