"""The draws of the search for a preset, and their order."""

import math
from typing import Any

import pytest

from study.search import SPACE, Options, draw, ranked, score_draws, source_of
from study.trials import Scores
from training.settings import Settings, preset


def entry(number: int, source: str, seed: int, mrr: float, mse: float) -> dict[str, Any]:
    return {"draw": number, "source": source, "seed": seed, "dropout": number / 10, "mrr": mrr, "mse": mse}


def test_draws_repeat_and_are_settings_that_training_accepts() -> None:
    assert draw(SPACE, 0) == {}
    for number in range(1, 30):
        changed = draw(SPACE, number)
        assert changed == draw(SPACE, number)
        assert all(changed[name] in values for name, values in SPACE.items())
        Settings(**preset("tuned") | changed)
    assert len({tuple(draw(SPACE, number).values()) for number in range(1, 30)}) == 29


def test_the_score_is_the_geometric_mean_over_data_sets() -> None:
    """Draw 1 gains a fifth on the set with the low MRR, draw 2 gains a tenth on the other, and draw 3 diverged."""
    log = [entry(0, "a", 100, 0.10, 1.0), entry(0, "b", 100, 0.01, 2.0)]
    log += [entry(1, "a", 100, 0.10, 1.0), entry(1, "b", 100, 0.012, 2.0)]
    log += [entry(2, "a", 100, 0.11, 1.0), entry(2, "b", 100, 0.01, 2.0)]
    log += [entry(3, "a", 100, 0.90, 0.1), entry(3, "b", 100, math.nan, math.nan)]
    table = ranked(log)
    assert table.index.tolist() == [1, 2, 0, 3]
    assert table["score"].tolist() == pytest.approx([(0.1 * 0.006) ** 0.5, (0.11 * 0.005) ** 0.5, (5e-4) ** 0.5, 0.0])
    assert table["dropout"].tolist() == [0.1, 0.2, 0.0, 0.3]
    log += [entry(2, source, 101, 0.1, 1.0) for source in "ab"]
    assert ranked(log).index.tolist() == [2]  # scored on most splits


def test_every_draw_is_scored_on_the_validation_set_of_every_data_set(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.csv").write_text("")
    names = ("ml-100k", str(tmp_path / "own.csv"))
    asked: list[tuple[Settings, object]] = []

    def results(_: object, work: dict[Any, Any], jobs: int) -> Any:
        asked.extend(work.values())
        yield from ((key, Scores(0.1, 1.0, 2.0)) for key in work)

    monkeypatch.setattr("study.search.results", results)
    log: list[dict[str, Any]] = []
    score_draws(Options(sources=names, epochs=7, logdir=tmp_path), [0, 4], [100, 101], log)
    assert {(row["draw"], row["source"], row["seed"]) for row in log} == {
        (number, name, seed) for number in (0, 4) for name in names for seed in (100, 101)
    }
    assert len((tmp_path / "search.csv").read_text().splitlines()) == len(log) + 1 == 9
    assert {source for _, source in asked} == {source_of(name, Options().data_dir) for name in names}
    assert {settings.validation_fraction for settings, _ in asked} == {0.05}
    assert {settings.epochs for settings, _ in asked} == {7}
    assert {settings.dropout for settings, _ in asked} == {preset("tuned")["dropout"], draw(SPACE, 4)["dropout"]}
