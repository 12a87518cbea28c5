"""A step with the ingredients of a ``Recipe``, by autograd: with batches of a thousand that costs little.

    L = λ_F · mean(ω_i · Σ_c w_ic · (1 − σ((p⁺ − p_ic) / T))) + λ_R · mean((r̂ − r)²) + w/2 · (‖U‖² + ‖Q‖² + ‖B‖²)

The candidates c have the weights w_ic: 1 for the highest p_ic, or softmax(p_ic / τ). Random numbers come from the
trainer's generator, so that a run goes on to the bit.
"""

from typing import Any

import torch
from torch import Tensor, nn

from models import MultiTaskNet
from training.adam import AdamState, Parameters, adam_update
from training.recipe import Recipe
from training.steps import EagerStep, Weights, regression_loss
from training.watched import Watched


class WeightedLoss(torch.autograd.Function):
    """Σ_c w_c · (1 − σ((p⁺ − p_c) / T)), with its derivative: half the passes over (batch, k) that autograd makes.

    Args:
        positive: (batch,) p⁺.
        negative: (batch, k) p_c.
        weights: (batch, k) w_c, which add up to 1; constants, and written over.
        temperature: T.

    Returns:
        (batch,) losses.
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
    """The eager step, changed as a recipe says.

    Args:
        model, adam, weights: as for ``EagerStep``.
        recipe: what is added.
        generator: of the dropout and of shared negatives, on the network's device.
        steps: how many there will be in all, for a learning rate that falls.
        watched: what each user rated in the training ratings.
    """

    def __init__(
        self,
        model: MultiTaskNet,
        adam: AdamState,
        weights: Weights,
        recipe: Recipe,
        generator: torch.Generator,
        steps: int,
        watched: Watched,
    ) -> None:
        super().__init__(model, adam, weights)
        self.adam, self.recipe, self.generator, self.steps = adam, recipe, generator, steps
        self.watched = watched
        # The embeddings and item biases come first in the vector of all parameters.
        self.decayed = sum(x.weight.numel() for x in model.children() if isinstance(x, nn.Embedding))
        self.user_weights = None
        if recipe.user_balance:
            counts = watched.counts.cpu().double()  # on the CPU: Apple's GPUs have no float64
            weight = counts.clamp(min=1) ** -recipe.user_balance
            self.user_weights = (weight / ((counts * weight).sum() / counts.sum())).float().to(watched.counts.device)

    def step(self, users: Tensor, items: Tensor, negatives: Tensor, ratings: Tensor) -> Tensor:
        """One step; negatives: (batch,) or (batch, candidates), or (batch, 0) where they are drawn here."""
        recipe = self.recipe
        (u_fact, q_fact), (u_reg, q_reg) = self._embeddings(users, items)
        u_fact = self._dropout(u_fact, recipe.embedding_dropout)
        if recipe.shared_negatives:
            number = self.model.B.num_embeddings
            order = torch.randperm(number, generator=self.generator, device=self.generator.device)
            negatives = order[: recipe.negatives]
        elif negatives.dim() == 1:
            negatives = negatives.unsqueeze(1)
        with torch.set_grad_enabled(self.weights.factorization > 0):  # else it is computed to be shown
            p = torch.linalg.vecdot(u_fact, q_fact) + self.model.B(items).squeeze(-1)
            factorization = self._factorization_loss(users, u_fact, p, negatives)
        regression = regression_loss(self._ratings(u_reg, q_reg), ratings)
        self._update(self.weights.factorization * factorization + self.weights.regression * regression)
        return torch.stack([factorization.detach(), regression.detach()])

    def _embeddings(self, users: Tensor, items: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """(batch,) → u and q, (batch, d) each, for equation 1 and for equation 4."""
        found: list[tuple[Tensor, Tensor]] = []
        for user_table, item_table in dict.fromkeys((self.model.factorization_tables, self.model.regression_tables)):
            u, q = user_table(users), item_table(items)
            if self.recipe.watched_items:
                u = u + self.watched.sums_but_own(item_table.weight, users, q)
            found.append((u, q))
        return found[0], found[-1]

    def _scores(self, u: Tensor, candidates: Tensor) -> Tensor:
        """Equation 1: (batch, d) and (batch, k) items of each, or (k,) of all → (batch, k)."""
        q: Tensor = self.model.factorization_tables[1](candidates)
        bias: Tensor = self.model.B(candidates).squeeze(-1)
        return torch.addmm(bias, u, q.T) if candidates.dim() == 1 else torch.linalg.vecdot(u.unsqueeze(1), q) + bias

    def _factorization_loss(self, users: Tensor, u: Tensor, positive: Tensor, candidates: Tensor) -> Tensor:
        """L_F of a batch whose items have (batch,) scores p; the candidates are as ``_scores`` takes them."""
        recipe = self.recipe
        if recipe.negative_temperature == 0 and candidates.shape[-1] > 1:
            with torch.no_grad():
                p = self._scores(u, candidates)
                p = p + self.watched.penalties(users, candidates) if recipe.unseen_negatives else p
                candidates = candidates.expand_as(p).gather(1, p.argmax(1, keepdim=True))
        p = self._scores(u, candidates)
        if recipe.negative_temperature > 0:
            penalties = self.watched.penalties(users, candidates) if recipe.unseen_negatives else torch.zeros_like(p)
            weights = penalties.add_(p.detach(), alpha=1.0 / recipe.negative_temperature).softmax(1)
            losses: Tensor = WeightedLoss.apply(positive, p, weights, recipe.temperature)
        else:
            losses = 1.0 - torch.sigmoid((positive - p.squeeze(1)) / recipe.temperature)
        if self.user_weights is not None:
            losses = self.user_weights[users] * losses
        return losses.mean()

    def _ratings(self, u: Tensor, q: Tensor) -> Tensor:
        """Equation 4 of (batch, d) embeddings, with dropout after each ReLU."""
        outputs = torch.cat([u, q, u * q], dim=-1)
        for layer in self.model.mlp_layers:
            outputs = layer(outputs)
            if isinstance(layer, nn.ReLU):
                outputs = self._dropout(outputs, self.recipe.dropout)
        return outputs.squeeze(-1)

    def _dropout(self, values: Tensor, probability: float) -> Tensor:
        if probability == 0:
            return values
        kept = torch.rand(values.shape, generator=self.generator, device=values.device) >= probability
        return values * kept.to(values.dtype).div_(1.0 - probability)  # in one pass there, and one back

    def _update(self, loss: Tensor) -> None:
        adam, recipe = self.adam, self.recipe
        values, gradient = adam.flat.detach(), adam.flat.grad
        assert gradient is not None
        gradient.zero_()
        loss.backward()
        if recipe.weight_decay:
            gradient[: self.decayed].add_(values[: self.decayed], alpha=recipe.weight_decay)
        if recipe.lr_schedule == "linear":
            left = max(0.0, 1.0 - adam.steps_taken.item() / self.steps)
            adam = adam._replace(learning_rate=adam.learning_rate * left)
        adam_update(adam, [Parameters(values, gradient, adam.first_moment, adam.second_moment)])
