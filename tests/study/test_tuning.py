"""The search for settings: its trials, its study on disk, and its findings."""

import dataclasses
import json
import math
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

import train
from cli.arguments import options_of
from data import read, synthetic
from datasets.source import DataSource
from study import findings, trials, tuning
from study.tuning import Search
from training import setup
from training.settings import Settings, preset
from tune import Options, parse_arguments, set_up

PRESET: dict[str, Any] = {
    "epochs": 2,
    "embedding_dim": 4,
    "batch_size": 64,
    "negatives": 4,
    "dropout": 0.1,
}
SMALL: dict[str, tuning.Range] = {
    "learning_rate": FloatDistribution(1e-3, 3e-2, log=True),
    "embedding_dim": IntDistribution(2, 8, step=2),
    "negatives": IntDistribution(2, 6, log=True),
    "dropout": FloatDistribution(0.0, 0.6),
    "regression_weight": FloatDistribution(1e-4, 0.5, log=True),
}
Found = tuple[Search, optuna.Study]


def write(path: Path, ratings: list[float]) -> None:
    """Write ratings of synthetic users and items; the pairs are always the same."""
    made = synthetic(num_users=40, num_items=60, num_interactions=len(ratings), seed=1)
    pairs = zip(made.user_ids.tolist(), made.item_ids.tolist(), ratings, strict=True)
    path.write_text("user,item,rating\n" + "".join(f"{user},{item},{rating:g}\n" for user, item, rating in pairs))


