"""The rehearsal before a run, in which each fast way of training and ranking is compared with the plain way.

A fast way restates models.py and ``steps.py``. Both ways take three steps on a network of the same class with at most
LARGEST users and items: once from its own start, and once with random parameters in the middle of training, because
biases that start at 0 and learning rates that fall would hide a mistake. If the two differ, if the fast way raises an
error, or if the plain way changes state besides the parameters, the run takes the plain way.
"""

import contextlib
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data import Interactions
from metrics import ByForward
from training import network, parts
from training.adam import BETAS, Adam
from training.comparing import LEARNING_RATE, Outcome, by_name, close, first_difference, state_of
from training.group import ALONE, Group, LostProcess
from training.rated_items import RatedItems
from training.sampling import Sampler
from training.steps import LossWeights, Step

LARGEST = 2000  # users, and items; MovieLens 100K has fewer of both
BATCH, PAIRS = 64, 4096  # examples in a batch, and the most pairs of an example and a negative
MIDDLE = 10_000  # steps that Adam counts as taken, in the middle of training
SPREAD = (1.0, 4.0, 0.05)  # lengths of a table's rows in turn, so that a bounded output shows


class Way(NamedTuple):
    """A way of taking a step, and its name in messages."""

    name: str
    make: Callable[[nn.Module, Adam, LossWeights, RatedItems, torch.Generator], Step]


