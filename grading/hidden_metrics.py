"""Equations 1 and 4 with a submission's trained parameters, as a recommender for ``metrics``."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from grading.checks import Parameters
from grading.hidden_oracle import Pairs


@dataclass(frozen=True)
class ByEquations:
    """A recommender by the equations. The fields are those of ``Pairs``."""

    parameters: Parameters
    names: tuple[str, ...]
    layers: Sequence[str]

    def predict_all_items(self, user_ids: Tensor) -> Tensor:
        """Compute equation 1 for every item: (users,) → (users, items)."""
        users, items, bias = (torch.as_tensor(self.parameters[name]) for name in (*self.names[-2:], "B"))
        return (users[user_ids] @ items.T + bias.T).float()

    def predict_ratings(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Compute equation 4: (batch,) user IDs and item IDs → (batch,)."""
        pairs = Pairs(self.parameters, self.names, self.layers, user_ids.numpy(), item_ids.numpy())
        return torch.tensor(pairs.ratings(), dtype=torch.float32)
