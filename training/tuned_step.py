"""A step with the ingredients of a ``Recipe``, by autograd: with batches of thousands that costs little.

    L = λ_F · mean(ω_i · Σ_c w_ic · (1 − σ((p⁺ − p_ic) / T))) + λ_R · mean((r̂ − r)²) + w/2 · (‖U‖² + ‖Q‖² + ‖B‖²)

The candidates c have the weights w_ic: 1 for the highest p_ic, or softmax(p_ic / τ). Random numbers come from the
trainer's generator, so that a run goes on to the bit.
"""

import torch
from torch import Tensor, nn

from models import MultiTaskNet
from training.adam import AdamState
from training.recipe import Recipe
from training.steps import EagerStep, Weights, regression_loss
from training.watched import Watched


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
        u_fact, u_reg = self._user_embeddings(users, items)
        u_fact = self._dropout(u_fact, recipe.embedding_dropout)
        if recipe.shared_negatives:
            number = self.model.B.num_embeddings
            order = torch.randperm(number, generator=self.generator, device=self.generator.device)
            negatives = order[: recipe.negatives]
        elif negatives.dim() == 1:
            negatives = negatives.unsqueeze(1)
        with torch.set_grad_enabled(self.weights.factorization > 0):  # else it is computed to be shown
            factorization = self._factorization_loss(users, items, u_fact, negatives)
        regression = regression_loss(self._ratings(u_reg, items), ratings)
        if recipe.lr_schedule == "linear":
            left = max(0.0, 1.0 - self.adam.steps_taken.item() / self.steps)
            self.optimizer.param_groups[0]["lr"] = self.adam.learning_rate * left
        self._update(self.weights.factorization * factorization + self.weights.regression * regression)
        return torch.stack([factorization.detach(), regression.detach()])

    def _user_embeddings(self, users: Tensor, items: Tensor) -> tuple[Tensor, Tensor]:
        """(batch,) → (batch, d) for equation 1 and for equation 4."""
        found: list[Tensor] = []
        for user_table, item_table in dict.fromkeys((self.model.factorization_tables, self.model.regression_tables)):
            u: Tensor = user_table(users)
            if self.recipe.watched_items:
                u = u + self.watched.sums_but_own(item_table.weight, users, items)
            found.append(u)
        return found[0], found[-1]

    def _scores(self, u: Tensor, items: Tensor) -> Tensor:
        """Equation 1: (batch, d) and (batch, k) items of each, or (k,) of all → (batch, k)."""
        q: Tensor = self.model.factorization_tables[1](items)
        bias: Tensor = self.model.B(items).squeeze(-1)
        return (u @ q.T if items.dim() == 1 else (u.unsqueeze(1) * q).sum(-1)) + bias

    def _factorization_loss(self, users: Tensor, items: Tensor, u: Tensor, candidates: Tensor) -> Tensor:
        """L_F of a batch; the candidates are as ``_scores`` takes items."""
        recipe, weights = self.recipe, None
        if recipe.negative_temperature == 0 and candidates.shape[-1] > 1:
            with torch.no_grad():
                p = self._leave_out_rated(self._scores(u, candidates), users, candidates)
                candidates = candidates.expand_as(p).gather(1, p.argmax(1, keepdim=True))
        p = self._scores(u, candidates)
        if recipe.negative_temperature > 0:
            weights = self._leave_out_rated(p.detach() / recipe.negative_temperature, users, candidates).softmax(1)
        losses = 1.0 - torch.sigmoid((self._scores(u, items.unsqueeze(1)) - p) / recipe.temperature)
        losses = losses.squeeze(1) if weights is None else (weights * losses).sum(1)
        if self.user_weights is not None:
            losses = self.user_weights[users] * losses
        return losses.mean()

    def _leave_out_rated(self, logits: Tensor, users: Tensor, candidates: Tensor) -> Tensor:
        """(batch, k) with −∞ for what the user rated, unless that is all; if the recipe asks for it."""
        if not self.recipe.unseen_negatives:
            return logits
        rated = self.watched.contains(users, candidates)
        return logits.masked_fill(rated & ~rated.all(1, keepdim=True), -torch.inf)

    def _ratings(self, u: Tensor, items: Tensor) -> Tensor:
        """Equation 4, with dropout after each ReLU."""
        _, item_table = self.model.regression_tables
        q = item_table(items)
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
        return values * kept / (1.0 - probability)

    def _update(self, loss: Tensor) -> None:
        self.optimizer.zero_grad(set_to_none=False)
        loss.backward()
        if self.recipe.weight_decay:
            flat = self.adam.flat
            assert flat.grad is not None
            flat.grad[: self.decayed].add_(flat.detach()[: self.decayed], alpha=self.recipe.weight_decay)
        self.optimizer.step()
