"""The oracle of the tuned step: a plain loop in float64, and the network and the examples that it is compared on."""

import math
from typing import Any

import torch

from data import Interactions
from models import MultiTaskNet
from training import parts as network_parts
from training import tuned
from training.settings import Settings
from training.steps import Triples

USERS, ITEMS, DIM, BATCH, STEPS = 12, 15, 4, 7, 9


def network(sharing: bool, widths: tuple[int, ...] = (6,)) -> MultiTaskNet:
    torch.manual_seed(0)
    net = MultiTaskNet(USERS, ITEMS, DIM, (3 * DIM, *widths), sharing)
    with torch.no_grad():
        for table in network_parts.embeddings(net):
            table.weight.normal_()
    return net


def draw(with_negatives: bool) -> Triples:
    """Draw examples of observed interactions, with a negative for each or none."""
    generator = torch.Generator().manual_seed(1)
    n, all_rated = BATCH * STEPS - 3, rated()
    shape = (n,) if with_negatives else (n, 0)
    chosen = torch.randint(len(all_rated), (n,), generator=generator)
    return Triples(
        all_rated.user_ids[chosen],
        all_rated.item_ids[chosen],
        torch.randint(ITEMS, shape, generator=generator),
        torch.randint(1, 6, (n,), generator=generator).float(),
    )


def has_rated(user: int) -> list[int]:
    """List the items that a user rated: all for user 0, at most two thirds for others."""
    return [item for item in range(ITEMS) if user == 0 or (user + item) % 3 > user % 2]


def rated() -> Interactions:
    pairs = [(user, item) for user in range(USERS) for item in has_rated(user)]
    users, items = torch.tensor(pairs).unbind(1)
    return Interactions(users, items, torch.ones(len(pairs)), USERS, ITEMS)


