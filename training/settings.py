"""What training depends on besides the network, the data and the seed."""

import math
from dataclasses import dataclass, field

from training.recipe import Recipe

OPTIMIZERS = ("auto", "adam", "lazy_adam")
LARGEST_WEIGHT = 1e9  # Adam squares gradients, and float32 ends at 3e38


@dataclass(frozen=True)
class Settings:
    """What training depends on besides the network, the data and the seed.

    Attributes:
        factorization_weight, regression_weight: λ_F and λ_R, from 0 to LARGEST_WEIGHT and not both zero.
        batch_size: observed triples a step; the last batch of an epoch may be smaller.
        learning_rate: Adam's, positive.
        optimizer: "adam", which moves every embedding in every step; "lazy_adam", only those that a batch looks up;
            "auto", the second where the tables are large, see ``step_factory.pick_optimizer``.
        recipe: what is added to the homework's way of training.
        epochs: how many there will be, for a recipe that depends on it.

    Raises:
        ValueError: one of them is out of range.
    """

    factorization_weight: float = 0.99
    regression_weight: float = 0.01
    batch_size: int = 256
    learning_rate: float = 1e-3
    optimizer: str = "auto"
    recipe: Recipe = field(default_factory=Recipe)
    epochs: int = 0

    def __post_init__(self) -> None:
        for name in ("factorization_weight", "regression_weight"):
            weight = getattr(self, name)
            if not 0 <= weight <= LARGEST_WEIGHT:
                raise ValueError(f"{name} is {weight}: expected a number from 0 to {LARGEST_WEIGHT:g}")
        if self.factorization_weight == self.regression_weight == 0:
            raise ValueError("factorization_weight and regression_weight are both 0: there is nothing to learn from")
        if self.batch_size < 1:
            raise ValueError(f"batch_size is {self.batch_size}: expected at least 1")
        if not (math.isfinite(self.learning_rate) and self.learning_rate > 0):
            raise ValueError(f"learning_rate is {self.learning_rate}: expected a positive number")
        if self.recipe.needs_epochs and self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}: expected at least 1")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"optimizer is {self.optimizer}: expected {', '.join(OPTIMIZERS)}")
