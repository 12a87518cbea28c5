"""A search for settings with Optuna: its space, its trials, and the study in a log folder.

    with alone(search.logdir):
        study = open_study(search.logdir)
        prepare(study, search, train, validation)
    work(search, 0)

A trial is a training that is scored on the validation set. Several processes can work on a study at the same time. Each
notes every few seconds that it is alive. If one stops doing so, its trial fails, and its settings are tried again.
"""

import contextlib
import functools
import json
import math
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import sqlalchemy
import torch
from optuna import Study, Trial, TrialPruned
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.exceptions import ExperimentalWarning, OptunaError
from optuna.pruners import MedianPruner
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage, RetryHeartbeatStaleTrialCallback, fail_stale_trials
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

import data
from cli import files
from datasets.source import DataSource
from study import trials
from tracking.checkpoint import Run
from train import evaluation_of
from training import setup
from training.settings import Settings

STORAGE = "tune.db"
POINTS = 20  # of a trial's curve: it is scored after each twentieth of its epochs
WARM_UP = 6  # points before a trial can be pruned
HEARTBEAT_SECONDS, GRACE_SECONDS = 3, 30
LOCK_SECONDS = 60  # to wait for another process that writes
MOST_RETRIES = 2  # of settings whose process was killed, perhaps because they need too much memory
WAIT_SECONDS = 1.0  # between two looks at the last trials of other processes
Range = FloatDistribution | IntDistribution
Interruptible = Callable[[], contextlib.AbstractContextManager[object]]
SPACE: dict[str, Range] = {
    "learning_rate": FloatDistribution(1e-3, 3e-2, log=True),
    "weight_decay": FloatDistribution(4.0, 400.0, log=True),
    "regression_weight": FloatDistribution(0.003, 3.0, log=True),
    "embedding_dim": IntDistribution(16, 128, step=16),
    "negatives": IntDistribution(16, 512, log=True),
    "embedding_dropout": FloatDistribution(0.0, 0.6),
    "dropout": FloatDistribution(0.0, 0.6),
    "epochs": IntDistribution(20, 100, step=5),
}
LEAST = 1e-12  # of an MRR or MSE whose logarithm is taken


class Unusable(Exception):
    """The exception for settings with which no network can be trained, because it is too large for instance."""


class OutOfTime(Exception):
    """The exception for a trial that still runs when the time is over."""


@dataclass(frozen=True)
class Search:
    """The description of a search for its processes.

    Attributes:
        logdir: the folder of the study.
        source: the ratings.
        preset: the settings that the search starts from, by name.
        fixed: the settings of the split, the evaluation and the seed, by name.
        rates: whether the score depends on ratings.
        trials: the number of trials after which no other one begins.
        until: the end of the time, in seconds since 1970.
        device: the device that trials train on.
    """

    logdir: Path
    source: DataSource
    preset: dict[str, Any]
    fixed: dict[str, Any]
    rates: bool
    trials: int
    until: float
    device: torch.device

    @property
    def space(self) -> dict[str, Range]:
        """The settings that are searched, and their ranges."""
        start, closed = self.settings({}), set()
        if "layer_sizes" in self.preset:
            closed |= {"embedding_dim"}
        if not self.rates or start.regression_weight == 0:
            closed |= {"regression_weight", "dropout"}
        if start.factorization_weight == 0:
            closed |= {"negatives", "embedding_dropout"}
        return {name: each for name, each in SPACE.items() if name not in closed}

    def settings(self, changes: dict[str, Any]) -> Settings:
        """Return the settings of a trial that differs from the preset by these changes."""
        return Settings(**self.preset | changes | self.fixed)

    def score(self, mrr: float, mse: float) -> float:
        """Return log(MRR / MSE), where a percent of the one weighs as much as a percent of the other, or log(MRR)."""
        return math.log(max(mrr, LEAST)) - (math.log(max(mse, LEAST)) if self.rates else 0.0)


def are_rated(train: data.Interactions, validation: data.Interactions) -> bool:
    """Return whether both sets have ratings that differ, so that there is something to predict."""
    return all(len(each.ratings[each.rated].unique()) > 1 for each in (train, validation))


