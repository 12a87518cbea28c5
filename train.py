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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from operator import attrgetter

import torch

from data import Interactions
from metrics import RankingScores
from tracking.metric_table import METRICS, EpochMetrics, When, best_epoch, check_metrics
from tracking.record import Record
from training.evaluation import Evaluation
from training.setup import threads_for
from training.trainer import Losses, Trainer

__all__ = ["Losses", "Trainer", "evaluation_of", "fit"]


@dataclass(frozen=True)
class Epoch:
    """The input of an epoch's metrics.

    Attributes:
        evaluation: on the test set, or for validation metrics on the validation set.
        losses: means over the epoch; None for all metrics but those of ``when="epoch"``.
    """

    trainer: Trainer
    evaluation: Evaluation
    losses: Losses | None = None

    @cached_property
    def ranking(self) -> RankingScores:
        """The scores of one ranking of all items."""
        return self.evaluation.ranking()


# The computation of each metric, by its name in tracking/metric_table.py.
MEASURES: dict[str, Callable[[Epoch], float]] = {
    **{name: attrgetter(f"losses.{name}") for name in Losses._fields},
    "test_mrr": lambda epoch: epoch.evaluation.mrr(),
    "test_mse": lambda epoch: epoch.evaluation.mse(),
    "validation_mrr": lambda epoch: epoch.evaluation.mrr(),
    "validation_mse": lambda epoch: epoch.evaluation.mse(),
    **{name: attrgetter(f"ranking.{name}") for name in RankingScores._fields},
}


def fit(
    trainer: Trainer,
    test: Evaluation | Interactions,
    validation: Evaluation | Interactions | None = None,
    *,
    history: Sequence[EpochMetrics] = (),
    record: Record | None = None,
) -> list[EpochMetrics]:
    """Train for the epochs of the trainer's settings, and evaluate and record each epoch.

    Args:
        trainer: the network in training, with its data.
        test: the test set, with at least one rating, or its evaluation (by default ``evaluation_of``).
        validation: the same for a validation set, which chooses the best epoch; see ``EpochMetrics.selection_key``.
        history: the metrics of a restored trainer's epochs.
        record: the record to write; by default nothing is written.

    Returns:
        The metrics of each epoch, including ``history``. The last epoch also has the metrics of the end.

    Raises:
        ValueError: a metric is incomplete; see ``tracking.metric_table.check_metrics``.
        FloatingPointError: a loss or a metric is not finite.
        Stopped: a signal asked the process to end; see ``cli.signals.stoppable``.
        LostProcess: another process exited or cannot be reached.
        OSError: a file of the record cannot be written.
    """
    check_metrics(MEASURES)
    record = record or Record()
    test = test if isinstance(test, Evaluation) else evaluation_of(trainer, test)
    validation = evaluation_of(trainer, validation) if isinstance(validation, Interactions) else validation
    best = best_epoch(history)
    history = list(history)
    epochs, patience = trainer.settings.epochs, trainer.settings.patience
    _try_metrics(trainer, test.test)
    with threads_for(trainer.model, trainer.batch_size), record:
        for epoch in range(len(history), epochs):
            epochs_without_better = 0 if best is None else epoch - 1 - best
            if 0 < patience <= epochs_without_better:
                break
            losses = trainer.run_epoch()
            scores = _evaluate(trainer, test, validation) if test.is_due(epoch, epochs) else {}
            metrics = EpochMetrics(**_measure(Epoch(trainer, test, losses), "epoch"), **scores)
            history.append(metrics)
            if metrics.is_better_than(None if best is None else history[best]):
                best = epoch
            record.add(metrics, trainer.state(), is_best=best == epoch)
        with trainer.as_evaluated():  # in every process, because the processes compute metrics together
            closing = _measure(Epoch(trainer, test), "end")
            record.add_network(trainer.model)
        record.close(closing)
    return [*history[:-1], replace(history[-1], **closing)]


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
        group=trainer.group,
        clamp=settings.clamp,
    )


def _measure(epoch: Epoch, *when: When) -> dict[str, float]:
    """Compute the metrics that are due at these moments, by name."""
    return {name: float(MEASURES[name](epoch)) for name, metric in METRICS.items() if metric.when in when}


def _try_metrics(trainer: Trainer, test: Interactions) -> None:
    """Compute the metrics of evaluations for a single rating, so that a mistake shows before training."""
    one = test.select(torch.arange(1, device=trainer.device))
    _measure(Epoch(trainer, Evaluation(trainer.scorer, trainer.train, one)), "test", "validation", "end")


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
