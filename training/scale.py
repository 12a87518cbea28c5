"""The values that a network learns for ratings: in which unit, and above which baseline.

In units of the training ratings, z = (r − μ) / s, λ_R weighs alike for ratings of any scale, and the network need not
learn their mean. Metrics and recommendations are in the ratings' own unit again, r̂ = μ + s · ẑ.

With a baseline the network learns only the part of a rating that the biases of its user and its item leave,
r̂_ij = μ + a_i + c_j + s · ẑ_ij, and r̂ is limited to the range of the training ratings. The biases are sums over the
ratings of an item or a user, damped by λ_c or λ_a (Koren, Factor in the Neighbors, TKDD 2010, section 2.1):

    c_j = Σ_i (r_ij − μ) / (λ_c + n_j),    a_i = Σ_j (r_ij − μ − c_j) / (λ_a + n_i)

A bias that includes a rating leaves too little of it, and no rating of the test set is included. Therefore both biases
of a training rating are computed without it (leave-one-out), and so are the errors that choose λ_a and λ_c:

    z_ij = (r_ij − μ − a_i⁽⁻ʲ⁾ − c_j⁽⁻ⁱ⁾) / s
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from data import Interactions

LEAST, MOST = 0.5, 5.0  # ratings within this range are learned in their own unit, as the homework does
DAMPINGS = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 18.0, 25.0, 40.0, 60.0, 100.0)  # of which λ_a and λ_c are chosen


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
    """

    dampings: Dampings
    lowest: float
    highest: float
    users: Tensor
    items: Tensor

    @classmethod
    def of(cls, interactions: Interactions, mean: float, dampings: Dampings | None = None) -> "Baseline":
        """Compute the biases from the interactions that have a rating.

        Args:
            mean: μ.
            dampings: by default those of DAMPINGS with the smallest leave-one-out mean squared error.
        """
        rated = _rated(interactions)
        if len(rated) == 0:
            none = (torch.zeros(n, dtype=torch.float64) for n in (interactions.num_users, interactions.num_items))
            return cls(dampings or Dampings(DAMPINGS[0], DAMPINGS[0]), -math.inf, math.inf, *none)
        dampings = dampings or choose_dampings(rated, mean)
        deviations = rated.ratings.double() - mean
        items = _sums(rated.item_ids, deviations, rated.num_items)
        items /= dampings.items + _counts(rated.item_ids, rated.num_items)
        users = _sums(rated.user_ids, deviations - items[rated.item_ids], rated.num_users)
        users /= dampings.users + _counts(rated.user_ids, rated.num_users)
        lowest, highest = rated.ratings.aminmax()
        return cls(dampings, lowest.item(), highest.item(), users, items)


