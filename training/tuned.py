"""The step with the ingredients of ``Settings`` beyond the homework, by autograd.

    L = λ_F · mean(ω_i · Σ_c w_ic · (1 − σ((p⁺ − p_ic) / T))) + λ_R · mean((r̂ − r)²) + w/2 · (‖U‖² + ‖Q‖² + ‖B‖²)

The candidates c have the weights w_ic: 1 for the highest p_ic, or softmax(p_ic / τ). The plain way changes the outputs
of the network's embeddings and ReLUs by hooks (``ForwardBatch``), and takes each loss from ``steps.py``. Its two
shortcuts are equations 1 and 4 by the network's tables (``TableBatch``), and the derivative of the loss over all
candidates (``WeightedLoss``).
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from training import parts
from training.adam import Adam
from training.distributed import Group
from training.rated_items import RatedItems
from training.rehearsal import Way
from training.settings import Settings
from training.steps import EagerStep, LossWeights, bpr_loss, joint_loss, loss_of_rated
from training.tuned_batch import ForwardBatch, TableBatch, check_parts


def ways(settings: Settings, steps: int, lazy: bool, group: Group) -> tuple[Way, list[Way]]:
    """Return the plain way of taking this step, and the fast ways, the fastest first; steps: those of the whole run."""
    if lazy or group.size > 1:
        raise ValueError(
            f"{'several processes' if group.size > 1 else 'lazy_adam'} cannot train with negatives, user_balance, "
            "watched_items, temperature, weight_decay, lr_schedule or dropout other than the homework's: leave them "
            "out, or train with one process and optimizer adam"
        )
    step = partial(TunedStep, settings=settings, steps=steps)
    fast = [
        Way("tuned step", partial(step, by_tables=True, own_derivative=True)),
        Way("tuned step with the plain loss", partial(step, by_tables=True)),
    ]
    return Way("eager step", step), fast


class WeightedLoss(torch.autograd.Function):
    """Σ_c w_c · (1 − σ((p⁺ − p_c) / T)), with its derivative: half the passes over (batch, k) that autograd makes.

    (batch,) p⁺, (batch, k) p_c and (batch, k) w_c give (batch,) losses. The w_c are constants, and overwritten.
    """

    @staticmethod
    def forward(ctx: Any, positive: Tensor, negative: Tensor, weights: Tensor, temperature: float) -> Tensor:
        wrong = torch.sub(negative, positive.unsqueeze(1)).div_(temperature).sigmoid_()  # 1 − σ(x) = σ(−x)
        weighted = weights.mul_(wrong)
        losses: Tensor = weighted.sum(1)
        ctx.temperature = temperature
        ctx.save_for_backward(weighted.addcmul_(weighted, wrong, value=-1))
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None, None]:
        slope: Tensor = ctx.saved_tensors[0] * (gradients[0] / ctx.temperature).unsqueeze(1)
        return -slope.sum(1), slope, None, None


class TunedStep(EagerStep):
    """The eager step with the ingredients of the settings.

    Args:
        generator: of the dropout and of shared negatives, on the network's device.
        settings: the ingredients.
        steps: the number of steps of the whole run, for a learning rate that falls.
        by_tables: compute equations 1 and 4 from the network's tables.
        own_derivative: compute the loss over all candidates by ``WeightedLoss``.
    """

    def __init__(
        self,
        model: nn.Module,
        adam: Adam,
        loss_weights: LossWeights,
        rated: RatedItems,
        generator: torch.Generator,
        *,
        settings: Settings,
        steps: int,
        by_tables: bool = False,
        own_derivative: bool = False,
    ) -> None:
        super().__init__(model, adam, loss_weights)
        self.adam, self.settings, self.generator, self.steps, self.rated = adam, settings, generator, steps, rated
        self.batch = TableBatch if by_tables else ForwardBatch
        self.own_derivative = own_derivative
        self.rates = bool(rated.train.rated.any())
        check_parts(model, settings, rated.train)
        # The embeddings and item biases come first in the vector of all parameters.
        self.decayed = sum(weight.numel() for weight in {table.weight for table in parts.embeddings(model)})
        self.user_weights = rated.user_weights(settings.user_balance) if settings.user_balance else None

    def step(self, users: Tensor, items: Tensor, negatives: Tensor, ratings: Tensor) -> Tensor:
        """Take one step; negatives: (batch,) or (batch, candidates), or (batch, 0) where they are drawn here."""
        batch = self.batch(self.model, self.settings, self.rated, self._dropout, users, items)
        if self.settings.shared_negatives:
            order = torch.randperm(self.rated.train.num_items, generator=self.generator, device=self.generator.device)
            negatives = order[: self.settings.negatives]
        elif negatives.dim() == 1:
            negatives = negatives.unsqueeze(1)
        with torch.set_grad_enabled(self.loss_weights.factorization > 0):  # else it is only computed to be shown
            factorization = self._factorization_loss(users, batch, negatives)
        regression = loss_of_rated(batch.ratings(), ratings) if self.rates else torch.zeros_like(factorization)
        self._move(joint_loss(factorization, regression, self.loss_weights))
        return torch.stack([factorization.detach(), regression.detach()])

    def _move(self, loss: Tensor) -> None:
        """Move the parameters by a step of Adam, with the decay and the learning rate of the settings."""
        adam, settings = self.adam, self.settings
        adam.zero_grad()
        loss.backward()
        if settings.weight_decay:
            trained = adam.everything
            trained.gradient[: self.decayed].add_(trained.values[: self.decayed], alpha=settings.weight_decay)
        left = 1.0
        if settings.lr_schedule == "linear":
            left = max(0.0, 1.0 - adam.steps_taken.item() / self.steps)
        adam.step(adam.learning_rate * left)

    def _factorization_loss(self, users: Tensor, batch: TableBatch | ForwardBatch, candidates: Tensor) -> Tensor:
        """Compute L_F; candidates: (batch, k) items of each example, or (k,) of all."""
        settings = self.settings
        positive = batch.positive()
        if settings.negative_temperature == 0 and candidates.shape[-1] > 1:
            with torch.no_grad():
                p = batch.scores(candidates)
                p = p + self.rated.penalties(users, candidates) if settings.unseen_negatives else p
                candidates = candidates.expand_as(p).gather(1, p.argmax(1, keepdim=True))
        p = batch.scores(candidates)
        if settings.negative_temperature > 0:
            penalties = self.rated.penalties(users, candidates) if settings.unseen_negatives else torch.zeros_like(p)
            weights = penalties.add_(p.detach(), alpha=1.0 / settings.negative_temperature).softmax(1)
            if self.own_derivative:
                losses: Tensor = WeightedLoss.apply(positive, p, weights, settings.temperature)
            else:
                losses = (weights * self._losses(positive.unsqueeze(1).expand_as(p), p)).sum(1)
        else:
            losses = self._losses(positive, p.squeeze(1))
        if self.user_weights is not None:
            losses = self.user_weights[users] * losses
        return losses.mean()

    def _losses(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Compute L_F of each single pair, at the temperature T: two tensors of one shape → that shape."""
        of_pairs = bpr_loss
        for _ in range(positive.dim()):
            of_pairs = torch.vmap(of_pairs)  # so that its mean is over one pair
        try:
            return of_pairs(positive / self.settings.temperature, negative / self.settings.temperature)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"bpr_loss of training/steps.py cannot be taken pair by pair: {reason}") from error

    def _dropout(self, values: Tensor, probability: float) -> Tensor:
        if probability == 0:
            return values
        kept = torch.rand(values.shape, generator=self.generator, device=values.device) >= probability
        return values * kept.to(values.dtype).div_(1.0 - probability)  # one pass forwards, and one back