def stars(seed: int = 0) -> list[float]:
    return [float(rating) for rating in np.random.default_rng(seed).integers(1, 6, 500)]


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Found]:
    """Return a function that sets up a search, as the command does."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuning, "SPACE", SMALL)
    write(Path("mine.csv"), stars())
    Path("preset.json").write_text(json.dumps(PRESET))

    def start(*flags: str) -> Found:
        trials.read.cache_clear()
        given = parse_arguments(["--ratings=mine.csv", "--preset=preset.json", "--trials=2", *flags])
        return set_up(given, options_of(Options, given), options_of(DataSource, given))

    return start


def results(study: optuna.Study) -> list[tuple[str, dict[str, Any], float | None]]:
    return [(trial.state.name, trial.params, trial.value) for trial in study.get_trials()]


def test_the_first_trial_is_the_preset_trained_and_scored_as_usual(begin: Callable[..., Found]) -> None:
    search, study = begin("--trials=1", "--validation_fraction=0.2", "--seed=3")
    tuning.work(search, 0)
    (trial,) = study.get_trials()
    settings = Settings(**PRESET, seed=3, validation_fraction=0.2)
    split = setup.split(read(search.source), settings)
    assert split.validation is not None
    last = train.fit(setup.make_trainer(settings, split.train, torch.device("cpu")), split.validation)[-1]
    assert trial.user_attrs["validation"] == {"mrr": last.test_mrr, "mse": last.test_mse}
    assert trial.value == pytest.approx(math.log(last.test_mrr / last.test_mse))
    assert trial.params == {name: getattr(settings, name) for name in SMALL}


def test_the_test_set_is_not_used(begin: Callable[..., Found]) -> None:
    search, study = begin()
    tuning.work(search, 0)
    ratings = torch.tensor(stars())
    split = setup.split(dataclasses.replace(read(search.source), ratings=torch.arange(500.0)), search.settings({}))
    assert len(split.test) == 25
    ratings[split.test.ratings.long()] = 6 - ratings[split.test.ratings.long()]
    write(Path("mine.csv"), ratings.tolist())
    _, again = begin("--logdir=again")
    assert not torch.equal(read(search.source).ratings, torch.tensor(stars()))
    tuning.work(dataclasses.replace(search, logdir=Path("again")), 0)
    assert results(again) == results(study)
    assert len(results(study)) == 2


@pytest.mark.long
def test_a_search_in_two_parts_has_the_trials_of_a_whole_one(begin: Callable[..., Found]) -> None:
    whole, study = begin("--trials=3")
    tuning.work(whole, 0)
    part, resumed = begin("--trials=1", "--logdir=part")
    tuning.work(part, 0)
    assert results(resumed) == results(study)[:1]
    part, resumed = begin("--trials=3", "--logdir=part")
    tuning.work(part, 0)
    assert results(resumed) == results(study)
    assert len({str(params) for _, params, _ in results(study)}) == 3
    tuning.work(part, 0)
    assert len(results(resumed)) == 3


@pytest.mark.parametrize("flags", [("--seed=1",), ("--validation_fraction=0.2",), ("--test_fraction=0.2",)])
def test_a_study_of_other_settings_is_refused(flags: tuple[str, ...], begin: Callable[..., Found]) -> None:
    begin()
    with pytest.raises(ValueError, match=f"holds a search with other settings: .*; {flags[0][2:].split('=')[0]} was"):
        begin(*flags)


def test_a_study_of_other_ratings_or_a_damaged_one_is_refused(begin: Callable[..., Found]) -> None:
    search, _ = begin()
    write(Path("mine.csv"), stars(seed=1))
    with pytest.raises(ValueError, match="the ratings differ"):
        begin()
    (search.logdir / tuning.STORAGE).write_bytes(b"nonsense" * 1000)
    with pytest.raises(ValueError, match="file is not a database: move it aside, or give another --logdir"):
        begin()


def test_without_ratings_that_differ_the_score_is_the_ranking_alone(begin: Callable[..., Found]) -> None:
    write(Path("mine.csv"), [1.0] * 500)
    search, study = begin()
    tuning.work(search, 0)
    for trial in study.get_trials():
        assert trial.value == pytest.approx(math.log(trial.user_attrs["validation"]["mrr"]))
        assert set(trial.params) == {"learning_rate", "embedding_dim", "negatives"}
    best = findings.best_trial(study)
    assert best is not None
    assert "MSE" not in findings.report(study, search, best)
    assert findings.draw(study, search, best).startswith(b"\x89PNG")


def test_settings_with_a_loss_that_is_not_finite_are_pruned_with_the_reason(
    begin: Callable[..., Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SMALL, "learning_rate", FloatDistribution(1e20, 1e30, log=True))
    search, study = begin()
    tuning.work(search, 0)
    preset, drawn = study.get_trials()
    assert (preset.state, drawn.state) == (TrialState.COMPLETE, TrialState.PRUNED)
    assert "learning_rate" in drawn.user_attrs["reason"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, tuning.OutOfTime])
def test_settings_that_were_interrupted_are_tried_again(
    stop: type[BaseException], begin: Callable[..., Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    search, study = begin("--trials=1")

    def interrupt(*_: object) -> None:
        object.__setattr__(search, "until", 0.0)
        raise stop

    with monkeypatch.context() as patch:
        patch.setattr(tuning, "evaluation_of", interrupt)
        try:
            tuning.work(search, 0)
        except KeyboardInterrupt:
            assert stop is KeyboardInterrupt
    assert [trial.state for trial in study.get_trials()] == [TrialState.FAIL, TrialState.WAITING]
    search, study = begin("--trials=1")
    tuning.work(search, 0)
    failed, again = study.get_trials()
    assert (failed.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert again.params == failed.params
    assert again.user_attrs["preset"]


@pytest.mark.long
@pytest.mark.parametrize("noted", [True, False])
def test_settings_of_a_process_that_was_killed_are_tried_again(
    noted: bool, begin: Callable[..., Found], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was killed after, or before, it noted for the first time that it is alive."""
    monkeypatch.setattr(tuning, "HEARTBEAT_SECONDS", 1)
    monkeypatch.setattr(tuning, "GRACE_SECONDS", 1)
    monkeypatch.setattr(tuning, "WAIT_SECONDS", 0.1)
    search, study = begin("--trials=1")
    search = dataclasses.replace(search, until=time.time() + 30)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the heartbeat of this trial does not come from Optuna's thread
        killed = study.ask()
    if noted:

        def kill(*_: object) -> None:
            raise SystemExit

        with monkeypatch.context() as patch:
            patch.setattr(tuning.Objective, "_train", kill)
            with pytest.raises(SystemExit):
                tuning.Objective(search)(killed)
    tuning.work(search, 0)
    failed, again = study.get_trials()
    assert (failed.state, again.state) == (TrialState.FAIL, TrialState.COMPLETE)
    assert again.user_attrs["preset"]


