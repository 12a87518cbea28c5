"""The unit of the ratings that a network learns: their own, or their standard deviation.

In units of the training ratings, z = (r − μ) / s, λ_R weighs alike for ratings of any scale, and the network need not
learn their mean. Metrics and recommendations are in the ratings' own unit again, r̂ = μ + s · ẑ.
"""

from typing import NamedTuple

from torch import Tensor

LEAST, MOST = 0.5, 5.0  # ratings within this range are learned in their own unit, as the homework does


class Scale(NamedTuple):
    """The mean μ and the standard deviation s of the training ratings; 0 and 1 for their own unit."""

    mean: float = 0.0
    spread: float = 1.0

    @classmethod
    def of(cls, ratings: Tensor, unit: str) -> "Scale":
        """Return the scale of training ratings.

        Args:
            ratings: (n,); NaN for an interaction without a rating.
            unit: "star", "spread", or "auto": spread where a rating is outside LEAST to MOST.
        """
        rated = ratings[~ratings.isnan()].cpu().double()
        is_usual = len(rated) == 0 or bool(rated.min() >= LEAST and rated.max() <= MOST)
        if len(rated) == 0 or unit == "star" or (unit == "auto" and is_usual):
            return cls()
        return cls(rated.mean().item(), rated.std(correction=0).item() or 1.0)

    @property
    def is_own_unit(self) -> bool:
        return self == Scale()

    def to_units(self, ratings: Tensor) -> Tensor:
        """Return ratings in units of the scale: (n,) float32 to (n,) float32."""
        if self.is_own_unit:
            return ratings
        return ((ratings.cpu().double() - self.mean) / self.spread).float().to(ratings.device)

    def from_units(self, scores: Tensor) -> Tensor:
        """Return predictions of a network in the ratings' own unit: (n,) float32 to (n,) float32."""
        if self.is_own_unit:
            return scores
        return (scores.cpu().double() * self.spread + self.mean).float().to(scores.device)

    @property
    def notice(self) -> str:
        """Return a line for the user if the ratings are not learned in their own unit, else ""."""
        if self.is_own_unit:
            return ""
        return (
            f"L_R is in units of the training ratings' variance: mean {self.mean:.6g}, standard deviation "
            f"{self.spread:.6g} (rating_unit)"
        )
