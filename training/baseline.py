"""The baseline of a rating: biases of users and items, and factors, all from the training ratings.

With a baseline the network learns only the part of a rating that the biases of its user and its item leave,
r̂_ij = μ + a_i + c_j + s · ẑ_ij, and r̂ is limited to the range of the training ratings. With ``rating_factors`` the
baseline is μ + a_i + c_j + f_i·g_j (``factors.py``). All biases together minimize

    J = Σ e_ij² + λ_a Σ a_i² + λ_c Σ c_j²,    e_ij = r_ij − μ − a_i − c_j

The dampings λ_a and λ_c are estimated from the ratings: they are a fixed point of the evidence (MacKay, Bayesian
Interpolation, Neural Computation 4(3), 1992),

    λ_a = σ² d_a / Σ a_i²,    d_a = Σ n_i / (n_i + λ_a),    λ_c in the same way,    σ² = J / n

d_a and d_c are the effective numbers of biases. At the fixed point σ² is also Σ e² / (n − d_a − d_c); J / n is positive
for any dampings.

A bias that includes a rating leaves too little of it, and no rating of the test set is included. Therefore the network
learns leave-one-out residuals: those of ridge regression, e / (1 − h) = e (1 + v), where v is the variance of a_i + c_j
without the rating, in units of σ². Here v is taken as the sum of the variances of two damped means:

    z_ij = e_ij · (1 + 1 / (λ_a + n_i − 1) + 1 / (λ_c + n_j − 1)) / s

This v is exact for a user and an item without other ratings. Elsewhere it is too small, because the other biases are
estimates, too: by 1 to 5 percent on average on MovieLens 100K, FilmTrust and a sparse sample of MovieLens. With factors
e is the residual of both, v has a term for each of their dimensions, and z is too small by about 5 percent. Factors are
left out if they do not make the mean square of these residuals smaller; some fit noise that differs between users.
"""

import contextlib
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from data import Interactions
from training.factors import Factors

PASSES, ESTIMATES = 14, 10  # over the ratings; the first ones are each followed by an estimate of the dampings
FIRST_DAMPING, LEAST_DAMPING, MOST_DAMPING = 5.0, 0.1, 1000.0


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let the bits of sums depend on no number of cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class Dampings(NamedTuple):
    """λ_a of the users' biases and λ_c of the items'."""

    users: float
    items: float