def test_no_trial_begins_after_the_time(begin: Callable[..., Found]) -> None:
    search, study = begin()
    tuning.work(dataclasses.replace(search, until=time.time()), 0)
    assert [trial.state for trial in study.get_trials()] == [TrialState.WAITING]


def test_a_validation_set_of_the_data_is_used(begin: Callable[..., Found]) -> None:
    lines = Path("mine.csv").read_text().splitlines()
    names = ["split", *(("train", "valid", "train", "test")[n % 4] for n in range(len(lines) - 1))]
    Path("mine.csv").write_text("".join(f"{line},{name}\n" for line, name in zip(lines, names, strict=True)))
    search, _ = begin()
    assert len(tuning.Objective(search).validation) == 125
    with pytest.raises(ValueError, match="the data has a validation set of its own: leave out validation_fraction"):
        begin("--validation_fraction=0.2")
    search, _ = begin("--split=random", "--logdir=again")
    assert len(tuning.Objective(search).validation) == 48  # a tenth of those outside the test set


def test_all_trials_rank_the_same_users(begin: Callable[..., Found]) -> None:
    search, _ = begin("--eval_users=7")
    objective = tuning.Objective(search)
    ranked = []
    for dim in (2, 8):
        trainer = setup.make_trainer(search.settings({"embedding_dim": dim}), objective.train, search.device)
        users = train.evaluation_of(trainer, objective.validation).users
        assert users is not None
        ranked.append(users.tolist())
    assert len(ranked[0]) == 7
    assert ranked[0] == ranked[1]


def test_a_preset_may_close_a_part_of_the_space(begin: Callable[..., Found]) -> None:
    search, _ = begin()
    for closed, missing in (
        ({"regression_weight": 0.0}, {"regression_weight", "dropout"}),
        ({"factorization_weight": 0.0}, {"negatives"}),
        ({"layer_sizes": [12, 8]}, {"embedding_dim"}),
    ):
        assert set(dataclasses.replace(search, preset=PRESET | closed).space) == set(SMALL) - missing


@pytest.mark.parametrize(
    ("range", "value", "nearest"),
    [
        (FloatDistribution(1e-3, 1.0, log=True), 0.0, 1e-3),
        (FloatDistribution(1e-3, 1.0, log=True), 0.3, 0.3),
        (IntDistribution(16, 128, step=16), 50, 48),
        (IntDistribution(20, 100, step=5), 200, 100),
    ],
)
def test_a_preset_outside_a_range_is_noted_at_the_nearest_value(
    range: tuning.Range, value: float, nearest: float
) -> None:
    assert tuning.nearest(range, value) == nearest


def test_the_space_is_around_the_tuned_preset() -> None:
    """The ends of all ranges are settings, and the preset is within them."""
    for name, each in tuning.SPACE.items():
        for end in (each.low, each.high):
            changed: dict[str, Any] = {name: end}
            Settings(**preset("tuned") | changed)
        start = preset("tuned")[name]
        assert tuning.nearest(each, start) == start


def test_the_setting_that_matters_is_the_most_important() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))

    def score(trial: optuna.Trial) -> float:
        return -abs(trial.suggest_float("matters", 0, 1) - 0.3) + 0.01 * trial.suggest_float("does not", 0, 1)

    study.optimize(score, n_trials=findings.FEWEST - 1)
    assert findings.importances(study) == {}
    study.optimize(score, n_trials=40)
    found = findings.importances(study)
    assert found["matters"] > 0.8
    assert sum(found.values()) == pytest.approx(1)
