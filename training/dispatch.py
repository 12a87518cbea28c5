"""Which way of taking a step is used: the fastest that fits the network and the device."""

import sys

import torch
from torch import nn

from models import MultiTaskNet
from training.adam import AdamState
from training.fused import FusedStep
from training.graph import GraphStep
from training.steps import EagerStep, Step, Weights


def make_step(model: MultiTaskNet, adam: AdamState, weights: Weights, eager: bool = False) -> Step:
    """The fastest step that fits the network and the device; where that is the eager one unasked, say why, once."""
    device = adam.flat.device
    if not eager and (reason := _why_not_fused(model, device)) is not None:
        print(f"training with the eager step: {reason}", file=sys.stderr)
        eager = True
    if eager:
        return EagerStep(model, adam, weights)
    return (GraphStep if device.type == "cuda" else FusedStep)(model, adam, weights)


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
