"""What an experiment starts from: the sides of its ratings, and its network, all drawn from one seed."""

import argparse
from typing import NamedTuple

import torch
from torch import nn

import data
from training import seeds
from training.network import NetworkSettings, network_class


def split(
    interactions: data.Interactions, test_fraction: float, seed: int
) -> tuple[data.Interactions, data.Interactions]:
    """The training and the test side of a run with this seed."""
    generator = torch.Generator().manual_seed(seeds.spawn(seed).split)
    return data.random_train_test_split(interactions, test_fraction, generator)


class Sides(NamedTuple):
    """What is trained on, what the best epoch is chosen by, if anything, and what is only looked at."""

    train: data.Interactions
    validation: data.Interactions | None
    test: data.Interactions


def split_in_three(interactions: data.Interactions, options: argparse.Namespace) -> Sides:
    """The sides of a run with these flags; the validation side is a part of what would else be trained on.

    Raises:
        ValueError: one of them would be empty.
    """
    train_side, test = split(interactions, options.test_fraction, options.seed)
    if options.validation_fraction == 0:
        return Sides(train_side, None, test)
    if not 0 < round(options.validation_fraction * len(train_side)) < len(train_side):
        raise ValueError(
            f"validation_fraction {options.validation_fraction} of {len(train_side)} training ratings leaves one of "
            "the two sides empty"
        )
    generator = torch.Generator().manual_seed(seeds.spawn(options.seed).validation)
    return Sides(*data.random_train_test_split(train_side, options.validation_fraction, generator), test)


def network_settings(options: argparse.Namespace) -> NetworkSettings:
    """The network of the flags.

    Raises:
        ValueError: one of them is out of range.
    """
    return NetworkSettings(options.embedding_dim, options.layer_sizes, options.shared_embeddings)


def make_network(options: argparse.Namespace, interactions: data.Interactions, device: torch.device) -> nn.Module:
    """Make the network of the flags for these ratings, its initial weights drawn from the seed.

    Raises:
        ValueError: something is wrong with models.py, or the network does not fit into memory.
    """
    network_class()
    torch.manual_seed(seeds.spawn(options.seed).model)
    model = network_settings(options).make(interactions.num_users, interactions.num_items)
    try:
        return model.to(device)
    except RuntimeError as error:
        raise ValueError(f"the network does not fit into memory: {str(error).splitlines()[0]}") from error