def with_sums(u: torch.Tensor, q: torch.Tensor, i: int, j: int, observed: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows of a user and an item with their sums, which for an observed pair leave each other out."""
    items, users = has_rated(i), [user for user in range(USERS) if j in has_rated(user)]
    row, other = u[i], q[j]
    for item in items:
        if not (observed and item == j):
            row = row + q[item] / math.sqrt(len(items))
    for user in users:
        if not (observed and user == i):
            other = other + u[user] / math.sqrt(len(users))
    return row, other


class Oracle:
    """The loss written out triple by triple in float64, its gradient by autograd, and Adam's published update."""

    def __init__(self, net: MultiTaskNet, settings: Settings, seed: int) -> None:
        self.weights = {name: x.detach().double().requires_grad_() for name, x in net.named_parameters()}
        self.sharing, self.settings = net.embedding_sharing, settings
        self.first = {name: torch.zeros_like(x) for name, x in self.weights.items()}
        self.second = {name: torch.zeros_like(x) for name, x in self.weights.items()}
        self.generator, self.taken = torch.Generator().manual_seed(seed), 0

    def mask(self, probability: float, *shape: int) -> torch.Tensor:
        if probability == 0:
            return torch.ones(shape, dtype=torch.float64)
        return (torch.rand(shape, generator=self.generator) >= probability).double() / (1 - probability)

    def loss(self, positive: torch.Tensor, negatives: torch.Tensor) -> torch.Tensor:
        if self.settings.ranking_loss == "softmax":
            return -torch.log(torch.exp(positive) / (torch.exp(positive) + torch.exp(negatives).sum()))
        probability = 1 / (1 + torch.exp(negatives - positive))
        return (1 - probability if self.settings.ranking_loss == "bounded" else -torch.log(probability)).mean()

    def rate(self, u: torch.Tensor, q: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        w = self.weights
        inputs = torch.cat([u, q, u * q])
        hidden = torch.clamp(w["mlp_layers.0.weight"] @ inputs + w["mlp_layers.0.bias"], min=0) * mask
        return (w["mlp_layers.2.weight"] @ hidden + w["mlp_layers.2.bias"])[0]

    def step(self, users: list[int], items: list[int], negatives: list[Any], ratings: list[float]) -> list[float]:
        w, settings, n = self.weights, self.settings, len(users)
        parts = math.ceil(ITEMS / tuned.ITEMS_OF_A_PART)
        triples = sorted(zip(users, items, negatives, ratings, strict=True), key=lambda triple: triple[1] % parts)
        u_fact, q_fact = (w["U.weight"], w["Q.weight"]) if self.sharing else (w["U_fact.weight"], w["Q_fact.weight"])
        u_reg, q_reg = (w["U.weight"], w["Q.weight"]) if self.sharing else (w["U_reg.weight"], w["Q_reg.weight"])
        mask_u = self.mask(settings.embedding_dropout, n, DIM)
        k, order = settings.negatives, []
        if k > 1:
            order = torch.randperm(ITEMS, generator=self.generator).tolist()
        every = [has_rated(i) for i in range(USERS)]
        pseudo = [(j + self.taken) % len(every[i]) < settings.pseudo_ratings for i, j, _, _ in triples]
        times = 2 if sum(pseudo) == 1 else 1  # that a pair is rated, with a mask each
        masks = iter(self.mask(settings.dropout, times * sum(pseudo), 6))
        mask_h = self.mask(settings.dropout, n, 6)
        bpr, mse, of_pseudo = torch.zeros(3, dtype=torch.float64).unbind()
        balance = [len(each) ** -settings.user_balance for each in every]
        mean_balance = sum(x * len(each) for x, each in zip(balance, every, strict=True)) / sum(map(len, every))
        for place, (i, j, one, r) in enumerate(triples):
            u, q, v, q_rated = u_fact[i], q_fact[j], u_reg[i], q_reg[j]
            if settings.watched_items:
                (u, q), (v, q_rated) = (with_sums(*each, i, j, True) for each in ((u_fact, q_fact), (u_reg, q_reg)))
            u = u * mask_u[place]
            drawn = order[j % parts * k : (j % parts + 1) * k] if order else [one]
            if settings.unseen_negatives:
                drawn = [c for c in drawn if c not in every[i]]
            if settings.ranking_loss == "softmax":
                drawn = [c for c in drawn if c != j]
            positive = u @ q + w["B.weight"][j, 0]
            rows = [with_sums(u_fact, q_fact, i, c, False)[1] if settings.watched_items else q_fact[c] for c in drawn]
            p = [u @ row + w["B.weight"][c, 0] for row, c in zip(rows, drawn, strict=True)]
            loss = self.loss(positive, torch.stack(p)) if drawn else torch.zeros((), dtype=torch.float64)
            bpr = bpr + balance[i] / mean_balance * loss / n
            mse = mse + (self.rate(v, q_rated, mask_h[place]) - r) ** 2 / n
            if pseudo[place]:
                c = order[j % parts * k + j // parts % k] if order else one
                row = with_sums(u_reg, q_reg, i, c, False)[1] if settings.watched_items else q_reg[c]
                for _ in range(times):
                    of_pseudo = of_pseudo + self.rate(v, row, next(masks)) ** 2 / times / n
        density = len(rated()) / (USERS * ITEMS)
        decay = (
            settings.weight_decay
            * math.sqrt(density / (density + 0.01))
            / len(rated())
            / 2
            * torch.stack([(x**2).sum() for x in w.values()]).sum()
        )
        gradients = torch.autograd.grad(0.7 * bpr + 0.3 * (mse + of_pseudo) + decay, list(w.values()))
        rate = 1e-2 * (1 - self.taken / STEPS if settings.lr_schedule == "linear" else 1)
        self.taken += 1
        for name, gradient in zip(w, gradients, strict=True):
            self.first[name] = 0.9 * self.first[name] + 0.1 * gradient
            self.second[name] = 0.999 * self.second[name] + 0.001 * gradient**2
            m, v = self.first[name] / (1 - 0.9**self.taken), self.second[name] / (1 - 0.999**self.taken)
            w[name] = (w[name] - rate * m / (v.sqrt() + 1e-8)).detach().requires_grad_()
        return [bpr.item(), mse.item()]
