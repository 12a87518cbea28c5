"""Training: one epoch, and the loop over epochs that TensorBoard watches.

    trainer = Trainer(model, train, Settings(factorization_weight=0.99, regression_weight=0.01), seed=0)
    with RunFolder(Path("run/mine")) as folder:
        history = fit(trainer, test, epochs=200, folder=folder)

One step takes a batch of observed (user, item, rating) triples and, for each, one item drawn uniformly from all of
them. It minimizes

    L = λ_F · L_F + λ_R · L_R,    L_F = mean(1 − σ(p⁺ − p⁻)),    L_R = mean((r̂ − r)²)      (equations 3 and 5)

with Adam. The negative items need no rating and so never pass through the MLP. How a step is taken is the subject of
``training/``.
"""

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from cli.signals import Stopped
from data import Interactions, fingerprint
from models import MultiTaskNet
from tracking.checkpoint import Checkpoint
from tracking.folder import RunFolder, contains_run
from tracking.history import COLUMNS, COLUMNS_WITH_VALIDATION, EpochMetrics, best_epoch
from tracking.progress import progress_bar
from tracking.saving import Saver
from tracking.tensorboard import CHARTS, RANKING_TAGS, TAGS, VALIDATION_TAGS, EventFile
from training.adam import flatten, start_adam
from training.devices import threads_for
from training.evaluation import SHOWN, Evaluation
from training.parallel import ALONE, Group, LostProcess
from training.sampling import Sampler
from training.settings import Settings
from training.step_factory import make_step, pick_optimizer
from training.steps import Weights
from training.watched import Watched

ADAM_STATE = ("first_moment", "second_moment", "steps_taken")


class Losses(NamedTuple):
    """Mean losses of an epoch, over its triples: equations 3 and 5, and their λ-weighted sum."""

    factorization: float
    regression: float
    joint: float


