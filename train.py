"""The training loop: epochs, their evaluation, and their record for TensorBoard.

    train_set, test_set = data.random_train_test_split(data.load("data"))
    network = MultiTaskNet(train_set.num_users, train_set.num_items)
    history = fit(Trainer(network, train_set, Settings(epochs=20)), test_set)

One step takes a batch of observed (user, item, rating) triples and, for each, one item drawn uniformly from all items.
It minimizes

    L = λ_F · L_F + λ_R · L_R,    L_F = mean(1 − σ(p⁺ − p⁻)),    L_R = mean((r̂ − r)²)      (equations 3 and 5)

with Adam. The negative items have no rating, so the MLP's output for them is not used. ``training/trainer.py`` runs an
epoch, ``training/steps.py`` defines the step.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from operator import attrgetter

from torch import Tensor

from data import Interactions
from metrics import RankingScores
from tracking.metric_table import METRICS, EpochMetrics, History, When, check_metrics
from tracking.record import Record
from training.evaluation import Evaluation
from training.setup import resources_for
from training.trainer import Losses, Trainer

__all__ = ["Losses", "Trainer", "evaluation_of", "fit", "recommending"]


@dataclass(frozen=True)
class Epoch:
    """The input of an epoch's metrics.

    Attributes:
        trainer: with its network. Of several processes, each has rows for its own users alone.
        evaluation: on the test set, or for validation metrics on the validation set. Of several processes, each has its
            users' interactions, with the IDs of all users; ``evaluation.scorer`` takes these IDs.
        losses: means over the epoch; None for all metrics but those of ``when="epoch"``.
    """

    trainer: Trainer
    evaluation: Evaluation
    losses: Losses | None = None

    @cached_property
    def rankings(self) -> dict[int, RankingScores]:
        """The scores of one ranking of all items for each k of the settings."""
        return self.evaluation.rankings(self.trainer.settings.topk)


def _at_each_k(name: str, epoch: Epoch) -> dict[int, float]:
    """Return a metric of the ranking for each k."""
    return {k: getattr(scores, name) for k, scores in epoch.rankings.items()}


# The computation of each metric, by its name in tracking/metric_table.py; of one with a value for each k, by k.
MEASURES: dict[str, Callable[[Epoch], float | Mapping[int, float]]] = {
    **{name: attrgetter(f"losses.{name}") for name in Losses._fields},
    "test_mrr": lambda epoch: epoch.evaluation.mrr(),
    "test_mse": lambda epoch: epoch.evaluation.mse(),
    "validation_mrr": lambda epoch: epoch.evaluation.mrr(),
    "validation_mse": lambda epoch: epoch.evaluation.mse(),
    "test_rmse": lambda epoch: math.sqrt(epoch.evaluation.mse()),
    "test_mae": lambda epoch: epoch.evaluation.mae(),
    **{name: partial(_at_each_k, name) for name in RankingScores._fields},
}


def fit(
    trainer: Trainer,
    test: Evaluation | Interactions,
    validation: Evaluation | Interactions | None = None,
    *,
    history: Sequence[EpochMetrics] = (),
    record: Record | None = None,
    on_epoch: Callable[[int, EpochMetrics], bool | None] | None = None,
) -> History:
    """Train for the epochs of the trainer's settings, and evaluate and record each epoch.

    Args:
        trainer: the network in training, with its data.
        test: the test set, with at least one interaction, or its evaluation (by default ``evaluation_of``).
        validation: the same for a validation set, which chooses the best epoch; see ``EpochMetrics.selection_key``.
        history: the metrics of the trainer's epochs so far, as ``fit`` returned them or as its record has them.
        record: the record to write; by default nothing is written.
        on_epoch: called after each epoch with its number, from 0, and its metrics; training stops if it returns True.

    Returns:
        The metrics of each epoch, including ``history``, and of the end. Those of the end are of the network that
        recommends: after the best epoch, or after the last without a validation set. The trainer has the network after
        the last epoch.

    Raises:
        TypeError: a set is neither interactions nor an evaluation.
        ValueError: a metric is incomplete, see ``tracking.metric_table.check_metrics``; neither the history nor a
            record has the state after the best epoch so far; the settings have patience, and there is no validation
            set; or the learning rate has fallen to 0.
        FloatingPointError: a loss or a metric is not finite.
        Stopped: a signal asked the process to end; see ``cli.signals.stoppable``.
        LostProcess: another process exited or cannot be reached.
        OSError: a file of the record cannot be written.
    """
    check_metrics(MEASURES)
    test = _evaluation("test", trainer, test)
    validation = None if validation is None else _evaluation("validation", trainer, validation)
    ratings_are_equal = len(set(trainer.rating_range)) < 2  # so that an MSE says nothing about a network
    done = History(history, ratings_are_equal)
    record = record or Record(_best_so_far(trainer, done, history))
    epochs, patience = trainer.settings.epochs, trainer.settings.patience
    if patience > 0 and validation is None:
        raise ValueError(f"patience is {patience}, which needs a validation set: expected one, or patience 0")
    _try_metrics(trainer, test.test)
    with resources_for(trainer.model, trainer.batch_size), record:
        for epoch in range(len(done), epochs):
            epochs_without_better = 0 if done.best is None else epoch - 1 - done.best
            if 0 < patience <= epochs_without_better:
                break
            losses = trainer.run_epoch()
            scores = _evaluate(trainer, test, validation) if test.is_due(epoch, epochs) else {}
            metrics = EpochMetrics(**_measure(Epoch(trainer, test, losses), "epoch"), **scores)
            done.add(metrics)
            record.add(metrics, trainer.state(), is_best=done.best == epoch)
            if on_epoch is not None and trainer.group.from_first(bool(on_epoch(epoch, metrics))):
                break
        if done.recommending < len(done) - 1:
            done.best_state = record.best_state() if trainer.group.rank == 0 else {}  # the first hands it out
        with recommending(trainer, done):  # in every process, because the processes compute metrics together
            closing = _measure(Epoch(trainer, test), "end")
            done.closing = _test_metrics(trainer, test, done[done.recommending]) | closing
            record.add_network(trainer.model)
        record.close(closing)
    done.trained = trainer.epoch
    return done


def _evaluation(name: str, trainer: Trainer, given: Evaluation | Interactions) -> Evaluation:
    """Return the evaluation on a set that is given as itself or as its interactions."""
    if isinstance(given, Interactions):
        return evaluation_of(trainer, given)
    if not isinstance(given, Evaluation):
        raise TypeError(
            f"{name} is {given!r}: expected Interactions or an Evaluation; the number of epochs is a setting of the "
            "trainer, as in Trainer(network, train_set, Settings(epochs=20))"
        )
    return given


def _best_so_far(trainer: Trainer, done: History, given: Sequence[EpochMetrics]) -> dict[str, Tensor] | None:
    """Return the state after the best epoch of a history that has no record; None for no such epoch."""
    if done.best is None:
        return None
    if done.best == len(done) - 1:
        return {name: tensor.clone() for name, tensor in trainer.state().items()}
    state = given.best_state if isinstance(given, History) else None
    if state is None:
        raise ValueError(f"history lacks the state after its best epoch, {done.best}: expected one that fit returned")
    return state


@contextmanager
def recommending(trainer: Trainer, history: History) -> Iterator[None]:
    """Give the trainer's network the parameters that recommend: those evaluated after the best epoch, or the last."""
    if history.recommending == len(history) - 1:
        with trainer.as_evaluated():
            yield
        return
    state = history.best_state
    if state is None:
        raise ValueError(f"the record lacks the state after the best epoch, {history.best}: give the run's own record")
    last, epochs = {name: tensor.clone() for name, tensor in trainer.state().items()}, trainer.epoch
    try:
        trainer.load_state(state, history.recommending + 1, device="")  # the generators' states are not needed
        with trainer.as_evaluated():
            yield
    finally:
        trainer.load_state(last, epochs, trainer.device.type)


