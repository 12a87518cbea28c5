"""The float64 oracle of the hidden checks against the project's network."""

import numpy as np
import pytest
import torch

from grading.checks import Wrong, close, mlp
from grading.hidden_oracle import look_up
from models import MultiTaskNet


@pytest.mark.parametrize("sharing", [True, False])
def test_the_oracle_agrees_with_the_network_in_double_precision(sharing: bool) -> None:
    torch.manual_seed(0)
    net = MultiTaskNet(20, 30, 4, (12, 7, 5), sharing).double()
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter)
    tables = ("U", "Q") if sharing else ("U_reg", "Q_reg", "U_fact", "Q_fact")
    parameters = {name: getattr(net, name).weight.detach().numpy() for name in (*tables, "B")}
    for place, layer in enumerate(each for each in net.mlp_layers if isinstance(each, torch.nn.Linear)):
        parameters[f"mlp.{place}.weight"] = layer.weight.detach().numpy()
        parameters[f"mlp.{place}.bias"] = layer.bias.detach().numpy()
    users, items = np.arange(20), np.arange(20) + 7
    predictions, score = net(torch.tensor(users), torch.tensor(items))
    pairs = look_up(parameters, tables, users, items, 4)
    np.testing.assert_allclose(pairs.interactions(), predictions.detach().numpy(), rtol=1e-12)
    np.testing.assert_allclose(pairs.ratings(), score.detach().numpy(), rtol=1e-12)
    for mistakes, right, other_task in (
        (pairs.mistaken_interactions(), pairs.interactions(), "regression tables"),
        (pairs.mistaken_ratings(), pairs.ratings(), "factorization tables"),
    ):
        same = [name for name, values in mistakes.items() if close(values, right)]
        assert len(same) == sharing  # with shared tables, to take those of the other task is no mistake
        assert all(other_task in name for name in same)
    with pytest.raises(Wrong, match=f"{tables[-1]} has shape"):
        look_up(parameters | {tables[-1]: np.zeros((30, 3))}, tables, users, items, 4)


def test_layers_of_odd_shapes_are_not_applied() -> None:
    ones = np.ones((5, 12))
    parameters = {"mlp.0.weight": np.ones((1, 12)), "mlp.0.bias": np.zeros(1)}
    np.testing.assert_array_equal(mlp(ones, parameters), np.full(5, 12.0))
    assert np.isnan(mlp(ones, {"mlp.0.weight": np.ones((2, 12))})).all()
    assert np.isnan(mlp(ones, {"mlp.0.weight": np.ones((1, 12, 1))})).all()
    with pytest.raises(Wrong, match="a linear layer has a weight of shape"):
        mlp(ones, parameters | {"mlp.0.bias": np.zeros((60_000, 1, 1))})
