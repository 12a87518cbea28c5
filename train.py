"""Training: the loop over epochs that TensorBoard watches.

    trainer = Trainer(model, train, Settings(factorization_weight=0.99, regression_weight=0.01), seed=0)
    with RunFolder(Path("run/mine")) as folder:
        history = fit(trainer, test, epochs=200, folder=folder)

One step takes a batch of observed (user, item, rating) triples and, for each, one item drawn uniformly from all of
them. It minimizes

    L = λ_F · L_F + λ_R · L_R,    L_F = mean(1 − σ(p⁺ − p⁻)),    L_R = mean((r̂ − r)²)      (equations 3 and 5)

with Adam. The negative items need no rating and so never pass through the MLP. An epoch of such steps is the subject of
``training/trainer.py``, a step that of ``training/steps.py``.
"""

import math
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from operator import attrgetter
from typing import Any

import torch

from cli.signals import Stopped
from data import Interactions, fingerprint
from metrics import RankingScores
from tracking.checkpoint import Checkpoint
from tracking.folder import RunFolder, contains_run
from tracking.history import CHARTS, METRICS, EpochMetrics, When, best_epoch, check_metrics, columns, tags
from tracking.progress import progress_bar
from tracking.saving import Saver
from tracking.tensorboard import EventFile
from training.devices import threads_for
from training.evaluation import SHOWN, Evaluation
from training.parallel import LostProcess
from training.trainer import Losses, Trainer

__all__ = ["Losses", "Trainer", "fit", "restore", "to_checkpoint"]


def to_checkpoint(
    trainer: Trainer, settings: dict[str, Any], data: str, history: list[EpochMetrics], times: list[float]
) -> Checkpoint:
    """Everything that a run goes on from. Its tensors are the trainer's own, and change with the next step."""
    names = columns(history)
    rows = [[getattr(metrics, name) for name in names] for metrics in history]
    return Checkpoint(settings, data, trainer.device.type, names, rows, list(times), trainer.state())