class Scale(NamedTuple):
    """The unit of the values that a network learns, and their baseline.

    Attributes:
        mean, spread: μ and s, the mean and the standard deviation of the training ratings; s is 1, and without a
            baseline μ is 0, where ratings are learned in their own unit.
        baseline: the biases; None without them.
    """

    mean: float = 0.0
    spread: float = 1.0
    baseline: Baseline | None = None

    @classmethod
    def of(cls, train: Interactions, unit: str, with_baseline: bool = False) -> "Scale":
        """Return the scale of training ratings.

        The unit is independent of the baseline: "star", and "auto" for ratings within LEAST to MOST, give s = 1.

        Args:
            train: the training set; its ratings are NaN for interactions without one.
            unit: "star", "spread", or "auto": spread where a rating is outside LEAST to MOST.
            with_baseline: whether the network learns what the biases leave.
        """
        rated = train.ratings[train.rated].cpu().double()
        is_usual = len(rated) == 0 or bool(rated.min() >= LEAST and rated.max() <= MOST)
        is_own = len(rated) == 0 or unit == "star" or (unit == "auto" and is_usual)
        if len(rated) == 0 or (is_own and not with_baseline):
            return cls()
        mean, spread = rated.mean().item(), 1.0 if is_own else rated.std(correction=0).item() or 1.0
        return cls(mean, spread, Baseline.of(train, mean) if with_baseline else None)

    @property
    def numbers(self) -> tuple[float, ...]:
        """Return everything but the biases, to write it to a file; ``of_numbers`` reads it."""
        if self.baseline is None:
            return (self.mean, self.spread)
        return (self.mean, self.spread, *self.baseline.dampings, self.baseline.lowest, self.baseline.highest)

    @classmethod
    def of_numbers(cls, numbers: Sequence[float], biases: Sequence[Tensor]) -> "Scale":
        """Return the scale of these numbers and the biases of users and items; no biases for one without a baseline."""
        mean, spread, *others = numbers
        if not others:
            return cls(mean, spread)
        user_damping, item_damping, lowest, highest = others
        users, items = biases
        return cls(mean, spread, Baseline(Dampings(user_damping, item_damping), lowest, highest, users, items))

    @property
    def is_own_unit(self) -> bool:
        """Return whether the network learns ratings as they are."""
        return self == Scale()

    def _expected(self, user_ids: Tensor, item_ids: Tensor) -> Tensor | float:
        """Return μ + a_i + c_j: (n,) float64 on the CPU; without biases μ."""
        if self.baseline is None:
            return self.mean
        return self.mean + self.baseline.users[user_ids.cpu()] + self.baseline.items[item_ids.cpu()]

    def to_units(self, ratings: Tensor, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Return the network's values for ratings that no bias includes: (n,) float32 to (n,) float32."""
        if self.is_own_unit:
            return ratings
        above = ratings.cpu().double() - self._expected(user_ids, item_ids)
        return (above / self.spread).float().to(ratings.device)

    def from_units(self, scores: Tensor, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Return predictions of a network in the ratings' own unit: (n,) float32 to (n,) float32.

        With a baseline they are limited to the range of the ratings.
        """
        if self.is_own_unit:
            return scores
        stars = scores.cpu().double() * self.spread + self._expected(user_ids, item_ids)
        if self.baseline is not None:
            stars = stars.clamp(self.baseline.lowest, self.baseline.highest)
        return stars.float().to(scores.device)

    def limit(self, scores: Tensor, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Limit predictions of a network, in its unit, as ``from_units`` does; without a baseline return them."""
        if self.baseline is None:
            return scores
        expected = self._expected(user_ids, item_ids)
        ends = (self.baseline.lowest - expected) / self.spread, (self.baseline.highest - expected) / self.spread
        lowest, highest = (torch.as_tensor(end).float().to(scores.device) for end in ends)
        return scores.clamp(lowest, highest)

    def targets(self, train: Interactions) -> Tensor:
        """Return the values that the network learns for the ratings that the scale is of: (n,) float32.

        With a baseline each is computed with biases without this rating.
        """
        if self.baseline is None:
            return self.to_units(train.ratings, train.user_ids, train.item_ids)
        rated, users, items = train.rated.cpu(), train.user_ids.cpu(), train.item_ids.cpu()
        biases, dampings = self.baseline, self.baseline.dampings
        item_weights = dampings.items + _counts(items[rated], train.num_items)
        user_weights = dampings.users + _counts(users[rated], train.num_users)
        deviations = train.ratings.cpu().double() - self.mean
        above_items = deviations - biases.items[items]
        deviations -= _without(deviations, biases.items[items], item_weights[items])
        deviations -= _without(above_items, biases.users[users], user_weights[users])
        return (deviations / self.spread).float().to(train.ratings.device)

    def of_new_user(self, ratings: Tensor, item_ids: Tensor) -> tuple["Scale", Tensor]:
        """Return the scale of a new user, whose ID is 0, and the values of that user's ratings.

        The biases of items do not include these ratings. The user's bias is computed from them, and for the value of
        a rating without it.

        Args:
            ratings: (n,) float32, NaN for an interaction without a rating.
            item_ids: (n,) int64.
        """
        if self.baseline is None:
            return self, self.to_units(ratings, torch.zeros_like(item_ids), item_ids)
        above = ratings.double() - self.mean - self.baseline.items[item_ids]
        weight = self.baseline.dampings.users + (~above.isnan()).sum()
        bias = above.nansum() / weight
        scale = self._replace(baseline=self.baseline._replace(users=bias.reshape(1)))
        return scale, ((above - _without(above, bias, weight)) / self.spread).float()

    @property
    def notice(self) -> str:
        """Return a line for the user if the ratings are not learned as they are, else ""."""
        lines = []
        if self.baseline is not None:
            dampings = self.baseline.dampings
            lines.append(
                f"ratings are learned above a baseline of biases, damped by {dampings.users:g} for users and by "
                f"{dampings.items:g} for items (rating_baseline)"
            )
        if self.spread != 1 or (self.mean != 0 and self.baseline is None):
            lines.append(
                f"L_R is in units of the training ratings' variance: mean {self.mean:.6g}, standard deviation "
                f"{self.spread:.6g} (rating_unit)"
            )
        return "; ".join(lines)


def choose_dampings(rated: Interactions, mean: float) -> Dampings:
    """Return the dampings with the smallest mean squared error of ratings predicted without themselves, μ + a + c.

    The error of a rating is e − w / (λ_a + n_i − 1), e that of μ + c_j⁽⁻ⁱ⁾ alone, w the sum of r_ik − μ − c_k over the
    user's other ratings. So three sums per user for each λ_c give the errors of every λ_a.

    Args:
        rated: interactions that all have a rating, on the CPU.
        mean: μ.
    """
    users, items = rated.user_ids, rated.item_ids
    deviations = rated.ratings.double() - mean
    item_sums, item_counts = _sums(items, deviations, rated.num_items), _counts(items, rated.num_items)
    others = (_counts(users, rated.num_users) - 1).clamp(min=0)
    smallest, best = math.inf, Dampings(DAMPINGS[0], DAMPINGS[0])
    for item_damping in DAMPINGS:
        weights = item_damping + item_counts
        biases = (item_sums / weights)[items]
        errors = deviations - _without(deviations, biases, weights[items])
        above = deviations - biases
        rest = _sums(users, above, rated.num_users)[users] - above
        products = _sums(users, errors * rest, rated.num_users)
        squares = _sums(users, rest.square(), rated.num_users)
        total = errors.square().sum()
        for user_damping in DAMPINGS:
            share = 1 / (user_damping + others)
            error = (total - 2 * (share @ products) + share.square() @ squares).item()
            if error < smallest:
                smallest, best = error, Dampings(user_damping, item_damping)
    return best


def _rated(interactions: Interactions) -> Interactions:
    """Return the interactions that have a rating, on the CPU."""
    interactions = interactions.to("cpu")
    return interactions if bool(interactions.rated.all()) else interactions.select(interactions.rated)


def _sums(ids: Tensor, values: Tensor, count: int) -> Tensor:
    """Sum the values of each ID: (n,) → (count,)."""
    return torch.bincount(ids, values, minlength=count)


def _counts(ids: Tensor, count: int) -> Tensor:
    return torch.bincount(ids, minlength=count).double()


def _without(own: Tensor, bias: Tensor, weight: Tensor) -> Tensor:
    """Return biases without one of the values that they are damped means of, elementwise.

    Args:
        own: the value to leave out.
        bias: the sum of all values, divided by ``weight``.
        weight: the damping and the number of values.
    """
    return (bias * weight - own) / (weight - 1)
