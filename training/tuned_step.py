"""A step with the ingredients of a ``Settings`` beyond the homework, by autograd: with batches of a thousand that costs little.

    L = λ_F · mean(ω_i · Σ_c w_ic · (1 − σ((p⁺ − p_ic) / T))) + λ_R · mean((r̂ − r)²) + w/2 · (‖U‖² + ‖Q‖² + ‖B‖²)

The candidates c have the weights w_ic: 1 for the highest p_ic, or softmax(p_ic / τ). Random numbers come from the
trainer's generator, so that a resumed run is bit-identical.

The plain way changes the outputs of the network's embeddings and ReLUs by hooks, and takes each loss
from ``steps.py`` (``ForwardBatch``). The two shortcuts are equations 1 and 4 by the network's tables (``TableBatch``),
and the derivative of the loss over all candidates (``WeightedLoss``).
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from data import Interactions
from training import parts
from training.adam import AdamState, adam_update
from training.settings import Settings
from training.steps import EagerStep, Weights, bpr_loss, joint_loss, regression_loss
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
    """The eager step, changed as the settings say.

    Args:
        model, adam, weights: as for ``EagerStep``.
        settings: of training.
        generator: of the dropout and of shared negatives, on the network's device.
        steps: how many there will be in all, for a learning rate that falls.
        watched: what each user rated in the training ratings.
        by_tables: compute equations 1 and 4 from the network's tables.
        own_derivative: compute the loss over all candidates by ``WeightedLoss``.

    Raises:
        ValueError: models.py lacks an embedding or a layer that an ingredient changes.
    """

    def __init__(
        self,
        model: nn.Module,
        adam: AdamState,
        weights: Weights,
        settings: Settings,
        generator: torch.Generator,
        steps: int,
        watched: Watched,
        by_tables: bool = False,
        own_derivative: bool = False,
    ) -> None:
        super().__init__(model, adam, weights)
        self.settings, self.generator, self.steps, self.watched = settings, generator, steps, watched
        self.batch = TableBatch if by_tables else ForwardBatch
        self.own_derivative = own_derivative
        _check_parts(model, settings, watched.train)
        # The embeddings and item biases come first in the vector of all parameters.
        self.decayed = sum(weight.numel() for weight in {table.weight for table in parts.embeddings(model)})
        self.user_weights = None
        if settings.user_balance:
            counts = watched.counts.cpu().double()  # on the CPU: Apple's GPUs have no float64
            weight = counts.clamp(min=1) ** -settings.user_balance
            self.user_weights = (weight / ((counts * weight).sum() / counts.sum())).float().to(watched.counts.device)

    def step(self, users: Tensor, items: Tensor, negatives: Tensor, ratings: Tensor) -> Tensor:
        """Take one step; negatives: (batch,) or (batch, candidates), or (batch, 0) where they are drawn here."""
        settings = self.settings
        batch = self.batch(self, users, items)
        if settings.shared_negatives:
            number = self.watched.train.num_items
            order = torch.randperm(number, generator=self.generator, device=self.generator.device)
            negatives = order[: settings.negatives]
        elif negatives.dim() == 1:
            negatives = negatives.unsqueeze(1)
        with torch.set_grad_enabled(self.weights.factorization > 0):  # else it is computed to be shown
            factorization = self._factorization_loss(users, batch, negatives)
        regression = regression_loss(batch.ratings(), ratings)
        self.update(joint_loss(factorization, regression, self.weights))
        return torch.stack([factorization.detach(), regression.detach()])

    def _factorization_loss(self, users: Tensor, batch: "TableBatch | ForwardBatch", candidates: Tensor) -> Tensor:
        """Compute L_F; candidates: (batch, k) items of each example, or (k,) of all."""
        settings = self.settings
        positive = batch.positive()
        if settings.negative_temperature == 0 and candidates.shape[-1] > 1:
            with torch.no_grad():
                p = batch.scores(candidates)
                p = p + self.watched.penalties(users, candidates) if settings.unseen_negatives else p
                candidates = candidates.expand_as(p).gather(1, p.argmax(1, keepdim=True))
        p = batch.scores(candidates)
        if settings.negative_temperature > 0:
            penalties = self.watched.penalties(users, candidates) if settings.unseen_negatives else torch.zeros_like(p)
            weights = penalties.add_(p.detach(), alpha=1.0 / settings.negative_temperature).softmax(1)
            losses = self._weighted_losses(positive, p, weights)
        else:
            losses = self._losses(positive, p.squeeze(1))
        if self.user_weights is not None:
            losses = self.user_weights[users] * losses
        return losses.mean()

    def _weighted_losses(self, positive: Tensor, p: Tensor, weights: Tensor) -> Tensor:
        """Compute Σ_c w_ic · L_F of each pair: (batch,), (batch, k) and (batch, k) → (batch,)."""
        if self.own_derivative:
            losses: Tensor = WeightedLoss.apply(positive, p, weights, self.settings.temperature)
            return losses
        return (weights * self._losses(positive.unsqueeze(1).expand_as(p), p)).sum(1)

    def _losses(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Compute L_F of each pair by itself, at the temperature of the settings: two tensors of a shape → that shape."""
        alone = bpr_loss
        for _ in range(positive.dim()):
            alone = torch.vmap(alone)  # so that its mean is over one pair
        try:
            return alone(positive / self.settings.temperature, negative / self.settings.temperature)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ValueError(f"bpr_loss of training/steps.py cannot be taken pair by pair: {reason}") from error

    def dropout(self, values: Tensor, probability: float) -> Tensor:
        if probability == 0:
            return values
        kept = torch.rand(values.shape, generator=self.generator, device=values.device) >= probability
        return values * kept.to(values.dtype).div_(1.0 - probability)  # in one pass there, and one back

    def update(self, loss: Tensor) -> None:
        adam, settings = self.adam, self.settings
        trained = adam.everything
        trained.gradient.zero_()
        loss.backward()
        if settings.weight_decay:
            trained.gradient[: self.decayed].add_(trained.values[: self.decayed], alpha=settings.weight_decay)
        if settings.lr_schedule == "linear":
            left = max(0.0, 1.0 - adam.steps_taken.item() / self.steps)
            adam = adam._replace(learning_rate=adam.learning_rate * left)
        adam_update(adam, [trained])


