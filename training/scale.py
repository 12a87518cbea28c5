"""The values that a network learns for ratings: in which unit, and above which baseline.

In units of the training ratings, z = (r − μ) / s, λ_R weighs alike for ratings of any scale, and the network need not
learn their mean. Metrics and recommendations are in the ratings' own unit again, r̂ = μ + s · ẑ.

With a baseline the network learns only the part of a rating that the baseline leaves (``baseline.py``).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from data import Interactions
from training.baseline import Baseline, Dampings, one_thread
from training.factors import Factors

LEAST, MOST = 0.5, 5.0  # ratings within this range are learned in their own unit, as the homework does


class Scale(NamedTuple):
    """The unit of the values that a network learns, and their baseline.

    Attributes:
        mean, spread: μ and s, the mean and the standard deviation of the training ratings; s is 1, and without a
            baseline μ is 0, where ratings are learned in their own unit.
        baseline: the biases and factors; None without them.
    """

    mean: float = 0.0
    spread: float = 1.0
    baseline: Baseline | None = None

    @classmethod
    @one_thread()
    def of(cls, train: Interactions, unit: str, with_baseline: bool = False, dimensions: int = 0) -> "Scale":
        """Return the scale of training ratings.

        The unit is independent of the baseline: "star", and "auto" for ratings within LEAST to MOST, give s = 1.

        Args:
            train: the training set; its ratings are NaN for interactions without one.
            unit: "star", "spread", or "auto": spread where a rating is outside LEAST to MOST.
            with_baseline: whether the network learns residuals of biases.
            dimensions: the greatest number of those of the baseline's factors.
        """
        rated = train.ratings[train.rated].cpu().double()
        is_usual = len(rated) == 0 or bool(rated.min() >= LEAST and rated.max() <= MOST)
        is_own = len(rated) == 0 or unit == "star" or (unit == "auto" and is_usual)
        if len(rated) == 0 or (is_own and not with_baseline):
            return cls()
        mean, spread = rated.mean().item(), 1.0 if is_own else rated.std(correction=0).item() or 1.0
        return cls(mean, spread, Baseline.of(train, mean, dimensions=dimensions) if with_baseline else None)

    @property
    def numbers(self) -> tuple[float, ...]:
        """Return everything but the baseline's tables, to write it to a file; ``of_numbers`` reads both."""
        if self.baseline is None:
            return (self.mean, self.spread)
        return (self.mean, self.spread, *self.baseline.dampings, self.baseline.lowest, self.baseline.highest)

    @classmethod
    def of_numbers(cls, numbers: Sequence[float], tables: Sequence[Tensor]) -> "Scale":
        """Return the scale of these numbers and ``Baseline.tables``; no tables for one without a baseline."""
        mean, spread, *others = numbers
        if not others:
            return cls(mean, spread)
        user_damping, item_damping, lowest, highest = others
        users, items, *factors = tables
        dampings = Dampings(user_damping, item_damping)
        return cls(mean, spread, Baseline(dampings, lowest, highest, users, items, Factors(*factors)))

    @property
    def is_own_unit(self) -> bool:
        """Return whether the network learns ratings as they are."""
        return self == Scale()

    def _expected(self, user_ids: Tensor, item_ids: Tensor) -> Tensor | float:
        """Return μ + a_i + c_j + f_i·g_j: (n,) float64 on the CPU; without a baseline μ."""
        if self.baseline is None:
            return self.mean
        return self.mean + self.baseline.predicted(user_ids.cpu(), item_ids.cpu())

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

        With a baseline they are leave-one-out residuals.
        """
        if self.baseline is None:
            return self.to_units(train.ratings, train.user_ids, train.item_ids)
        residuals = self.baseline.residuals(train, self.mean)
        return (residuals / self.spread).float().to(train.ratings.device)

    def of_new_user(self, ratings: Tensor, item_ids: Tensor) -> tuple["Scale", Tensor]:
        """Return the scale of a new user, whose ID is 0, and the values of that user's ratings.

        The biases of items do not include these ratings. The user's bias is computed from them, and for the value of
        a rating from the others.

        Args:
            ratings: (n,) float32, NaN for an interaction without a rating.
            item_ids: (n,) int64.
        """
        if self.baseline is None:
            return self, self.to_units(ratings, torch.zeros_like(item_ids), item_ids)
        baseline, residuals = self.baseline.of_new_user(ratings.double(), item_ids, self.mean)
        return self._replace(baseline=baseline), (residuals / self.spread).float()

    @property
    def notice(self) -> str:
        """Return a line for the user if the ratings are not learned as they are, else ""."""
        lines = []
        if self.baseline is not None:
            dampings = self.baseline.dampings
            dimensions = self.baseline.factors.items.shape[1]
            lines.append(
                f"ratings are learned above a baseline of biases, damped by {dampings.users:.4g} for users and by "
                f"{dampings.items:.4g} for items (rating_baseline)"
                + (f", and of factors with {dimensions} dimensions (rating_factors)" if dimensions else "")
            )
        if self.spread != 1 or (self.mean != 0 and self.baseline is None):
            lines.append(
                f"L_R is in units of the training ratings' variance: mean {self.mean:.6g}, standard deviation "
                f"{self.spread:.6g} (rating_unit)"
            )
        return "; ".join(lines)
