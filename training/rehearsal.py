"""The rehearsal: before a run, each fast way that it would use has to agree with the plain way.

A fast way states again what models.py and ``steps.py`` say. It is tried on a small network of the same class, with
random numbers in all parameters, because biases that start at 0 would hide a mistake. Rounding of float32 is allowed,
and no more. Where the two differ, or the fast way raises an error, the plain way is taken.
"""

import contextlib
import io
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from data import Interactions
from metrics import ByForward
from training import network, parts
from training.adam import BETAS, AdamState, flatten, slices, start_adam
from training.parallel import ALONE, Group, LostProcess
from training.sampling import Sampler
from training.steps import Step, Weights
from training.watched import Watched

NUM_USERS, NUM_ITEMS, BATCH = 24, 40, 64
EXAMPLES = 2 * BATCH + 37  # two full batches and a short one; in each, IDs repeat
LEARNING_RATE = 1e-4  # small, because where a gradient is all rounding Adam's step has either sign
TOLERANCE, LATER_TOLERANCE = 3e-5, 5e-4  # to the largest element; in the first step, and after steps of either sign
CLEAR, STEP_TOLERANCE = 1e-3, 0.02  # where a gradient is that large, relative to the largest, how far steps may differ
ROUNDING = 4e-7  # of a parameter in three steps, relative: a few units in the last place of float32
SPREAD = 4.0  # every other row of a table is that many times larger, so that a bounded output shows


class Way(NamedTuple):
    """A way of taking a step, and its name in messages."""

    name: str
    make: Callable[[nn.Module, AdamState, Weights, Watched, torch.Generator], Step]


class _Outcome(NamedTuple):
    """Three steps of a network: the (3, 2) losses before each, and by parameter what comes of them."""

    losses: Tensor
    gradient: dict[str, Tensor]  # of the first step, by what it moves Adam's first moment
    first_moment: dict[str, Tensor]  # this and what follows: after the third step
    second_moment: dict[str, Tensor]
    values: dict[str, Tensor]


class Rehearsal:
    """Small networks like the one that will be trained, and ways of training and ranking compared on them.

    Args:
        model: the network that will be trained; it is not changed.
        num_users, num_items: its sizes.
        make: makes a network of the same class for other sizes. Without it, and where the class cannot be that small,
            copies of the network serve.
        group: the processes that train together. All of them rehearse and come to the same decision.
    """

    def __init__(
        self,
        model: nn.Module,
        num_users: int,
        num_items: int,
        make: Callable[[int, int], nn.Module] | None = None,
        group: Group = ALONE,
    ) -> None:
        self.group = group
        self.device = next(model.parameters()).device
        self.trained = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
        self.num_users, self.num_items = NUM_USERS, NUM_ITEMS
        self.original = None if make is None else self._small(make)
        if self.original is None:
            self.num_users, self.num_items = num_users, num_items
            with contextlib.suppress(Exception):  # whatever cannot be copied in somebody's network
                self.original = deepcopy(model)

    def _small(self, make: Callable[[int, int], nn.Module]) -> nn.Module | None:
        """Make a small network, or return None where the class cannot be made, copied, run or trained at that size."""
        try:
            with _quietly():
                small = make(NUM_USERS, NUM_ITEMS).to(self.device)
                users = torch.arange(NUM_USERS, device=self.device)
                copy = deepcopy(small)
                predictions, score = copy(users, users)
                (predictions + score).sum().backward()
                ByForward(copy, NUM_ITEMS).pairs(users, users)
        except Exception:
            return None
        return small if dict(small.named_parameters()).keys() == self.trained.keys() else None

    def network(self) -> nn.Module:
        """Make a network; all have the same random numbers in their parameters."""
        made = deepcopy(self.original)
        if made is None:
            raise LookupError("models.py makes a network that cannot be copied")
        generator = torch.Generator().manual_seed(0)
        tables = {table.weight for table in parts.embeddings(made)}
        for name, parameter in made.named_parameters():
            values = torch.randn(parameter.shape, generator=generator)
            if parameter in tables:
                values *= 1.2 / values.shape[1] ** 0.25  # products of two rows then do not grow with their length
                values[::2] *= SPREAD
            elif values.dim() > 1:
                values *= 1.5 / values.shape[1] ** 0.5
            parameter.data.copy_(values)
            parameter.requires_grad_(self.trained[name])
        return made

    def take_plainly(self, plain: Way, weights: Weights, candidates: int = 1) -> None:
        """Take the steps that define a way of training, so that what fails in them fails before anything is written.

        Args:
            plain: the plain way.
            weights: λ_F and λ_R of the run.
            candidates: negatives drawn for each example, as for ``Sampler``.

        Raises:
            NetworkError: models.py fails, or no gradient can be computed.
        """
        self._plain, self._weights, self._candidates = plain, weights, candidates
        self._expected: _Outcome | None = None
        try:
            self._expected = self._outcome(plain, weights) if self.original is not None else None
        except Exception as error:
            raise network.located(error) or error from error

    def difference(self, fast: Way) -> str | None:
        """Compare a way with the one that was taken plainly.

        Returns:
            What differs first, or why the way does not fit the network, or None where it may be used.
        """
        try:
            got = self._outcome(fast, self._weights)
            assert self._expected is not None
            found = _first_difference(self._expected, got)
            if found is not None and found.startswith("∂L"):
                for loss, alone in (("F", Weights(1.0, 0.0)), ("R", Weights(0.0, 1.0))):
                    if _first_difference(*(self._outcome(way, alone) for way in (self._plain, fast))) == found:
                        found = found.replace("∂L", f"∂L_{loss}")
                        break
            reason = found and f"models.py or training/steps.py gives another {found} than the {fast.name}"
        except LostProcess:
            raise
        except Exception as error:
            reason = _raised(error, fast.name)
        return self._agreed(reason)

    def ranking_difference(self, fast: Callable[[nn.Module, int], ByForward]) -> str | None:
        """Compare all items' scores with those of ``forward``; returns why they cannot be used, or None."""
        users = torch.arange(min(self.num_users, NUM_USERS), device=self.device)
        try:
            with _quietly(), torch.no_grad():
                made = self.network()
                expected = ByForward(made, self.num_items).predict_all_items(users)
                same = _close(fast(made, self.num_items).predict_all_items(users), expected)
            reason = None if same else "models.py gives other predictions than u · q + b"
        except Exception as error:
            reason = _raised(error, "matrix product")
        return self._agreed(reason)

    def _agreed(self, reason: str | None) -> str | None:
        """A way is taken by all processes or by none."""
        objections = self.group.add_up(torch.tensor([float(reason is not None)]))
        return reason or ("it differs in another process" if objections.item() > 0 else None)

    def _outcome(self, way: Way, weights: Weights) -> _Outcome:
        with _quietly():
            torch.manual_seed(0)
            model = self.network()
            adam = start_adam(flatten(model), LEARNING_RATE)
            train, generator = self._interactions(), torch.Generator(self.device).manual_seed(0)
            sampler = Sampler(train, BATCH, generator, self._candidates)
            step = way.make(model, adam, weights, Watched(train), generator)
            order = torch.arange(EXAMPLES, device=self.device)
            losses = [step.run(sampler.triples(order[:BATCH]), BATCH)]
            vectors = [adam.first_moment / (1 - BETAS[0])]
            losses.append(step.run(sampler.triples(order[BATCH:]), BATCH))
            vectors += [adam.first_moment, adam.second_moment, adam.flat.detach()]
            return _Outcome(torch.cat(losses), *(_by_name(model, vector) for vector in vectors))

    def _interactions(self) -> Interactions:
        generator = torch.Generator().manual_seed(1)
        users = torch.randint(min(self.num_users, NUM_USERS), (EXAMPLES,), generator=generator)
        items = torch.randint(min(self.num_items, NUM_ITEMS), (EXAMPLES,), generator=generator)
        ratings = torch.randint(1, 6, (EXAMPLES,), generator=generator).float()
        return Interactions(users, items, ratings, self.num_users, self.num_items).to(self.device)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Leave torch's random numbers as they are, and drop what models.py prints."""
    with torch.random.fork_rng(range(torch.cuda.device_count())), contextlib.redirect_stdout(io.StringIO()):
        yield