def _check_parts(model: nn.Module, settings: Settings, train: Interactions) -> None:
    """Raise ValueError where an ingredient has nothing in the network to change."""
    try:
        found = parts.tables(model) if settings.watched_items or settings.embedding_dropout else []
    except LookupError as error:
        raise ValueError(f"{error}, which --watched_items and --embedding_dropout change") from error
    for users, items in found if settings.watched_items else []:
        if (users.num_embeddings, items.num_embeddings) != (train.num_users, train.num_items):
            raise ValueError(
                f"--watched_items is for tables of {train.num_users} and {train.num_items} rows: models.py has "
                f"{users.num_embeddings} and {items.num_embeddings}"
            )
    if settings.dropout and not any(isinstance(module, nn.ReLU) for module in model.modules()):
        raise ValueError("models.py has no nn.ReLU layers, whose outputs --dropout changes")


class ForwardBatch:
    """A batch of examples by the network's ``forward`` alone, its look-ups and ReLUs changed as the settings say.

    Args:
        step: the step, with its network and settings.
        users, items: (batch,) IDs of the observed interactions.
    """

    def __init__(self, step: TunedStep, users: Tensor, items: Tensor) -> None:
        self.step, self.users, self.items = step, users, items
        self.added: dict[nn.Module, Tensor] = {}  # by table of users, (batch, d)
        self.mask: Tensor | None = None
        if step.settings.watched_items:
            for table, item_table in parts.tables(step.model):
                self.added[table] = step.watched.sums_but_own(item_table.weight, users, item_table(items))
        if step.settings.embedding_dropout:
            width = parts.factorization_tables(step.model).users.embedding_dim
            ones = torch.ones(len(users), width, device=users.device)
            self.mask = step.dropout(ones, step.settings.embedding_dropout)

    def positive(self) -> Tensor:
        """Compute p⁺: (batch,)."""
        predictions, _ = self._forward(torch.arange(len(self.users), device=self.users.device), self.items)
        return predictions

    def scores(self, candidates: Tensor) -> Tensor:
        """Compute p of (batch, k) items of each example, or of (k,) items of all: (batch, k)."""
        every = candidates.expand(len(self.users), candidates.shape[-1])
        places = torch.arange(len(every), device=every.device).repeat_interleave(every.shape[1])
        predictions, _ = self._forward(places, every.reshape(-1))
        return predictions.view(every.shape)

    def ratings(self) -> Tensor:
        """Compute r̂: (batch,)."""
        layers = [module for module in self.step.model.modules() if isinstance(module, nn.ReLU)]
        with self._hooks(layers, lambda _, output: self.step.dropout(output, self.step.settings.dropout)):
            _, score = self._forward(torch.arange(len(self.users), device=self.users.device), self.items, rates=True)
        return score

    def _forward(self, places: Tensor, items: Tensor, rates: bool = False) -> tuple[Tensor, Tensor]:
        """Run the network for the users at these places of the batch and as many items."""

        def changed(table: nn.Module, output: Tensor) -> Tensor:
            rows = output.reshape(len(places), -1)
            if table in self.added:
                rows = rows + self.added[table][places]
            if self.mask is not None and not rates:
                rows = rows * self.mask[places]
            return rows.view_as(output)

        tables = [*self.added]
        if self.mask is not None:
            tables = [*dict.fromkeys([*tables, parts.factorization_tables(self.step.model).users])]
        with self._hooks(tables, changed):
            predictions, score = self.step.model(self.users[places], items)
        return predictions, score

    @staticmethod
    @contextlib.contextmanager
    def _hooks(modules: Sequence[nn.Module], change: Callable[[nn.Module, Tensor], Tensor]) -> Iterator[None]:
        """Change the outputs of modules, of which at least one has to be called."""
        called: list[nn.Module] = []

        def hook(module: nn.Module, _: Any, output: Tensor) -> Tensor:
            called.append(module)
            return change(module, output)

        handles = [module.register_forward_hook(hook) for module in modules]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        if modules and not called:
            kind = type(modules[0]).__name__
            raise ValueError(f"forward in models.py does not call its {kind}, whose output a flag of this run changes")


