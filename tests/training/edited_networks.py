"""Networks with an edit that only some comparisons can see."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from models import MultiTaskNet

Change = Callable[[MultiTaskNet, Tensor, Tensor], Tensor]  # of the network, an output and the items


def edited(predictions: Change = lambda _, p, items: p, score: Change = lambda _, r, items: r) -> type[MultiTaskNet]:
    """Make a class of networks whose outputs are changed."""

    class Edited(MultiTaskNet):
        def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
            p, r = super().forward(user_ids, item_ids)
            return predictions(self, p, item_ids), score(self, r, item_ids)

    return Edited


def bias(net: MultiTaskNet, items: Tensor) -> Tensor:
    found: Tensor = net.B(items).squeeze(-1)
    return found


WithoutBias = edited(lambda net, p, items: p - bias(net, items))  # only visible where biases are not 0
BiasTeachesNothing = edited(lambda net, p, items: p - bias(net, items) + bias(net, items).detach())
TwiceTheSlope = edited(score=lambda net, r, items: 2 * r - r.detach())
Bounded = edited(lambda net, p, items: p.clamp(-8, 8))  # only visible where predictions are large
NoStars = edited(score=lambda net, r, items: r.relu())  # only visible where a score is below 0
InTrainingAlone = edited(lambda net, p, items: 2 * p if net.training else p)
InEvaluationAlone = edited(lambda net, p, items: p if net.training else 2 * p)
Random = edited(lambda net, p, items: functional.dropout(p, 0.1, net.training))
AtItsStartAlone = edited(score=lambda net, r, items: torch.where(r.abs() < 0.05, 1 + r, r))  # where a score is near 0
ForItemsAbove60 = edited(lambda net, p, items: torch.where(items > 60, 5 * p, p))
ReadsTheWholeTable = edited(lambda net, p, items: p - net.Q.weight.mean())


class Counts(MultiTaskNet):
    """Only visible after ten steps."""

    calls = 0

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        self.calls += 1
        p, r = super().forward(user_ids, item_ids)
        return 5 * p if self.calls > 20 else p, r


class Collects(MultiTaskNet):
    """Counts in a dictionary, whose length stays the same."""

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__(num_users, num_items)
        self.seen = {"pairs": [0]}

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        self.seen["pairs"][0] += len(user_ids)
        return super().forward(user_ids, item_ids)


class Remembers(MultiTaskNet):
    """Keeps a running mean in a buffer, for evaluation."""

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__(num_users, num_items)
        self.register_buffer("mean", torch.zeros(num_items))

    def forward(self, user_ids: Tensor, item_ids: Tensor) -> tuple[Tensor, Tensor]:
        p, r = super().forward(user_ids, item_ids)
        mean = self.get_buffer("mean")
        if self.training:
            mean[item_ids] += 0.1
        return p if self.training else p + mean[item_ids], r


class Hooked(MultiTaskNet):
    """Cuts a gradient by a hook."""

    def __init__(self, num_users: int, num_items: int) -> None:
        super().__init__(num_users, num_items)
        self.U.weight.register_hook(lambda gradient: gradient.clamp(-1e-6, 1e-6))


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