def _by_name(model: nn.Module, vector: Tensor) -> dict[str, Tensor]:
    """The part of each parameter; that of an embedding goes by the embedding's name."""
    tables = {table.weight for table in parts.embeddings(model)}
    name_of = {
        parameter: name.removesuffix(".weight") if parameter in tables else name
        for name, parameter in model.named_parameters()
    }
    return {name_of[each]: part for each, part in zip(parts.parameters(model), slices(model, vector), strict=True)}


def _first_difference(expected: _Outcome, got: _Outcome) -> str | None:
    """Name what differs: a loss or a gradient of the first step, how far a parameter moved, or a later loss."""
    losses = list(zip(("L_F", "L_R"), got.losses.T, expected.losses.T, strict=True))
    for name, one, other in losses:
        if not _close(one[:1], other[:1]):
            return name
    for name, gradient in expected.gradient.items():
        if not _close(got.gradient[name], gradient):
            return f"∂L/∂{name}"
    for name, gradient in expected.gradient.items():
        clear = gradient.abs() > CLEAR * gradient.abs().max()
        moments = [(got.first_moment, expected.first_moment), (got.second_moment, expected.second_moment)]
        alike = all(_close(one[name], other[name], LATER_TOLERANCE) for one, other in moments)
        allowed = STEP_TOLERANCE * LEARNING_RATE + ROUNDING * expected.values[name].abs()
        if not alike or bool(((got.values[name] - expected.values[name]).abs() > allowed)[clear].any()):
            return f"step of {name}"
    return next((name for name, one, other in losses if not _close(one, other, LATER_TOLERANCE)), None)


def _close(got: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> bool:
    """Whether two tensors agree up to rounding, relative to the largest element."""
    if got.shape != expected.shape or not bool(got.isfinite().all()):
        return False
    largest = expected.abs().max().item() if expected.numel() else 0.0
    return bool(((got - expected).abs() <= tolerance * largest).all())


def _raised(error: Exception, name: str) -> str:
    """Why a fast way does not fit the network."""
    if type(error) is LookupError:
        return str(error)
    return f"the {name} does not fit models.py ({type(error).__name__}: {(str(error).splitlines() or [''])[0]})"
