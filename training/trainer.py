"""A network in training: its data, Adam and random numbers, one epoch of steps, and the state that it resumes from.

    trainer = Trainer(model, train, Settings(factorization_weight=0.99, regression_weight=0.01, seed=0))
    losses = trainer.run_epoch()

``train.fit`` runs the epochs, evaluates the network and records the metrics.
"""

import importlib.util
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data import Interactions
from training import parts
from training.adam import Adam, SparseAdam, pick_optimizer
from training.divided import UNDIVIDED, Division
from training.evaluation import fastest_scorer
from training.rated_items import SUMS, RatedItems
from training.rehearsal import Rehearsal, Way
from training.sampling import Sampler
from training.scale import Scale
from training.settings import Settings
from training.steps import EagerStep, LossWeights, rated_in_batches

GENERATORS = ("generator", "torch")
ADAM_STATE = ("first_moment", "second_moment", "steps_taken")
# A student's folder has the plain step alone: the files of the others would give equations 1 and 4 away.
HAS_FAST_STEPS = importlib.util.find_spec("training.fused") is not None


LARGE_RATING = 1e3  # from which on the MSE itself is the likely cause of an infinite loss
NO_RATINGS = "no interaction of the training set has a rating: only the ranking is trained"


class Losses(NamedTuple):
    """The means of the losses over the triples of an epoch: equations 3 and 5, and their λ-weighted sum.

    The MSE is that of the interactions with a rating, in squared stars; NaN if there are none. With a baseline it is
    that of the predicted residuals, which leave a rating out of its own biases; see ``baseline.py``.
    """

    factorization_loss: float
    training_mse: float
    joint_loss: float