def evaluation_of(trainer: Trainer, test: Interactions) -> Evaluation:
    """Make the evaluation on a test set from the trainer's settings."""
    settings = trainer.settings
    return Evaluation(
        trainer.scorer,
        trainer.train,
        test.to(trainer.device),
        users=settings.eval_users,
        every=settings.eval_every,
        seed=settings.seeds.training,
        division=trainer.division,
        scale=trainer.scale,
    )


def _measure(epoch: Epoch, *when: When) -> dict[str, float]:
    """Compute the metrics that are due at these moments, by name, those with a value for each k as ``recall@10``.

    Metrics of ratings are left out where there are none.
    """
    measured: dict[str, float] = {}
    for name, metric in METRICS.items():
        if metric.when not in when or (metric.of_ratings and not epoch.evaluation.rates and metric.when != "epoch"):
            continue
        value = MEASURES[name](epoch)
        if isinstance(value, Mapping):
            measured |= {f"{name}@{k}": float(each) for k, each in value.items()}
        else:
            measured[name] = float(value)
    return measured


def _test_metrics(trainer: Trainer, test: Evaluation, metrics: EpochMetrics) -> dict[str, float]:
    """Return the test metrics of an epoch by name; they are computed if the epoch was not evaluated."""
    if math.isnan(metrics.test_mrr):
        return _measure(Epoch(trainer, test), "test")
    known = {name: getattr(metrics, name) for name, metric in METRICS.items() if metric.when == "test"}
    return {name: value for name, value in known.items() if not math.isnan(value)}


def _try_metrics(trainer: Trainer, test: Interactions) -> None:
    """Compute the metrics of evaluations for a single rating, so that a mistake shows before training."""
    if len(test) == 0:  # in one of several processes, whose users have no test interactions
        return
    first = test.rated.int().argmax().unsqueeze(0)
    one = Evaluation(trainer.scorer, trainer.train, test.select(first))
    _measure(Epoch(trainer, one), "test", "validation", "end")


def _evaluate(trainer: Trainer, test: Evaluation, validation: Evaluation | None) -> dict[str, float]:
    """Compute the metrics of the test set, and of the validation set if there is one.

    Raises:
        FloatingPointError: a metric of the test set is not finite.
    """
    with trainer.as_evaluated():
        scores = _measure(Epoch(trainer, test), "test")
        selection = _measure(Epoch(trainer, validation), "validation") if validation is not None else {}
    for name, score in scores.items():
        if not math.isfinite(score):
            at = f"epoch {trainer.epoch - 1}: {METRICS[name].tag} is {score} after the last step"
            raise FloatingPointError(f"{at}; {trainer.likely_cause}")
    return scores | selection