class Rehearsal:
    """A comparison of ways of training and ranking, on networks like the one that will be trained.

    Args:
        model: the network that will be trained, for ``num_users`` and ``num_items``; it is not changed.
        make: makes a network of the same class for other sizes. Without it, and if it fails, the network is copied.
        group: the processes that train together, which come to the same decision.
        has_gaps: whether a rating may be missing.
    """

    def __init__(
        self,
        model: nn.Module,
        num_users: int,
        num_items: int,
        make: Callable[[int, int], nn.Module] | None = None,
        group: Group = ALONE,
        has_gaps: bool = False,
    ) -> None:
        self.has_gaps = has_gaps
        self.model, self.sizes, self.group = model, (num_users, num_items), group
        self.device = next(model.parameters()).device
        self.trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        self.num_users, self.num_items = min(num_users, LARGEST), min(num_items, LARGEST)
        self._make = make
        if make is not None and not self._can_be_made():
            self._make, self.num_users, self.num_items = None, num_users, num_items
        self.attributes = self.buffers = ""  # names of state that the plain way changes

    def _can_be_made(self) -> bool:
        try:
            return {name for name, _ in self.network().named_parameters()} == self.trained.keys()
        except Exception:  # a constructor or forward may fail in any way at this size
            return False

    def network(self, random: bool = False) -> nn.Module:
        """Make the same network in each call, with its own start or random parameters, or raise LookupError."""
        with _quietly():
            torch.manual_seed(0)
            if self._make is not None:
                made = self._make(self.num_users, self.num_items).to(self.device)
            else:
                made = _copy(self.model)
            users = torch.zeros(2, dtype=torch.int64, device=self.device)
            ByForward(made, self.num_items).pairs(users, users)  # gives lazy layers their shapes
        if random:
            _randomize(made)
        for name, parameter in made.named_parameters():
            parameter.requires_grad_(self.trained[name])
        made.train()
        return made

    def take_plainly(self, plain: Way, loss_weights: LossWeights, negatives: int = 1) -> None:
        """Take the steps that define a way of training, so that an error shows before anything is written.

        Raises:
            NetworkError: models.py fails, or no gradient can be computed.
        """
        self._plain, self._loss_weights, self._draws = plain, loss_weights, negatives == 1
        self._batch = max(8, min(BATCH, PAIRS // negatives))
        self._expected: list[Outcome] = []
        try:
            made = self.network()
            for batch in (3, 300):  # in train mode; ``network.make`` checks eval mode
                users = torch.arange(batch, device=self.device)
                with _quietly(), torch.no_grad():
                    outputs = made(users % self.num_users, users % self.num_items)
                network.check_outputs(outputs, batch)
            self._expected = [self._outcome(plain, loss_weights, random, watch=True) for random in (False, True)]
        except Exception as error:
            if type(error) is not LookupError:  # for which ``difference`` gives the reason
                raise network.error_of(error) or error from error

    def difference(self, fast: Way) -> str | None:
        """Return how a fast way differs from the plain one or why it does not fit the network; None if it agrees."""
        try:
            found = next(filter(None, self._differences(fast)), None)
            reason = found and f"models.py or training/steps.py gives another {found} than the {fast.name}"
            if self.attributes or self.buffers:
                reason = f"models.py or training/steps.py keeps {self.attributes or self.buffers} from step to step"
        except LostProcess:
            raise
        except Exception as error:
            reason = _raised(error, fast.name)
        return self._agreed(reason)

    def fastest_way(self, others: Sequence[Way]) -> tuple[Way, str]:
        """Choose the first way that agrees with the plain one, else that; a line says why it is not the first."""
        reasons: list[str] = []
        for way in others:
            reason = self.difference(way)
            if reason is None:
                break
            reasons.append(reason)
        else:
            way = self._plain
        return way, f"training with the {way.name}: {reasons[0]}" if reasons else ""

    def _differences(self, fast: Way) -> Iterator[str | None]:
        for random in (False, True):
            got = self._outcome(fast, self._loss_weights, random)
            found = first_difference(self._expected[random], got)
            if found is not None and found.startswith("∂L"):
                for loss, alone in (("F", LossWeights(1.0, 0.0)), ("R", LossWeights(0.0, 1.0))):
                    if first_difference(*(self._outcome(way, alone, random) for way in (self._plain, fast))) == found:
                        found = found.replace("∂L", f"∂L_{loss}")
                        break
            yield found

    def ranking_difference(self, fast: Callable[[nn.Module, int], ByForward]) -> str | None:
        """Compare the scores of all items with those of ``forward``; return the difference, or None."""
        reason = None
        try:
            small = self.network(random=True)
            for buffer in small.buffers():  # training may change them
                if buffer.is_floating_point():
                    buffer.copy_(torch.rand(buffer.shape, generator=torch.Generator().manual_seed(0)) + 0.5)
            for model, num_users, num_items in ((small, self.num_users, self.num_items), (self.model, *self.sizes)):
                users = torch.tensor([0, num_users // 2, num_users - 1], device=self.device)
                with _quietly(), torch.no_grad():
                    expected = ByForward(model, num_items).predict_all_items(users)
                    if not close(fast(model, num_items).predict_all_items(users), expected):
                        reason = "models.py gives other predictions than u · q + b"
        except Exception as error:
            reason = _raised(error, "matrix product")
        if self.attributes:
            reason = f"models.py or training/steps.py keeps {self.attributes} from step to step"
        return self._agreed(reason)

    def _agreed(self, reason: str | None) -> str | None:
        """Return the reason against a way, also if it is another process's, because all take the same way."""
        objections = self.group.add_up(torch.tensor([float(reason is not None)]))
        return reason or ("it differs in another process" if objections.item() > 0 else None)

    def _outcome(self, way: Way, loss_weights: LossWeights, random: bool, watch: bool = False) -> Outcome:
        with _quietly():
            model = self.network(random)
            adam = Adam(model, LEARNING_RATE)
            adam.steps_taken.fill_(MIDDLE if random else 0)
            train, generator = self._interactions(), torch.Generator(self.device).manual_seed(0)
            sampler = Sampler(train, self._batch, generator, self._draws)
            torch.manual_seed(0)
            step = way.make(model, adam, loss_weights, RatedItems(train), generator)
            before = state_of(model, step) if watch else {}
            first, others = torch.arange(len(train), device=self.device).tensor_split([self._batch])
            losses = [step.run(sampler.triples(first), self._batch)]
            vectors = [adam.first_moment / (1 - BETAS[0])]
            losses.append(step.run(sampler.triples(others), self._batch))
            vectors += [adam.first_moment, adam.second_moment, adam.flat.detach()]
            if watch:
                after = state_of(model, step)
                changed = [name for name in after if name not in before or after[name] != before[name]]
                buffers = dict(model.named_buffers()).keys()
                self.buffers = next((name for name in changed if name in buffers), self.buffers)
                self.attributes = next((name for name in changed if name not in buffers), self.attributes)
            return Outcome(torch.cat(losses), *(by_name(model, vector) for vector in vectors))

    def _interactions(self) -> Interactions:
        """Draw two full batches and a short one; the IDs include the first and the last, and many repeat."""
        generator = torch.Generator().manual_seed(1)

        def draw(count: int) -> Tensor:
            ids = torch.randint(count, (5 * self._batch // 2,), generator=generator)
            ids[::2] %= 12
            ids[:2] = torch.tensor([0, count - 1])
            return ids

        users, items = draw(self.num_users), draw(self.num_items)
        ratings = torch.randint(1, 6, users.shape, generator=generator).float()
        if self.has_gaps:
            ratings[::3] = torch.nan
            ratings[2 * self._batch :] = torch.nan  # a whole batch
        return Interactions(users, items, ratings, self.num_users, self.num_items).to(self.device)


def _randomize(made: nn.Module) -> None:
    """Draw all parameters, larger than at the start of training."""
    generator = torch.Generator().manual_seed(0)
    tables = {table.weight for table in parts.embeddings(made)}
    for parameter in made.parameters():
        values = torch.randn(parameter.shape, generator=generator)
        if parameter in tables:
            values *= 1.2 / values.shape[1] ** 0.25  # products of two rows then do not grow with their length
            values *= torch.tensor(SPREAD)[torch.arange(len(values)) % len(SPREAD)].unsqueeze(1)
        elif values.dim() > 1:
            values *= 1.5 / values.shape[1] ** 0.5
        if parameter.is_floating_point():
            parameter.data.copy_(values)


def _copy(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        if parameter._backward_hooks or getattr(parameter, "_post_accumulate_grad_hooks", None):
            raise LookupError("models.py has hooks on its parameters, which copies of the network lack")
    try:
        return deepcopy(model)
    except Exception as error:
        raise LookupError("models.py makes a network that cannot be copied") from error


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Restore torch's random numbers afterwards, and drop the output and the logs of models.py."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with torch.random.fork_rng(range(torch.cuda.device_count())), contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)


def _raised(error: Exception, name: str) -> str:
    """Describe the error of a fast way that does not fit the network."""
    if type(error) is LookupError:
        return str(error)
    said = f": {str(error).splitlines()[0]}" if str(error) else ""
    return f"the {name} does not fit models.py ({type(error).__name__}{said})"