class Baseline(NamedTuple):
    """The biases of users and items, and the range that predicted ratings are limited to.

    Attributes:
        dampings: λ_a and λ_c.
        lowest, highest: the range of the ratings that the biases are computed from.
        users, items: a, (num_users,), and c, (num_items,): float64 on the CPU, in the ratings' own unit. They are 0 for
            users and items without ratings.
        factors: f and g, perhaps without dimensions.
    """

    dampings: Dampings
    lowest: float
    highest: float
    users: Tensor
    items: Tensor
    factors: Factors

    @classmethod
    @one_thread()
    def of(
        cls, interactions: Interactions, mean: float, dampings: Dampings | None = None, dimensions: int = 0
    ) -> "Baseline":
        """Compute the biases, and factors, from the interactions that have a rating.

        Each pass computes the items' biases for given users' biases, then the reverse, both in closed form. A shift of
        all users' biases against all items' biases changes no e. Each pass begins with the shift that decreases J most,
        because the two closed forms alone approach it slowly.

        Args:
            mean: μ.
            dampings: of the biases; estimated by default.
            dimensions: the greatest number of those of the factors.
        """
        rated = _rated(interactions)
        users, items = (torch.zeros(n, dtype=torch.float64) for n in (rated.num_users, rated.num_items))
        used = dampings or Dampings(FIRST_DAMPING, FIRST_DAMPING)
        if len(rated) == 0:
            return cls(used, -math.inf, math.inf, users, items, Factors.none(len(users), len(items)))
        user_counts, item_counts = _counts(rated.user_ids, rated.num_users), _counts(rated.item_ids, rated.num_items)
        errors = rated.ratings.double() - mean
        for number in range(PASSES):
            shift = used.items * items.sum() - used.users * users.sum()
            shift /= used.items * len(items) + used.users * len(users)
            items = _fit(errors, rated.item_ids, items - shift, used.items + item_counts)
            users = _fit(errors, rated.user_ids, users + shift, used.users + user_counts)
            if dampings is None and number < ESTIMATES:
                variance = (errors @ errors + used.users * users @ users + used.items * items @ items) / len(rated)
                of_users = _next_damping(used.users, users, user_counts, variance)
                used = Dampings(of_users, _next_damping(used.items, items, item_counts, variance))
        lowest, highest = rated.ratings.aminmax()
        sizes = len(users), len(items)
        without = cls(used, lowest.item(), highest.item(), users, items, Factors.none(*sizes))
        if dimensions == 0:
            return without
        factors = Factors.of(errors, (rated.user_ids, rated.item_ids), sizes, dimensions)
        found = without, without._replace(factors=factors)
        return min(found, key=lambda each: float(each.residuals(rated, mean).square().mean()))

    @property
    def tables(self) -> tuple[Tensor, ...]:
        """Return all tensors, to write them to a file; ``Scale.of_numbers`` reads them."""
        return self.users, self.items, *self.factors

    def predicted(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Return a_i + c_j + f_i·g_j: (n,) float64."""
        return self.users[user_ids] + self.items[item_ids] + self.factors.predicted(user_ids, item_ids)

    def residuals(self, interactions: Interactions, mean: float) -> Tensor:
        """Return the leave-one-out residuals of the ratings that the baseline is computed from: (n,) float64.

        They are NaN for interactions without a rating.

        Args:
            mean: μ.
        """
        rated, users, items = interactions.rated.cpu(), interactions.user_ids.cpu(), interactions.item_ids.cpu()
        of_users = _variances(self.dampings.users, _counts(users[rated], interactions.num_users))
        of_items = _variances(self.dampings.items, _counts(items[rated], interactions.num_items))
        variances = of_users[users] + of_items[items]
        variances[rated] += self.factors.variances(users[rated], items[rated])
        return (interactions.ratings.cpu().double() - mean - self.predicted(users, items)) * (1 + variances)

    def of_new_user(self, ratings: Tensor, item_ids: Tensor, mean: float) -> tuple["Baseline", Tensor]:
        """Return the baseline of a new user, whose ID is 0, and the leave-one-out residuals of the ratings.

        Args:
            ratings: (n,) float64, NaN for an interaction without a rating.
            item_ids: (n,) int64.
            mean: μ.

        Returns:
            The baseline, and (n,) float64.
        """
        errors, rated = ratings - mean - self.items[item_ids], ~ratings.isnan()
        count, user_ids = rated.sum(), torch.zeros_like(item_ids)
        bias = errors.nansum() / (self.dampings.users + count)
        errors -= bias
        factors = self.factors.of_users(errors[rated], user_ids[rated], item_ids[rated], 1)
        variances = torch.full_like(errors, _variances(self.dampings.users, count).item())
        variances[rated] += factors.variances(user_ids[rated], item_ids[rated], with_items=False)
        found = self._replace(users=bias.reshape(1), factors=factors)
        return found, (errors - factors.predicted(user_ids, item_ids)) * (1 + variances)

    def of_later(self, interactions: Interactions, mean: float) -> "Baseline":
        """Return the baseline of other interactions with the same items, with these dampings and factors of items.

        Args:
            mean: μ.
        """
        found, rated = Baseline.of(interactions, mean, self.dampings), _rated(interactions)
        errors = rated.ratings.double() - mean - found.predicted(rated.user_ids, rated.item_ids)
        factors = self.factors.of_users(errors, rated.user_ids, rated.item_ids, rated.num_users)
        return found._replace(factors=factors)


def _rated(interactions: Interactions) -> Interactions:
    """Return the interactions that have a rating, on the CPU."""
    interactions = interactions.to("cpu")
    return interactions if bool(interactions.rated.all()) else interactions.select(interactions.rated)


def _counts(ids: Tensor, count: int) -> Tensor:
    return torch.bincount(ids, minlength=count).double()


def _fit(errors: Tensor, ids: Tensor, biases: Tensor, weights: Tensor) -> Tensor:
    """Return the users' or the items' biases with the smallest J for given biases of the others.

    Args:
        errors: (n,), e with the biases before; changed to e with the new ones.
        ids: the user or the item of each rating, (n,).
        biases: the biases before.
        weights: for each user or item, the damping plus the number of ratings.
    """
    errors += biases[ids]
    biases = torch.bincount(ids, errors, minlength=len(weights)) / weights
    errors -= biases[ids]
    return biases


def _next_damping(damping: float, biases: Tensor, counts: Tensor, variance: Tensor) -> float:
    """Return the damping of the next pass; ``variance`` is σ²."""
    squares, effective_number = biases.square().sum(), (counts / (damping + counts)).sum()
    found = variance * effective_number / squares if squares > 0 else math.inf
    return min(max(float(found), LEAST_DAMPING), MOST_DAMPING)


def _variances(damping: float, counts: Tensor) -> Tensor:
    """Return the variances of damped means of one value fewer than ``counts``, in units of the values' variance."""
    return 1 / (damping + counts - 1)
