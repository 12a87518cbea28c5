"""Which way of taking a step is used: the fastest that fits the network and the device."""

import sys

import torch
from torch import nn

from models import MultiTaskNet
from training.adam import AdamState
from training.cuda_graph import GraphStep
from training.fused import FusedStep
from training.parallel import ALONE, Group
from training.recipe import Recipe
from training.rowwise import EagerRowwiseStep, RowwiseGraphStep, RowwiseStep
from training.shared_steps import SharedRowwiseStep, SharedStep
from training.steps import EagerStep, Step, Weights
from training.tuned_step import TunedStep
from training.watched import Watched

# Row-wise Adam where a table has more than this many rows, and so many times those that a batch looks up. Below, dense
# Adam is as fast or faster (measured on one core), and the definition.
MANY_ROWS, ROWS_A_LOOKUP = 2**13, 16


def pick_optimizer(name: str, model: MultiTaskNet, batch_size: int) -> str:
    """Which Adam; for "auto" by the size of the tables relative to a batch, which looks up three rows a triple.

    Args:
        name: "adam", "lazy_adam" or "auto".
        model: the network to train.
        batch_size: triples a step.

    Returns:
        "adam" or "lazy_adam".
    """
    if name != "auto":
        return name
    rows = sum(table.num_embeddings for table in model.factorization_tables)
    return "lazy_adam" if rows > max(MANY_ROWS, ROWS_A_LOOKUP * 3 * batch_size) else "adam"


def make_step(
    model: MultiTaskNet,
    adam: AdamState,
    weights: Weights,
    eager: bool = False,
    optimizer: str = "adam",
    group: Group = ALONE,
    ingredients: tuple[Recipe, torch.Generator, int, Watched] | None = None,
) -> Step:
    """The fastest step that fits the network and the device; where that is the eager one unasked, say why, once.

    Args:
        model, adam, weights: what is trained, and by which loss.
        eager: take the eager step.
        optimizer: "adam" or "lazy_adam".
        group: the processes that train together.
        ingredients: a recipe, and what ``TunedStep`` needs for it.

    Raises:
        ValueError: several processes or row-wise Adam would have to take a step that is not made for them.
    """
    lazy = optimizer == "lazy_adam"
    device = adam.flat.device
    if ingredients is not None and not ingredients[0].plain_step:
        if group.size > 1 or lazy:
            who = "several processes" if group.size > 1 else "lazy_adam"
            raise ValueError(
                f"{who} cannot train with negatives, user_balance, watched_items, temperature, weight_decay, "
                "lr_schedule or dropout other than the homework's: leave them out, or train with one process and "
                "--optimizer adam"
            )
        return TunedStep(model, adam, weights, *ingredients)
    if not eager and (reason := _why_not_fused(model, device)) is not None:
        print(f"training with the eager step: {reason}", file=sys.stderr)
        eager = True
    if group.size > 1:
        if eager:
            raise ValueError("the eager step is taken by one process: leave out --eager, or start without torchrun")
        return (SharedRowwiseStep if lazy else SharedStep)(model, adam, weights, group)
    if eager:
        return (EagerRowwiseStep if lazy else EagerStep)(model, adam, weights)
    if device.type == "cuda":
        return (RowwiseGraphStep if lazy else GraphStep)(model, adam, weights)
    return (RowwiseStep if lazy else FusedStep)(model, adam, weights)


def _why_not_fused(model: MultiTaskNet, device: torch.device) -> str | None:
    """FusedStep knows the gradients of this network only; anything else is left to autograd."""
    if device.type not in ("cpu", "cuda"):
        return f"the fused one was never tried on {device.type}"
    if type(model) is not MultiTaskNet:
        return f"{type(model).__name__} may compute something else than MultiTaskNet"
    kinds = [type(layer) for layer in model.mlp_layers]
    if kinds != [nn.Linear, nn.ReLU] * (len(kinds) // 2) + [nn.Linear]:
        return "mlp_layers is not Linear, ReLU, …, Linear"
    if not all(parameter.requires_grad for parameter in model.parameters()):
        return "some parameters are not trained"
    return None
