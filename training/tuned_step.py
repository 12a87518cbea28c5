"""A step with the ingredients of a ``Recipe``, by autograd: with batches of thousands that costs little.

    L = λ_F · mean(1 − σ((p⁺ − p⁻) / T)) + λ_R · mean((r̂ − r)²) + w/2 · (‖U‖² + ‖Q‖² + ‖B‖²)

Random numbers come from the trainer's generator, so that a run goes on to the bit.
"""

import torch
from torch import Tensor, nn

from data import Interactions
from models import MultiTaskNet
from training.adam import AdamState
from training.recipe import Recipe
from training.steps import EagerStep, Weights, bpr_loss, regression_loss


class TunedStep(EagerStep):
    """The eager step, changed as a recipe says.

    Args:
        model, adam, weights: as for ``EagerStep``.
        recipe: what is added.
        generator: of the dropout, on the network's device.
        steps: how many there will be in all, for a learning rate that falls.
        train: the training ratings, for negatives that are not among them.
    """

    def __init__(
        self,
        model: MultiTaskNet,
        adam: AdamState,
        weights: Weights,
        recipe: Recipe,
        generator: torch.Generator,
        steps: int,
        train: Interactions,
    ) -> None:
        super().__init__(model, adam, weights)
        self.adam, self.recipe, self.generator, self.steps = adam, recipe, generator, steps
        self.seen = torch.unique(self._key(train.user_ids, train.item_ids)) if recipe.unseen_negatives else None
        # The embeddings and item biases come first in the vector of all parameters.
        self.decayed = sum(x.weight.numel() for x in model.children() if isinstance(x, nn.Embedding))

    def step(self, users: Tensor, items: Tensor, negatives: Tensor, ratings: Tensor) -> Tensor:
        """One step; negatives: (batch,), or (batch, candidates) of which the highest p_ij is taken."""
        if negatives.dim() == 2:
            negatives = self._hardest(users, negatives)
        recipe, (user_table, item_table) = self.recipe, self.model.factorization_tables
        u = self._dropout(user_table(users), recipe.embedding_dropout)
        pair = torch.stack([items, negatives])
        positive, negative = (u * item_table(pair)).sum(-1) + self.model.B(pair).squeeze(-1)
        factorization = bpr_loss(positive / recipe.temperature, negative / recipe.temperature)
        regression = regression_loss(self._ratings(users, items), ratings)
        if recipe.lr_schedule == "linear":
            left = max(0.0, 1.0 - self.adam.steps_taken.item() / self.steps)
            self.optimizer.param_groups[0]["lr"] = self.adam.learning_rate * left
        self._update(self.weights.factorization * factorization + self.weights.regression * regression)
        return torch.stack([factorization.detach(), regression.detach()])

    @torch.no_grad()
    def _hardest(self, users: Tensor, candidates: Tensor) -> Tensor:
        """(batch, candidates) items → (batch,) those with the highest p_ij, rated ones only where all are."""
        users = users.unsqueeze(1).expand_as(candidates)
        p = self.model.predict_interactions(users, candidates)
        if self.seen is not None:
            key = self._key(users, candidates)
            place = torch.searchsorted(self.seen, key).clamp_(max=len(self.seen) - 1)
            p.masked_fill_(self.seen[place] == key, -torch.inf)
        return candidates.gather(1, p.argmax(1, keepdim=True)).squeeze(1)

    def _key(self, users: Tensor, items: Tensor) -> Tensor:
        """One number for each pair."""
        return users * self.model.B.num_embeddings + items

    def _ratings(self, users: Tensor, items: Tensor) -> Tensor:
        """Equation 4, with dropout after each ReLU."""
        user_table, item_table = self.model.regression_tables
        u, q = user_table(users), item_table(items)
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