class TableBatch:
    """The same by the network's tables: equation 1 as a product of matrices, and equation 4 without equation 1.

    Raises:
        LookupError: the network has no tables of the homework's names.
    """

    def __init__(self, step: TunedStep, users: Tensor, items: Tensor) -> None:
        self.step, self.items = step, items
        model = step.model
        self.item_table, self.bias = parts.factorization_tables(model).items, parts.embedding(model, "B")
        found: list[tuple[Tensor, Tensor]] = []
        for user_table, item_table in parts.tables(model):
            u, q = user_table(users), item_table(items)
            if step.settings.watched_items:
                u = u + step.watched.sums_but_own(item_table.weight, users, q)
            found.append((u, q))
        (self.u_fact, self.q_fact), (self.u_reg, self.q_reg) = found[0], found[-1]
        self.u_fact = step.dropout(self.u_fact, step.settings.embedding_dropout)

    def positive(self) -> Tensor:
        """Compute p⁺: (batch,)."""
        p: Tensor = torch.linalg.vecdot(self.u_fact, self.q_fact) + self.bias(self.items).squeeze(-1)
        return p

    def scores(self, candidates: Tensor) -> Tensor:
        """Compute p of (batch, k) items of each example, or of (k,) items of all: (batch, k)."""
        q, bias = self.item_table(candidates), self.bias(candidates).squeeze(-1)
        if candidates.dim() == 1:
            return torch.addmm(bias, self.u_fact, q.T)
        p: Tensor = torch.linalg.vecdot(self.u_fact.unsqueeze(1), q) + bias
        return p

    def ratings(self) -> Tensor:
        """Compute r̂: (batch,)."""
        outputs = torch.cat([self.u_reg, self.q_reg, self.u_reg * self.q_reg], dim=-1)
        layers: Any = self.step.model.mlp_layers
        for layer in layers:
            outputs = layer(outputs)
            if isinstance(layer, nn.ReLU):
                outputs = self.step.dropout(outputs, self.step.settings.dropout)
        return outputs.squeeze(-1)
