"""The step with the ingredients of ``Settings`` beyond the homework, by autograd.

    L = λ_F · mean(ω_i · ℓ_ij) + λ_R · mean((ẑ_ij − z_ij)² + π_ij · ẑ_ik²) + w/2 · (δ / (δ + 1 %))^(1/2) · ‖θ‖² / n

The ranking loss ℓ_ij of an interaction compares p⁺ with the p⁻ of its negatives. z_ij is its rating in the network's
unit. π_ij is 1 for about m ratings of each user in an epoch, which come with a pseudo-rating z_ik = 0 of a negative k;
else it is 0.

The plain way changes the outputs of the network's embeddings and ReLUs by hooks (``ForwardBatch``), and takes the
losses from ``tuned_losses.py`` and ``steps.py``. Its two shortcuts are equations 1 and 4 by the network's tables
(``TableBatch``), and the softmax with its derivative (``sampled_softmax``).
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from training.adam import Adam
from training.rated_items import RatedItems
from training.rehearsal import Way
from training.settings import Settings
from training.steps import (
    LossWeights,
    Sizes,
    Triples,
    joint_loss,
    loss_of_rated,
    regression_loss,
)
from training.tuned_batch import ForwardBatch, Pairs, TableBatch, check_parts
from training.tuned_blocks import loss_in_blocks
from training.tuned_losses import PAIR_LOSSES, softmax_losses
from training.tuned_softmax import LOWEST, sampled_softmax

ITEMS_OF_A_PART = 10_000
SPARSE = 0.01  # density below which the weight decay falls


def ways(settings: Settings, steps: int, num_items: int, lazy: bool) -> tuple[Way, list[Way]]:
    """Return the plain way of taking this step, and the fast ways, the fastest first.

    Args:
        steps: those of the whole run.
        num_items: the number of items, on which that of a batch's parts depends.
    """
    if lazy:
        raise ValueError(
            "lazy_adam cannot train with negatives, ranking_loss, user_balance, watched_items, pseudo_ratings, "
            "weight_decay, lr_schedule or dropout other than the homework's: leave them out, or give optimizer adam"
        )
    step = partial(TunedStep, settings=settings, steps=steps, parts=parts_of(settings, num_items))
    fast = [Way("tuned step", partial(step, by_tables=True, by_hand=True))]
    if settings.ranking_loss == "softmax":
        fast.append(Way("tuned step with the plain loss", partial(step, by_tables=True)))
    return Way("eager step", step), fast


def parts_of(settings: Settings, num_items: int) -> int:
    """Return the number of parts of a batch, each with negatives of its own; no item is in two of these sets."""
    if settings.negatives == 1:
        return 1
    return max(1, min(-(-num_items // ITEMS_OF_A_PART), num_items // settings.negatives))


class Part(NamedTuple):
    """A part of a batch, with its (k,) negatives: (rows,) p⁺, i, j and ω of its examples."""

    negatives: Tensor
    positive: Tensor
    users: Tensor
    items: Tensor
    weights: Tensor


class TunedStep:
    """A step with the ingredients of the settings.

    Where there are many items, a batch has parts, each with negatives of its own, because with common negatives for all
    an item would seldom be one. The parts are by the observed item, so that several processes divide a batch alike.

    Args:
        rated: the items that each user rated; of several processes, each takes its users' part of a step.
        generator: of the dropout and of the negatives of a batch, on the network's device. Several processes draw the
            same negatives from it, and their dropout from torch's own random numbers.
        settings: the ingredients.
        steps: the number of steps of the whole run, for a learning rate that falls.
        parts: the number of parts of a batch.
        by_tables: compute equations 1 and 4 from the network's tables.
        by_hand: compute the softmax and its derivative by ``sampled_softmax``.
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
        parts: int = 1,
        by_tables: bool = False,
        by_hand: bool = False,
    ) -> None:
        self.model, self.adam, self.loss_weights, self.rated = model, adam, loss_weights, rated
        self.settings, self.generator, self.steps, self.parts = settings, generator, steps, parts
        self.division = rated.division
        self.common = self.division.tensors.common(model, adam.everything.gradient)
        self.dropout_generator = generator if self.division.group.size == 1 else None
        self.batch = TableBatch if by_tables else ForwardBatch
        self.by_hand = by_hand and settings.ranking_loss == "softmax"
        train = rated.train
        self.rates = bool(train.rated.any())
        self.pseudo_ratings = settings.pseudo_ratings if loss_weights.regression > 0 else 0
        self.rating_counts = torch.bincount(train.user_ids[train.rated], minlength=train.num_users)
        check_parts(model, settings, train)
        self.decay = self._decay()
        self.user_weights = rated.user_weights(settings.user_balance) if settings.user_balance else None

    def _decay(self) -> float:
        """Return the factor of a parameter in the gradient of the weight decay."""
        train = self.rated.train
        interactions = self.division.count(train)
        density = interactions / (self.division.count_users(train) * train.num_items)
        return float(self.settings.weight_decay * (density / (density + SPARSE)) ** 0.5 / interactions)

    def run(self, triples: Triples, batch_size: Sizes) -> Tensor:
        batches = [Triples(*columns) for columns in zip(*(each.split(batch_size) for each in triples), strict=True)]
        shares = self.division.shares([batch.ratings for batch in batches])
        losses = [self._step(share, batch) for share, batch in zip(shares, batches, strict=True)]
        return self.division.group.add_up(torch.stack(losses))

    def _step(self, share: Tensor, triples: Triples) -> Tensor:
        """Take this process's part of a step; return (2,) its part of L_F and L_R.

        Args:
            share: (2,) this process's share of the batch's interactions, and of those with a rating.
            triples: its interactions of the batch, perhaps none.
        """
        sizes = [len(triples.items)]
        if self.parts > 1:
            part = triples.items % self.parts
            order, sizes = part.argsort(stable=True), part.bincount(minlength=self.parts).tolist()
            triples = Triples(*(column[order] for column in triples))
        batch = self.batch(self.model, self.settings, self.rated, self._dropout, triples.users, triples.items)
        *losses, pseudo = self._losses(batch, triples, sizes)
        factorization, regression = share * torch.stack(losses)
        self._move(joint_loss(factorization, regression + share[1] * pseudo, self.loss_weights))
        return torch.stack([factorization, regression]).detach()

    def _losses(
        self, batch: TableBatch | ForwardBatch, triples: Triples, sizes: Sequence[int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Compute L_F, L_R and the term of L_R for pseudo-ratings, of a batch whose parts have these sizes: () each."""
        users, items, negatives, ratings = triples
        drawn = self._draw() if self.settings.negatives > 1 else ()  # as the other processes do
        nothing = ratings.new_zeros(())
        if len(users) == 0:
            return nothing, nothing, nothing
        with torch.set_grad_enabled(self.loss_weights.factorization > 0):  # else it is only computed to be shown
            if self.settings.negatives == 1:
                factorization = self._loss_of_one(batch, users, negatives)
            else:
                factorization = self._loss_of_many(batch, users, items, drawn, sizes)
        if not self.rates:
            return factorization, nothing, nothing
        pseudo = self._loss_of_pseudo_ratings(batch, triples, drawn, sizes) if self.pseudo_ratings else nothing
        return factorization, self._regression(batch, ratings), pseudo

    def _loss_of_pseudo_ratings(
        self, batch: TableBatch | ForwardBatch, triples: Triples, drawn: tuple[Tensor, ...], sizes: Sequence[int]
    ) -> Tensor:
        """Compute the squares of the pseudo-ratings' outputs, relative to the number of ratings of the batch: ().

        One comes with a share m / n of a user's n ratings, or with all of them. The number of the step chooses, and no
        random number, so that several processes choose alike.
        """
        users, items, negatives, ratings = triples
        rated, step = ~ratings.isnan(), int(self.adam.steps_taken.item())
        chosen = (items + step) % self.rating_counts[users].clamp(min=1) < self.pseudo_ratings
        places = (rated & chosen).nonzero().squeeze(1)
        count = len(places)
        if count == 0:
            return ratings.new_zeros(())
        if count == 1:  # a network may refuse a batch of one
            places = places.repeat(2)
        if drawn:
            parts = zip(drawn, items.split(sizes), strict=True)
            negatives = torch.cat([part[own // self.parts % len(part)] for part, own in parts])
        loss = self._regression(batch, ratings.new_zeros(len(places)), Pairs(places, negatives[places]))
        return count / rated.sum() * loss

    def _draw(self) -> tuple[Tensor, ...]:
        """Draw the negatives of each part of a batch, all different."""
        order = torch.randperm(self.rated.train.num_items, generator=self.generator, device=self.generator.device)
        return order[: self.settings.negatives * self.parts].tensor_split(self.parts)

    def _loss_of_one(self, batch: TableBatch | ForwardBatch, users: Tensor, negatives: Tensor) -> Tensor:
        """Compute L_F with a negative for each interaction: (batch,)."""
        of_pairs = PAIR_LOSSES[self.settings.ranking_loss]
        positive, negative = batch.positive(), batch.scores(negatives.unsqueeze(1)).squeeze(1)
        return (self._weights(users) * of_pairs(positive, negative)).mean()

    def _loss_of_many(
        self,
        batch: TableBatch | ForwardBatch,
        users: Tensor,
        items: Tensor,
        drawn: tuple[Tensor, ...],
        sizes: Sequence[int],
    ) -> Tensor:
        """Compute L_F with several negatives for each part of the batch, of these sizes: ()."""
        columns = batch.positive(), users, items, self._weights(users)
        parts = [Part(*part) for part in zip(drawn, *(column.split(sizes) for column in columns), strict=True)]
        if self.by_hand and isinstance(batch, TableBatch):
            u, (q, bias) = batch.u_fact.split(sizes), batch.candidates(torch.cat(drawn))
            counts = [len(negatives) for negatives in drawn]
            tables = zip(parts, u, q.split(counts), bias.split(counts), strict=True)
            losses = [self._softmax_of_part(part, *own) for part, *own in tables]
        else:
            places = torch.arange(len(users), device=users.device).split(sizes)
            losses = [self._loss_of_part(batch, *each) for each in zip(parts, places, strict=True) if len(each[1]) > 0]
        return torch.stack(losses).sum() / len(users)

    def _softmax_of_part(self, part: Part, u: Tensor, q: Tensor, bias: Tensor) -> Tensor:
        """Compute the sum of ω · ℓ over a part by ``sampled_softmax``, from its users and its negatives: ()."""
        seen = self._seen(part)
        left_out = (part.users, seen) if seen is not None else (part.items, part.negatives)
        return sampled_softmax(u, part.positive, q, bias, left_out, part.weights)

    def _loss_of_part(self, batch: TableBatch | ForwardBatch, part: Part, places: Tensor) -> Tensor:
        """Compute the sum of ω · ℓ over a part, at these places of the batch: ()."""
        seen, negative = self._seen(part), batch.scores(part.negatives, places)
        if self.settings.ranking_loss == "softmax":
            left_out = part.negatives == part.items.unsqueeze(1) if seen is None else seen[part.users]
            return part.weights @ softmax_losses(part.positive, negative.masked_fill(left_out, LOWEST))
        losses = PAIR_LOSSES[self.settings.ranking_loss](part.positive.unsqueeze(1).expand_as(negative), negative)
        if seen is None:
            return part.weights @ losses.mean(1)
        kept = ~seen[part.users]
        return part.weights @ ((kept * losses).sum(1) / kept.sum(1).clamp(min=1))

    def _seen(self, part: Part) -> Tensor | None:
        """Return the negatives that each user rated, (num_users, k) bool, or None where they count."""
        return self.rated.seen(part.negatives) if self.settings.unseen_negatives else None

    def _regression(self, batch: TableBatch | ForwardBatch, ratings: Tensor, pairs: Pairs | None = None) -> Tensor:
        """Compute L_R, perhaps of other pairs than the observed ones: ()."""
        if not isinstance(batch, TableBatch) or not batch.in_blocks or ratings.is_cuda:
            return loss_of_rated(batch.ratings(pairs), ratings)
        rated = ~ratings.isnan()
        shares = rated / rated.sum().clamp(min=1)  # of each example in the mean
        loss = loss_of_rated if self.rated.has_gaps else regression_loss  # which copies nothing

        def of_block(u: Tensor, q: Tensor, own: Tensor, own_shares: Tensor) -> Tensor:
            return own_shares.sum() * loss(batch.rate(u, q), own)

        return loss_in_blocks(of_block, batch.rated_rows(pairs), tuple(batch.layers.parameters()), (ratings, shares))

    def _weights(self, users: Tensor) -> Tensor:
        """Return ω_i: (batch,)."""
        if self.user_weights is None:
            return torch.ones(len(users), device=users.device)
        return self.user_weights[users]

    def _move(self, loss: Tensor) -> None:
        """Move the parameters by a step of Adam, with the decay and the learning rate of the settings."""
        adam = self.adam
        adam.zero_grad()
        if loss.requires_grad:  # not that of a process without an interaction of the batch
            loss.backward()
        self.division.add_up(self.common)
        if self.decay:
            trained = adam.everything
            trained.gradient.add_(trained.values, alpha=self.decay)
        left = 1.0
        if self.settings.lr_schedule == "linear":
            left = max(0.0, 1.0 - adam.steps_taken.item() / self.steps)
        adam.step(adam.learning_rate * left)

    def _dropout(self, values: Tensor, probability: float) -> Tensor:
        if probability == 0:
            return values
        drawn = torch.rand(values.shape, generator=self.dropout_generator, dtype=values.dtype, device=values.device)
        return values * drawn.ge_(probability).div_(1.0 - probability)