def open_study(logdir: Path) -> Study:
    """Open the study in a log folder, or make it.

    Raises:
        ValueError: its file cannot be used.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.simplefilter("ignore", ExperimentalWarning)
    path = logdir.absolute() / STORAGE
    # In a URL, some characters of the path would have a meaning. The timeout is for the locks of other processes.
    connect = functools.partial(
        sqlite3.connect, path, timeout=LOCK_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        storage = RDBStorage(
            f"sqlite:///{STORAGE}",
            engine_kwargs={"creator": connect},
            heartbeat_interval=HEARTBEAT_SECONDS,
            grace_period=GRACE_SECONDS,
            heartbeat_stale_trial_callback=RetryHeartbeatStaleTrialCallback(MOST_RETRIES),
        )
        # Optuna's SELECT … FOR UPDATE locks nothing in SQLite: without this, two processes may take the same trial.
        sqlalchemy.event.listen(
            storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE")
        )
        return optuna.create_study(
            storage=storage,
            study_name="tune",
            direction="maximize",
            load_if_exists=True,
            pruner=MedianPruner(n_startup_trials=5, n_warmup_steps=WARM_UP, n_min_trials=3),
        )
    except (SQLAlchemyError, OptunaError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} cannot be used: {reason}: move it aside, or give another --logdir") from error


@contextlib.contextmanager
def alone(logdir: Path) -> Iterator[None]:
    """Wait until no other process makes or prepares the study of a log folder, and keep others from it meanwhile."""
    with (logdir / f".{STORAGE}.lock").open("w") as lock:
        while True:
            try:
                files.lock(lock)
                break
            except (BlockingIOError, PermissionError):
                time.sleep(0.1)
        yield


def prepare(study: Study, search: Search, train: data.Interactions, validation: data.Interactions) -> None:
    """Note the settings and ratings of a search in its study, and enqueue the preset as the first trial.

    Raises:
        ValueError: the study is of other settings or ratings.
    """
    run = Run(asdict(search.settings({})), data.fingerprint(train, validation), search.source.name, search.source.own)
    described = json.loads(json.dumps(asdict(run)))
    noted = study.user_attrs.get("run", described)
    if differences := Run(**noted).differences(Run(**described)):
        raise ValueError(
            f"{search.logdir} holds a search with other settings: give another logdir, or the same settings; "
            f"{'; '.join(differences)}"
        )
    study.set_user_attr("run", described)
    if not any("preset" in trial.user_attrs for trial in study.get_trials(deepcopy=False)):
        study.enqueue_trial(
            {name: nearest(each, getattr(search.settings({}), name)) for name, each in search.space.items()},
            user_attrs={"preset": True},
        )


def ended(study: Study) -> list[FrozenTrial]:
    """Return the trials that ended with a score or were pruned, in the order in which they began."""
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))


def fail_killed_trials(study: Study) -> None:
    """Mark the trials of processes that were killed as failed, and enqueue their settings again."""
    fail_stale_trials(study)
    # Optuna passes over a trial whose process was killed before it noted for the first time that it is alive.
    latest = datetime.now() - timedelta(seconds=GRACE_SECONDS)
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if "changes" not in trial.user_attrs and trial.datetime_start is not None and trial.datetime_start < latest:
            with contextlib.suppress(ValueError):  # another process has marked it
                study.tell(trial.number, state=TrialState.FAIL)
                RetryHeartbeatStaleTrialCallback(MOST_RETRIES)(study, trial)


def nearest(range: Range, value: float) -> float:
    """Return the value of a range that is nearest to another value."""
    within = min(max(value, range.low), range.high)
    return within if range.step is None else range.low + range.step * round((within - range.low) / range.step)


def work(search: Search, worker: int, interruptible: Interruptible = contextlib.nullcontext) -> None:
    """Run one trial after the other until there are enough, or the time is over.

    Where as many trials as needed are running in other processes, wait until they have ended, because one may fail.

    Args:
        worker: a number that no other process of the command has; the settings that are drawn depend on it.
        interruptible: makes a context in which a signal may raise KeyboardInterrupt, and outside of which it must not,
            so that no trial is left running in the study.

    Raises:
        KeyboardInterrupt: a signal asked the process to end. The settings of its trial are enqueued again.
    """
    study = open_study(search.logdir)
    with interruptible():
        objective = Objective(search, interruptible)
    while time.time() < search.until and len(ended(study)) < search.trials:
        fail_killed_trials(study)
        running = study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        if len(ended(study)) + len(running) >= search.trials:
            with interruptible():
                time.sleep(WAIT_SECONDS)
            continue
        # A search that is resumed, or continued by another process, must not draw the same settings again.
        drawn = np.random.SeedSequence((search.fixed["seed"], worker, len(study.get_trials(deepcopy=False))))
        study.sampler = TPESampler(seed=int(drawn.generate_state(1)[0]), multivariate=True, constant_liar=True)
        try:
            study.optimize(objective, n_trials=1, catch=(OutOfTime,))
        except ValueError as error:
            if "Cannot tell" not in str(error):
                raise
            continue  # this process was asleep, and another one has enqueued the settings of its trial again


class Objective:
    """The score of a trial on the validation set. It drops the test set when the ratings have been split."""

    def __init__(self, search: Search, interruptible: Interruptible = contextlib.nullcontext) -> None:
        self.search, self.interruptible = search, interruptible
        self.train, validation, _ = setup.split(trials.read(search.source), search.settings({}))
        assert validation is not None
        self.validation = validation

    def __call__(self, trial: Trial) -> float:
        """Train with the settings of a trial, and return its score.

        Raises:
            TrialPruned: its curve is below the median of earlier ones, or no network can be trained with its settings.
            OutOfTime, KeyboardInterrupt: the trial has no score. Its settings are enqueued again.
        """
        # "changes" is a sign of a heartbeat for ``fail_killed_trials``, and that of Optuna's thread may come later.
        trial.storage.record_heartbeat(trial._trial_id)  # type: ignore[attr-defined]
        drawn = {name: _draw(trial, name, each) for name, each in self.search.space.items()}
        changes = {} if "preset" in trial.user_attrs else drawn | {"optimizer": "adam"}
        trial.set_user_attr("changes", changes)
        try:
            with self.interruptible():
                return self._train(trial, self.search.settings(changes))
        except (FloatingPointError, Unusable, torch.OutOfMemoryError) as error:
            trial.set_user_attr("reason", str(error))
            raise TrialPruned from error  # TPE avoids the settings of pruned trials, and ignores those of failed ones
        except (OutOfTime, KeyboardInterrupt):
            RetryHeartbeatStaleTrialCallback()(trial.study, trial.study.get_trials()[trial.number])
            raise

    def _train(self, trial: Trial, settings: Settings) -> float:
        try:
            trainer = setup.make_trainer(settings, self.train, self.search.device)
        except ValueError as error:
            raise Unusable(str(error)) from error
        evaluation = evaluation_of(trainer, self.validation)
        score = -math.inf
        for epoch in range(settings.epochs):
            if time.time() > self.search.until:
                raise OutOfTime
            trainer.run_epoch()
            point = POINTS * (epoch + 1) // settings.epochs
            if point == POINTS * epoch // settings.epochs:
                continue
            with trainer.as_evaluated():
                mrr = evaluation.mrr()
                mse = evaluation.mse() if self.search.rates else math.nan
            score = self.search.score(mrr, mse)
            trial.set_user_attr("validation", {"mrr": mrr, "mse": mse} if self.search.rates else {"mrr": mrr})
            trial.report(score, point)
            if trial.should_prune():
                raise TrialPruned
        return score


def _draw(trial: Trial, name: str, range: Range) -> float:
    """Draw a value from a range, with three digits."""
    if isinstance(range, IntDistribution):
        return trial.suggest_int(name, range.low, range.high, step=range.step, log=range.log)
    return float(f"{trial.suggest_float(name, range.low, range.high, log=range.log):.3g}")
