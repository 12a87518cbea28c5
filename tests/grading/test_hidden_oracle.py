"""The float64 oracle of the hidden checks against the project's network and torch's gradients."""

import numpy as np
import pytest
import torch

from grading.checks import SEPARATE, SHARED, close
from grading.hidden_metrics import ByEquations
from grading.hidden_oracle import Pairs
from models import MultiTaskNet

USERS, ITEMS = np.arange(20), np.arange(20) + 7


def network_and_pairs(sharing: bool) -> tuple[MultiTaskNet, Pairs]:
    """Make a small network in double precision, and pairs with its parameters as the grader names them."""
    torch.manual_seed(0)
    net = MultiTaskNet(20, 30, 4, (12, 7, 5), sharing).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    return net, Pairs(named(net, False), SHARED if sharing else SEPARATE, ["mlp.0", "mlp.1", "mlp.2"], USERS, ITEMS)


def named(net: MultiTaskNet, gradients: bool) -> dict[str, np.ndarray]:
    """Return the parameters or their gradients by the grader's names."""
    parameters = {}
    for name, parameter in net.named_parameters():
        table, _, rest = name.partition(".")
        place, _, part = rest.partition(".")
        key = f"mlp.{int(place) // 2}.{part}" if table == "mlp_layers" else table
        values = parameter.grad if gradients else parameter.detach()
        parameters[key] = np.zeros(parameter.shape) if values is None else values.numpy()
    return parameters


@pytest.mark.parametrize("sharing", [True, False])
def test_the_oracle_agrees_with_the_network_in_double_precision(sharing: bool) -> None:
    net, pairs = network_and_pairs(sharing)
    predictions, score = net(torch.tensor(USERS), torch.tensor(ITEMS))
    np.testing.assert_allclose(pairs.interactions(), predictions.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(pairs.ratings(), score.detach().numpy(), rtol=1e-12)
    scorer = ByEquations(pairs.parameters, pairs.names, pairs.layers)
    everything = scorer.predict_all_items(torch.tensor(USERS))[USERS, ITEMS]
    np.testing.assert_allclose(everything, predictions.detach(), rtol=1e-5)
    np.testing.assert_allclose(
        scorer.predict_ratings(torch.tensor(USERS), torch.tensor(ITEMS)), score.detach(), rtol=1e-5
    )
    for mistakes, right, other_task in (
        (pairs.mistaken_interactions(), pairs.interactions(), "regression tables"),
        (pairs.mistaken_ratings(), pairs.ratings(), "factorization tables"),
    ):
        same = [name for name, values in mistakes.items() if close(values, right)]
        assert len(same) == sharing  # with shared tables, to take those of the other task is no mistake
        assert all(other_task in name for name in same)


@pytest.mark.parametrize("sharing", [True, False])
def test_the_oracles_gradients_are_those_of_torch(sharing: bool) -> None:
    net, pairs = network_and_pairs(sharing)
    negatives, ratings = np.flip(ITEMS), np.linspace(1, 5, len(USERS))
    users, items = torch.tensor(USERS), torch.tensor(ITEMS)
    difference = net(users, items)[0] - net(users, torch.tensor(negatives.copy()))[0]
    bpr_loss = (1 - difference.sigmoid()).mean()
    mse_loss = (net(users, items)[1] - torch.tensor(ratings)).square().mean()
    for loss, gradients in ((bpr_loss, pairs.bpr_gradients(negatives)), (mse_loss, pairs.mse_gradients(ratings))):
        net.zero_grad()
        loss.backward()
        expected = named(net, True)
        assert gradients.keys() == expected.keys()
        for name, gradient in gradients.items():
            np.testing.assert_allclose(gradient, expected[name], rtol=1e-9, atol=1e-12, err_msg=name)


def test_the_distance_from_corners_is_that_of_the_nearest_relu() -> None:
    net, pairs = network_and_pairs(True)
    inputs: list[torch.Tensor] = []
    for layer in net.mlp_layers:
        if isinstance(layer, torch.nn.ReLU):
            layer.register_forward_pre_hook(lambda _, given: inputs.append(given[0].detach()))
    net(torch.tensor(USERS), torch.tensor(ITEMS))
    nearest = torch.cat(inputs, 1).abs().amin(1)
    np.testing.assert_allclose(pairs.distance_from_corners(), nearest, rtol=1e-9)