class Trainer:
    """A network, its training data on the network's device, and Adam.

    Args:
        model: the network to train, in place, see ``EagerStep``.
        train: observed interactions of all users, moved to the model's device.
        eager: take the plain step, the definition, instead of the fastest step that agrees with it.
        division: the users of this process, if several train together, each with an identically configured trainer
            except for its network, which has rows for these users alone.
        make: makes a network of the same class for other numbers of users and items, for the comparison of steps.

    Attributes:
        train: the training data of this process's users, with the values that the network learns as ratings; see
            ``Scale.targets``.
        group: the processes that train together.
        scale: the unit of the ratings that the network learns, and their baseline.
        rating_range: the lowest and the highest rating; () if there are none.
        scorer: scores all items for many users, in the fastest way that agrees with ``forward``.
        notices: lines for the user that say which fast way is not taken, and why.

    Raises:
        ValueError: the data is empty or does not fit the network, or the settings do not fit it.
    """

    def __init__(
        self,
        model: nn.Module,
        train: Interactions,
        settings: Settings,
        *,
        eager: bool = False,
        division: Division = UNDIVIDED,
        make: Callable[[int, int], nn.Module] | None = None,
    ) -> None:
        if len(train) == 0:
            raise ValueError("there are no training ratings: expected at least one")
        self.model = model
        self.device = next(model.parameters()).device
        self._on_cuda = self.device.type == "cuda"
        has_baseline, factors = settings.rating_baseline, settings.rating_factors
        self.scale = Scale.of(train, settings.rating_unit, has_baseline, factors)
        self.train = division.own(replace(train, ratings=self.scale.targets(train))).to(self.device)
        self.settings = settings
        self.count = len(train)
        self.batch_size = settings.batch_size_for(len(train))
        self.epoch = 0
        self._most_epochs = settings.epochs if settings.needs_epochs else math.inf
        self.division, self.group = division, division.group
        self.generator = torch.Generator(self.device).manual_seed(settings.seeds.training)
        local = division.local(self.train)
        self.rated = RatedItems(local, division)
        self._check_fit()
        self.rates = bool(train.rated.any())
        ends = train.ratings[train.rated].aminmax() if self.rates else ()
        self.rating_range = tuple(end.item() for end in ends)
        if not self.rates and settings.factorization_weight == 0:
            raise ValueError(
                "factorization_weight is 0, and no interaction has a rating: there is nothing to learn from"
            )
        self.sampler = Sampler(local, self.batch_size, self.generator, settings.negatives == 1, division)

        rehearsal = Rehearsal(model, local.num_users, train.num_items, make, self.group, self.rated.has_gaps)
        way, step_notice = self._way(eager, rehearsal)
        scorer, ranking_notice = fastest_scorer(model, train.num_items, rehearsal)
        self.scorer = division.scorer(scorer)
        self.adam = Adam(model, settings.learning_rate)  # moves all parameters into one vector, ``flat``
        self.step = way.make(model, self.adam, self.loss_weights, self.rated, self.generator)
        lazy = "training with lazy_adam: only the embeddings that a batch looks up (optimizer)"
        # In a student's folder the notice on ranking would tell whether equation 1 is right, which is a hidden check.
        lines = [
            self.scale.notice,
            f"rating_factors {factors} changes nothing without rating_baseline" if factors and not has_baseline else "",
            NO_RATINGS if not self.rates else "",
            step_notice,
            lazy if self.optimizer == "lazy_adam" else "",
            ranking_notice if HAS_FAST_STEPS else "",
        ]
        self.notices = [line for line in lines if line]

    @property
    def loss_weights(self) -> LossWeights:
        """λ_F and λ_R."""
        return LossWeights(self.settings.factorization_weight, self.settings.regression_weight)

    def _check_fit(self) -> None:
        """Raise ValueError where the homework's tables are there and are too small for this process's users."""
        users_here, items_here = self.rated.train.num_users, self.rated.train.num_items
        try:
            users, items = parts.factorization_tables(self.model)
        except LookupError:
            return
        if users.num_embeddings < users_here or items.num_embeddings < items_here:
            raise ValueError(
                f"the network has {users.num_embeddings} users and {items.num_embeddings} items, "
                f"but the ratings have {users_here} and {items_here}"
            )

    def _way(self, eager: bool, rehearsal: Rehearsal) -> tuple[Way, str]:
        """Choose ``self.optimizer`` and the way of taking a step, with a line that says why it is not the fastest."""
        settings = self.settings
        if not HAS_FAST_STEPS and (settings.optimizer == "lazy_adam" or not settings.homework_step):
            raise ValueError(
                "this folder has only the homework's step: leave out preset tuned, optimizer and the settings that "
                "change the step"
            )
        rows = self.train.num_users + self.train.num_items
        has_row_wise_step = HAS_FAST_STEPS and settings.homework_step
        named = "adam" if settings.optimizer == "auto" and not has_row_wise_step else settings.optimizer
        self.optimizer = pick_optimizer(named, rows, self.batch_size)
        while True:  # a second time with adam if SparseAdam cannot train the network
            plain, others = self._ways()
            try:
                rehearsal.take_plainly(plain, self.loss_weights, settings.negatives)
            except RuntimeError as error:  # of SparseAdam, where the network reads an embedding other than by look-ups
                if self.optimizer == "adam":
                    raise
                if settings.optimizer == "lazy_adam":
                    raise ValueError(f"lazy_adam cannot train the network of models.py: {error}") from error
                self.optimizer = "adam"
            else:
                self.division.check_state(rehearsal.buffers or rehearsal.attributes)
                return rehearsal.fastest_way([] if eager else others)

    def _ways(self) -> tuple[Way, list[Way]]:
        """Return the plain way of taking the step of these settings, and the fast ways, the fastest first."""
        lazy = self.optimizer == "lazy_adam"
        if not self.settings.homework_step:
            from training import tuned

            steps = self.settings.epochs * -(-self.count // self.batch_size)
            return tuned.ways(self.settings, steps, self.train.num_items, lazy)
        plain = Way(
            "eager step",
            lambda model, adam, weights, *_: EagerStep(model, SparseAdam(model, adam) if lazy else adam, weights),
        )
        if not HAS_FAST_STEPS:
            return plain, []
        from training import fused

        return plain, fused.ways(lazy, self.device)

    def run_epoch(self) -> Losses:
        """Train on every triple once, in a new order and with new negative items; return the means of the losses.

        Raises:
            FloatingPointError: a loss stopped being finite.
            ValueError: the learning rate has fallen to 0.
        """
        if self.epoch >= self._most_epochs:
            raise ValueError(f"the learning rate is 0 after {self.epoch} epochs (lr_schedule): make a trainer for more")
        self.model.train()
        self.division.seed(self.settings.seeds.training, self.epoch)
        # The losses stay on the device until all steps are done, because reading a loss waits for its step. They are in
        # one tensor, because many small ones between the freed tensors of large steps would keep these apart.
        losses, rated = None, torch.empty(0, device=self.device)
        for triples, sizes in self.sampler.epoch():
            block = self.step.run(triples, sizes)
            losses = block if losses is None else torch.cat([losses, block])
            if self.rated.has_gaps:
                rated = torch.cat([rated, rated_in_batches(triples.ratings, sizes)])
        assert losses is not None  # because a training set has an interaction
        self._check_finite(losses)
        numbers = losses.new_full((len(losses),), self.batch_size)
        numbers[-1] = self.count - self.batch_size * (len(losses) - 1)
        factorization, regression = ((numbers @ losses) / self.count).tolist()
        if self.rated.has_gaps:
            counts = self.group.add_up(rated)
            regression = (counts @ losses[:, 1] / counts.sum().clamp(min=1)).item()
        self.epoch += 1
        weights = self.loss_weights
        joint = weights.factorization * factorization + weights.regression * regression
        training_mse = regression * self.scale.spread**2 if self.rates else math.nan
        return Losses(factorization, training_mse, joint)

    @contextmanager
    def as_evaluated(self) -> Iterator[None]:
        """Give the network the parameters that are evaluated: with the sums over watched items added."""
        if not self.settings.watched_items:
            yield
            return
        own = self.adam.flat.data.clone()
        try:
            self.rated.fold_into(self.model)
            yield
        finally:
            self.adam.flat.data.copy_(own)

    def state(self) -> dict[str, Tensor]:
        """Return the tensors that training resumes from, by name; the next step changes them.

        Beside them are the sums of the items, from which nothing resumes, for recommendations from other ratings. Of
        several processes, the first gets those of all users, and the others {}.
        """
        found = self.division.tensors.gathered(self.model, self._own_state())
        sums = self.rated.item_sums(self.model) if self.settings.watched_items else {}
        return found | sums if found else {}

    def _own_state(self) -> dict[str, Tensor]:
        tensors = parts.state_of(self.model)
        tensors |= {f"adam.{name}": getattr(self.adam, name) for name in ADAM_STATE}
        tensors["generator"] = self.generator.get_state()
        # For a network that draws random numbers in forward.
        tensors["torch"] = torch.cuda.get_rng_state(self.device) if self._on_cuda else torch.get_rng_state()
        return {name: tensor.detach() for name, tensor in tensors.items()}

    def load_state(self, tensors: dict[str, Tensor], epoch: int, device: str) -> None:
        """Restore the ``state()`` of an identically configured trainer after ``epoch`` epochs on a type of device.

        Of several processes, the first one's tensors count, and the number of processes may differ.

        Raises:
            ValueError: the names, shapes or types of the tensors differ from this trainer's.
        """
        own, tensors = self._own_state(), {name: x for name, x in tensors.items() if not name.startswith(SUMS)}
        same_device = device == self.device.type
        if not same_device:  # the states of generators are neither compared nor restored
            tensors = {name: tensor for name, tensor in tensors.items() if name not in GENERATORS}
            own = {name: tensor for name, tensor in own.items() if name not in GENERATORS}
        tensors = self.division.tensors.handed_out(self.model, own, tensors)
        parts.load_state(self.model, tensors)  # copies into the vector that the steps train
        for name in ADAM_STATE:
            getattr(self.adam, name).copy_(tensors[f"adam.{name}"])
        self.epoch = epoch
        if same_device:
            self.generator.set_state(tensors["generator"])
            if self._on_cuda:
                torch.cuda.set_rng_state(tensors["torch"], self.device)
            else:
                torch.set_rng_state(tensors["torch"])
        else:  # a generator's state fits its own kind of device only, so the run resumes with other numbers
            self.generator.manual_seed((self.settings.seeds.training + self.epoch) % 2**64)

    @property
    def likely_cause(self) -> str:
        """Return the most likely cause of an infinite loss."""
        settings = self.settings
        weights = f"{settings.factorization_weight:g} and {settings.regression_weight:g}"
        return f"learning_rate {settings.learning_rate:g} or one of the weights {weights} is probably too large"

    def _check_finite(self, losses: Tensor) -> None:
        """Raise FloatingPointError for the first step and task whose loss is not finite; losses: (steps, 2)."""
        wrong = (~losses.isfinite()).nonzero()
        if len(wrong) == 0:
            return
        step, task = wrong[0].tolist()
        cause = self.likely_cause
        if self.train.ratings.abs().nan_to_num().max() > LARGE_RATING:
            largest = max(map(abs, self.rating_range))
            cause = f"the ratings reach {largest:.3g}, which rating_unit star learns as they are: choose spread"
        elif self.epoch == step == 0:
            cause = "no step was taken yet, so models.py or training/steps.py computes it from the start"
        name = ("factorization", "regression")[task]
        raise FloatingPointError(
            f"epoch {self.epoch}, step {step + 1} of {len(losses)}: the {name} loss became "
            f"{losses[step, task].item()}; {cause}"
        )