def restore(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Take a trainer back, or on, to a checkpoint of one that was made as it was.

    Raises:
        ValueError: the checkpoint holds other tensors than the trainer.
    """
    trainer.load_state(checkpoint.tensors, len(checkpoint.history), checkpoint.device)


@dataclass(frozen=True)
class Epoch:
    """All that the metrics after an epoch are computed from.

    Attributes:
        evaluation: on the test set; on the validation set for the metrics of that.
        losses: means over the epoch; None at the end of a run.
    """

    trainer: Trainer
    evaluation: Evaluation
    losses: Losses | None = None

    @cached_property
    def ranking(self) -> RankingScores:
        """The scores of one ranking of all items."""
        return self.evaluation.ranking()


# How each metric is computed, by its name in tracking/history.py.
MEASURES: dict[str, Callable[[Epoch], float]] = {
    **{name: attrgetter(f"losses.{name}") for name in Losses._fields},
    "test_mrr": lambda epoch: epoch.evaluation.mrr(),
    "test_mse": lambda epoch: epoch.evaluation.mse(),
    "validation_mrr": lambda epoch: epoch.evaluation.mrr(),
    "validation_mse": lambda epoch: epoch.evaluation.mse(),
    **{name: attrgetter(f"ranking.{name}") for name in RankingScores._fields},
}


def measure(epoch: Epoch, *when: When) -> dict[str, float]:
    """Compute the metrics that are due, by name."""
    return {name: float(MEASURES[name](epoch)) for name, metric in METRICS.items() if metric.when in when}


def _scores(epoch: Epoch, validation: Evaluation | None) -> dict[str, float]:
    """Compute the metrics of the test set, and of the validation set where there is one.

    Raises:
        FloatingPointError: one of the test set's is not finite.
    """
    trainer = epoch.trainer
    with trainer.as_evaluated():
        scores = measure(epoch, "test")
        chosen_by = measure(replace(epoch, evaluation=validation), "validation") if validation is not None else {}
    for name, score in scores.items():
        if not math.isfinite(score):
            at = f"epoch {trainer.epoch - 1}: {METRICS[name].tag} is {score} after the last step"
            raise FloatingPointError(f"{at}; {trainer.likely_cause}")
    return scores | chosen_by


def fit(
    trainer: Trainer,
    test: Interactions,
    epochs: int,
    folder: RunFolder | None,
    settings: dict[str, Any] | None = None,
    checkpoint: Checkpoint | None = None,
    evaluation: Evaluation | None = None,
    validation: Evaluation | None = None,
    patience: int = 0,
    show: Callable[[], None] | None = None,
) -> list[EpochMetrics]:
    """Train up to a number of epochs; after each, score the test side and write the metrics for TensorBoard.

    The run's state is written as ``checkpoint.pt`` as ``tracking.saving`` says, and when the run is stopped or its
    losses go astray: always as it was at the end of the last good epoch.

    Args:
        trainer: what to train.
        test: at least one held-out rating.
        epochs: how many in all, those before the checkpoint included.
        folder: for the checkpoint and the event file, where each epoch's metrics can be read as soon as it is over.
            Without a checkpoint to go on from, it must not hold a run yet. None in all processes but one.
        settings: what to note in the checkpoint, and for TensorBoard, about how this run was set up; by default the
            trainer's settings.
        checkpoint: go on from here, with a trainer made as the checkpoint's was.
        evaluation: which users to rank, and after which epochs; by default as ``Evaluation`` chooses.
        validation: of a validation side; after each epoch that is better by it than those before, see
            ``EpochMetrics.choice``, the run's state is also written as ``best.pt``.
        patience: stop after so many epochs without a better one; 0 for never. It needs a validation side.
        show: what else to write of the network as it is evaluated, once training is over; the run counts as finished
            when it has returned.

    Returns:
        The metrics of each epoch, those before the checkpoint included; the last has those of the end as well.

    Raises:
        ValueError: the folder holds a run that this one would write over, or a metric is not complete; see
            ``tracking.history.check_metrics``.
        FloatingPointError: a loss or a metric stopped being finite.
        Stopped: a signal asked for it; see ``cli.signals.stoppable``.
        LostProcess: another process ended, or cannot be reached.
        OSError: something cannot be written.
    """
    check_metrics(MEASURES)
    if folder is not None and checkpoint is None and contains_run(folder.path):
        raise ValueError(f"{folder.path} holds a run already: move it aside, or go on from its checkpoint")
    test = test.to(trainer.device)
    evaluation = evaluation or Evaluation(
        trainer.recommender,
        trainer.train,
        test,
        seed=trainer.seed,
        group=trainer.group,
        clamp=trainer.settings.recipe.clamp,
    )
    settings, data = settings or asdict(trainer.settings), fingerprint(trainer.train, test)
    history = checkpoint.metrics if checkpoint else []
    times = list(checkpoint.times) if checkpoint else []
    best_at = best_epoch(history)
    if checkpoint:
        restore(trainer, checkpoint)
    saver = Saver(folder, checkpoint) if folder else None
    with (
        threads_for(trainer.model, trainer.batch_size),
        EventFile(folder.path, tags(SHOWN), settings, CHARTS) if folder else nullcontext() as events,
        progress_bar(epochs, len(history), folder is not None) as bar,
    ):
        if events:
            for epoch, (metrics, at) in enumerate(zip(history, times, strict=True)):
                events.add(epoch, asdict(metrics), at)
            events.replace_older()
        try:
            # On one rating, so that a mistake in a metric shows before training and costs no time.
            one = test.select(torch.arange(1, device=trainer.device))
            trial = Epoch(trainer, Evaluation(trainer.recommender, trainer.train, one))
            measure(trial, "test", "validation", "end")
            for epoch in range(len(history), epochs):
                if patience > 0 and best_at is not None and epoch - best_at > patience:
                    break
                now = Epoch(trainer, evaluation, trainer.run_epoch())
                scores = _scores(now, validation) if evaluation.is_due(epoch, epochs) else {}
                metrics = EpochMetrics(**measure(now, "epoch"), **scores)
                history.append(metrics)
                if best_at is None or best_epoch([history[best_at], metrics]) == 1:
                    best_at = epoch if metrics.choice is not None else None
                times.append(time.time())
                if saver is None or events is None:
                    continue
                saver.keep(to_checkpoint(trainer, settings, data, history, times), is_best=best_at == epoch)
                events.add(epoch, asdict(metrics), times[-1])
                bar.set_postfix_str(
                    f"BPR {metrics.factorization_loss:.3f}, MSE {metrics.training_mse:.3f}; "
                    f"test MSE {metrics.test_mse:.3f}, MRR {metrics.test_mrr:.4f}"
                )
                bar.update()
            with trainer.as_evaluated():  # by every process, because those that ended could not answer any more
                closing = measure(Epoch(trainer, evaluation), "end")
                if saver is not None and show is not None and history:
                    show()
            if saver is not None and events is not None and history:
                events.add(len(history) - 1, closing, times[-1])
                saver.close(list(closing.values()))
            if history:
                history[-1] = replace(history[-1], **closing)
        except (Stopped, FloatingPointError, LostProcess):
            if saver is not None:
                saver.write()
            raise
    return history
