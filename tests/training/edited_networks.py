"""Networks with an edit that only some comparisons can see."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from models import MultiTaskNet


class Edited(MultiTaskNet):
    """A network whose outputs are edited."""

    def predictions(self, p: Tensor, users: Tensor, items: Tensor) -> Tensor:
        return p

    def score(self, r: Tensor, users: Tensor, items: Tensor) -> Tensor:
        return r

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        p, r = super().forward(user_ids, item_ids)
        return self.predictions(p, user_ids, item_ids), self.score(r, user_ids, item_ids)


class WithoutBias(Edited):
    """Only visible where biases are not 0."""

    def predictions(self, p: Tensor, users: Tensor, items: Tensor) -> Tensor:
        bias: Tensor = self.B(items)
        return p - bias.squeeze(-1)


class BiasTeachesNothing(Edited):
    """The same outputs; only the gradient of B differs."""

    def predictions(self, p: Tensor, users: Tensor, items: Tensor) -> Tensor:
        b: Tensor = self.B(items).squeeze(-1)
        return p - b + b.detach()


class TwiceTheSlope(Edited):
    """The same outputs; only the gradient of the MSE differs."""

    def score(self, r: Tensor, users: Tensor, items: Tensor) -> Tensor:
        return 2 * r - r.detach()


class Bounded(Edited):
    """Only visible where predictions are large."""

    def predictions(self, p: Tensor, users: Tensor, items: Tensor) -> Tensor:
        return p.clamp(-8, 8)


class NoStars(Edited):
    """Only visible where a score is below 0."""

    def score(self, r: Tensor, users: Tensor, items: Tensor) -> Tensor:
        return r.relu()


class InTrainingAlone(Edited):
    def predictions(self, p: Tensor, users: Tensor, items: Tensor) -> Tensor:
        return 2 * p if self.training else p


class InEvaluationAlone(Edited):
    def predictions(self, p: Tensor, users: Tensor, items: Tensor) -> Tensor:
        return p if self.training else 2 * p


class Random(Edited):
    def predictions(self, p: Tensor, users: Tensor, items: Tensor) -> Tensor:
        return functional.dropout(p, 0.1, self.training)


class AtItsStartAlone(Edited):
    """Only visible where a score is near 0."""

    def score(self, r: Tensor, users: Tensor, items: Tensor) -> Tensor:
        return torch.where(r.abs() < 0.05, 1 + r, r)


class ForItemsAbove60(Edited):
    def predictions(self, p: Tensor, users: Tensor, items: Tensor) -> Tensor:
        return torch.where(items > 60, 5 * p, p)


class Counts(Edited):
    """Only visible after ten steps."""

    calls = 0

    def predictions(self, p: Tensor, users: Tensor, items: Tensor) -> Tensor:
        self.calls += 1
        return 5 * p if self.calls > 20 else p


class Collects(Edited):
    """Counts in a dictionary, whose length stays the same."""

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__(num_users, num_items)
        self.seen = {"pairs": [0]}

    def predictions(self, p: Tensor, users: Tensor, items: Tensor) -> Tensor:
        self.seen["pairs"][0] += len(p)
        return p


class Remembers(Edited):
    """Keeps a running mean in a buffer, for evaluation."""

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__(num_users, num_items)
        self.register_buffer("mean", torch.zeros(num_items))

    def predictions(self, p: Tensor, users: Tensor, items: Tensor) -> Tensor:
        mean = self.get_buffer("mean")
        if self.training:
            mean[items] += 0.1
        return p if self.training else p + mean[items]


class Hooked(MultiTaskNet):
    """Cuts a gradient by a hook."""

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__(num_users, num_items)
        self.U.weight.register_hook(lambda gradient: gradient.clamp(-1e-6, 1e-6))


class ReadsTheWholeTable(Edited):
    def predictions(self, p: Tensor, users: Tensor, items: Tensor) -> Tensor:
        return p - self.Q.weight.mean()


class Elsewhere(nn.Module):
    """The whole contract, without the homework's names."""

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.randn(num_users + num_items, 4))
        self.num_users = num_users

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        product = self.rows[user_ids] * self.rows[self.num_users + item_ids]
        return product.sum(1), product.mean(1)


class Loud(MultiTaskNet):
    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        print("forward")
        return super().forward(user_ids, item_ids)


class Uncopyable(MultiTaskNet):
    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("no copies")