class Trainer:
    """A network, its training data on the network's device, and Adam.

    Args:
        model: the network to train, in place.
        train: observed interactions; moved to the model's device whole.
        settings: weights of the losses, batch size, learning rate.
        seed: of the shuffles and the negative items.
        eager: take the plain step of the homework's definition instead of the fastest.
        group: the processes that train together, each with a trainer made as this one is.

    Raises:
        ValueError: the data is empty or does not fit the network, or the network has sparse gradients.
    """

    def __init__(
        self,
        model: MultiTaskNet,
        train: Interactions,
        settings: Settings,
        seed: int,
        eager: bool = False,
        group: Group = ALONE,
    ) -> None:
        users, items = model.factorization_tables
        if len(train) == 0:
            raise ValueError("there are no training ratings: expected at least one")
        if (train.num_users, train.num_items) != (users.num_embeddings, items.num_embeddings):
            raise ValueError(
                f"the network has {users.num_embeddings} users and {items.num_embeddings} items, "
                f"but the ratings have {train.num_users} and {train.num_items}"
            )
        if users.sparse:
            raise ValueError("the network has sparse gradients, which Adam does not take: make it with sparse=False")
        self.device = items.weight.device
        self.model = model
        self.train = train.to(self.device)
        self.settings = settings
        self.batch_size = min(settings.batch_size, len(train))
        self.epoch = 0
        self.adam = start_adam(flatten(model), settings.learning_rate)
        weights = Weights(settings.factorization_weight, settings.regression_weight)
        self.optimizer = pick_optimizer(settings.optimizer, model, self.batch_size)
        self.group = group
        self.seed = seed
        self.generator = torch.Generator(self.device).manual_seed(seed)
        recipe = settings.recipe
        steps = settings.epochs * -(-len(train) // self.batch_size)
        self.watched = Watched(self.train)
        ingredients = recipe, self.generator, steps, self.watched
        self.step = make_step(model, self.adam, weights, eager, self.optimizer, group, ingredients)
        candidates = 0 if recipe.shared_negatives else recipe.negatives
        self.sampler = Sampler(self.train, self.batch_size, self.generator, candidates)
        self.average = torch.zeros_like(self.adam.flat.data) if recipe.average_last > 0 else None
        if recipe.start_at_mean:
            with torch.no_grad():
                output = [layer for layer in model.mlp_layers if isinstance(layer, nn.Linear)][-1]
                output.bias.fill_(self.train.ratings.cpu().double().mean().item())

    def run_epoch(self) -> Losses:
        """Train on every triple once, in a new order and with new negative items.

        Returns:
            The losses, each averaged over the epoch's triples as they were met.

        Raises:
            FloatingPointError: a loss stopped being finite.
        """
        n = len(self.train)
        # The losses stay on the device until all steps are done, because reading one would wait for its step.
        blocks = [self.step.run(triples, self.batch_size) for triples in self.sampler.epoch()]
        losses = torch.cat(blocks) if len(blocks) > 1 else blocks[0]
        self._check_finite(losses)
        sizes = torch.full((len(losses),), float(self.batch_size), device=self.device)
        sizes[-1] = n - self.batch_size * (len(losses) - 1)
        factorization, regression = ((sizes @ losses) / n).tolist()
        self.epoch += 1
        averaged = self.averaged_epochs
        if self.average is not None and averaged > 0:
            self.average += (self.adam.flat.data - self.average) / averaged
        return Losses(
            factorization,
            regression,
            self.settings.factorization_weight * factorization + self.settings.regression_weight * regression,
        )

    @property
    def averaged_epochs(self) -> int:
        """Over how many epochs the weights are averaged so far."""
        recipe, epochs = self.settings.recipe, self.settings.epochs
        return max(0, self.epoch - recipe.first_averaged(epochs)) if self.average is not None else 0

    @contextmanager
    def as_evaluated(self) -> Iterator[None]:
        """The network is what is evaluated and recommends: with its mean weights, and with what users watched."""
        averaged = self.average is not None and self.averaged_epochs > 0
        if not (averaged or self.settings.recipe.watched_items):
            yield
            return
        own = self.adam.flat.data.clone()
        try:
            if self.average is not None and averaged:
                self.adam.flat.data.copy_(self.average)
            if self.settings.recipe.watched_items:
                self.watched.fold_into(self.model)
            yield
        finally:
            self.adam.flat.data.copy_(own)

    def checkpoint(
        self, settings: dict[str, Any], data: str, history: list[EpochMetrics], times: list[float]
    ) -> Checkpoint:
        """Everything that training goes on from. Its tensors are the trainer's own, and change with the next step."""
        columns = COLUMNS if all(math.isnan(metrics.validation_mse) for metrics in history) else COLUMNS_WITH_VALIDATION
        tensors = {f"network.{name}": weight for name, weight in self.model.state_dict().items()}
        tensors |= {f"adam.{name}": getattr(self.adam, name) for name in ADAM_STATE}
        tensors["generator"] = self.generator.get_state()
        if self.average is not None:
            tensors["average"] = self.average
        return Checkpoint(
            settings,
            data,
            self.device.type,
            list(columns),
            [list(metrics)[: len(columns)] for metrics in history],
            list(times),
            {name: tensor.detach() for name, tensor in tensors.items()},
        )

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back, or on, to a checkpoint of a trainer that was made as this one was.

        Raises:
            ValueError: it holds other tensors than this trainer.
        """
        tensors, own = checkpoint.tensors, self.checkpoint({}, "", [], []).tensors
        if checkpoint.device != self.device.type:
            own["generator"] = tensors.get("generator", own["generator"])
        if {name: (x.shape, x.dtype) for name, x in tensors.items()} != {n: (x.shape, x.dtype) for n, x in own.items()}:
            raise ValueError("the checkpoint is of another network: its tensors have other names, shapes or types")
        network = {name.removeprefix("network."): x for name, x in tensors.items() if name.startswith("network.")}
        self.model.load_state_dict(network)  # copies into the vector that the steps train
        for name in ADAM_STATE:
            getattr(self.adam, name).copy_(tensors[f"adam.{name}"])
        self.epoch = len(checkpoint.history)
        if self.average is not None:
            self.average.copy_(tensors["average"])
        if checkpoint.device == self.device.type:
            self.generator.set_state(tensors["generator"])
        else:  # each kind of device has random numbers of its own, so that the run can only go on with others
            self.generator.manual_seed((self.seed + self.epoch) % 2**64)

    @property
    def notice(self) -> str:
        """What to tell the user where row-wise Adam trains, else nothing."""
        rowwise = "training with lazy_adam: only the embeddings that a batch looks up (--optimizer)"
        return rowwise if self.optimizer == "lazy_adam" else ""

    @property
    def likely_cause(self) -> str:
        """What most likely made a loss infinite."""
        rate, *weights = (
            self.settings.learning_rate,
            self.settings.factorization_weight,
            self.settings.regression_weight,
        )
        return f"learning_rate {rate:g} or one of the weights {weights[0]:g} and {weights[1]:g} is probably too large"

    def _check_finite(self, losses: Tensor) -> None:
        """Name the first step and task whose loss is not finite. losses: (steps, 2)."""
        wrong = (~losses.isfinite()).nonzero()
        if len(wrong) > 0:
            step, task = wrong[0].tolist()
            raise FloatingPointError(
                f"epoch {self.epoch}, step {step + 1} of {len(losses)}: the {Losses._fields[task]} loss became "
                f"{losses[step, task].item()}; {self.likely_cause}"
            )


def _check_finite(scores: tuple[float, float], epoch: int, trainer: Trainer) -> None:
    for tag, score in zip(TAGS[3:], scores, strict=True):
        if not math.isfinite(score):
            raise FloatingPointError(f"epoch {epoch}: {tag} is {score} after the last step; {trainer.likely_cause}")


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
        The metrics of each epoch, those before the checkpoint included.

    Raises:
        ValueError: the folder holds a run that this one would write over.
        FloatingPointError: a loss or a metric stopped being finite.
        Stopped: a signal asked for it; see ``cli.signals.stoppable``.
        LostProcess: another process ended, or cannot be reached.
        OSError: something cannot be written.
    """
    if folder is not None and checkpoint is None and contains_run(folder.path):
        raise ValueError(f"{folder.path} holds a run already: move it aside, or go on from its checkpoint")
    test = test.to(trainer.device)
    evaluation = evaluation or Evaluation(
        trainer.model, trainer.train, test, seed=trainer.seed, group=trainer.group, clamp=trainer.settings.recipe.clamp
    )
    settings, data = settings or asdict(trainer.settings), fingerprint(trainer.train, test)
    history = [EpochMetrics(*metrics) for metrics in checkpoint.history] if checkpoint else []
    times = list(checkpoint.times) if checkpoint else []
    best_at = best_epoch(history)
    if checkpoint:
        trainer.restore(checkpoint)
    saver = Saver(folder, checkpoint) if folder else None
    with (
        threads_for(trainer.model, trainer.batch_size),
        EventFile(folder.path, (*TAGS, *VALIDATION_TAGS), settings, CHARTS) if folder else nullcontext() as events,
        progress_bar(epochs, len(history), folder is not None) as bar,
    ):
        if events:
            for epoch, (metrics, at) in enumerate(zip(history, times, strict=True)):
                events.add(epoch, metrics, at)
            events.replace_older()
        try:
            for epoch in range(len(history), epochs):
                if patience > 0 and best_at is not None and epoch - best_at > patience:
                    break
                losses = trainer.run_epoch()
                scores, judged = (math.nan, math.nan), (math.nan, math.nan)
                if evaluation.is_due(epoch, epochs):
                    with trainer.as_evaluated():
                        scores = evaluation.mrr(), evaluation.mse()
                        if validation is not None:
                            judged = validation.mrr(), validation.mse()
                    _check_finite(scores, epoch, trainer)
                metrics = EpochMetrics(*losses, *scores, *judged)
                history.append(metrics)
                if best_at is None or best_epoch([history[best_at], metrics]) == 1:
                    best_at = epoch if metrics.choice is not None else None
                times.append(time.time())
                if saver is None or events is None:
                    continue
                now = trainer.checkpoint(settings, data, history, times)
                saver.keep(now, is_best=best_at == epoch)
                events.add(epoch, metrics, times[-1])
                bar.set_postfix_str(
                    f"BPR {metrics.factorization_loss:.3f}, MSE {metrics.training_mse:.3f}; "
                    f"test MSE {metrics.test_mse:.3f}, MRR {metrics.test_mrr:.4f}"
                )
                bar.update()
            with trainer.as_evaluated():  # by every process, because those that ended could not answer any more
                evaluation.closing = evaluation.ranking()
                if saver is not None and show is not None and history:
                    show()
            if saver is not None and events is not None and history:
                ranking = zip(RANKING_TAGS, evaluation.closing, strict=True)
                events.add_scalars(len(history) - 1, {tag.format(k=SHOWN): score for tag, score in ranking}, times[-1])
                saver.close(evaluation.closing)
        except (Stopped, FloatingPointError, LostProcess):
            if saver is not None:
                saver.write()
            raise
    return history
