"""models.py compared with the equations in float64, row by row, and called as graders call it."""

import pytest
import torch
from torch import nn

from models import MultiTaskNet, ScaledEmbedding, ZeroEmbedding


def randomized(net: MultiTaskNet) -> MultiTaskNet:
    """Give every parameter, including biases, a value that affects the outputs."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.normal_(0, 0.5, generator=generator)
    return net


def expected_pair(net: MultiTaskNet, user: int, item: int) -> tuple[float, float]:
    """Compute equations 1 and 4 for a pair in float64, from the parameters by name."""
    weights = {name: value.double() for name, value in net.state_dict().items()}
    fact, reg = ("", "") if net.embedding_sharing else ("_fact", "_reg")
    u, q = weights[f"U{fact}.weight"][user], weights[f"Q{fact}.weight"][item]
    p = sum(float(a) * float(b) for a, b in zip(u, q, strict=True)) + float(weights["B.weight"][item, 0])
    u, q = weights[f"U{reg}.weight"][user], weights[f"Q{reg}.weight"][item]
    x = torch.cat([u, q, u * q])
    depth = (len(net.mlp_layers) + 1) // 2
    for layer in range(depth):
        x = weights[f"mlp_layers.{2 * layer}.weight"] @ x + weights[f"mlp_layers.{2 * layer}.bias"]
        if layer < depth - 1:
            x = x.clamp(min=0)
    assert x.shape == (1,)
    return p, float(x)


SHAPES = [(32, (96, 64)), (8, (24,)), (5, (15, 7, 3)), (1, (3, 9, 9, 2))]


@pytest.mark.parametrize("sharing", [True, False])
@pytest.mark.parametrize(("dim", "sizes"), SHAPES)
def test_both_tasks_follow_their_equations(sharing: bool, dim: int, sizes: tuple[int, ...]) -> None:
    net = randomized(MultiTaskNet(11, 7, dim, sizes, sharing))
    generator = torch.Generator().manual_seed(0)
    for shape in ((), (1,), (2,), (40,)):  # the course's evaluation squeezes the IDs of a single pair to ()
        users = torch.randint(11, shape, generator=generator)
        items = torch.randint(7, shape, generator=generator)
        pairs = zip(users.view(-1).tolist(), items.view(-1).tolist(), strict=True)
        expected = torch.tensor([expected_pair(net, user, item) for user, item in pairs])
        predictions, score = net(users, items)
        torch.testing.assert_close(predictions, expected[:, 0].view(shape), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(score, expected[:, 1].view(shape), rtol=1e-4, atol=1e-5)


def test_default_layout() -> None:
    shared, separate = MultiTaskNet(943, 1682), MultiTaskNet(943, 1682, embedding_sharing=False)
    assert {name: tuple(p.shape) for name, p in shared.named_parameters()} == {
        "U.weight": (943, 32),
        "Q.weight": (1682, 32),
        "B.weight": (1682, 1),
        "mlp_layers.0.weight": (64, 96),
        "mlp_layers.0.bias": (64,),
        "mlp_layers.2.weight": (1, 64),
        "mlp_layers.2.bias": (1,),
    }
    assert {name for name, _ in separate.named_children()} == {"U_reg", "Q_reg", "U_fact", "Q_fact", "B", "mlp_layers"}
    assert (separate.embedding_dim, separate.embedding_sharing, shared.embedding_sharing) == (32, False, True)
    assert len({id(weight) for weight in separate.parameters()}) == 9


def test_init_methods_depend_on_their_arguments_alone() -> None:
    """The course's grader calls them on the class, with a test case as self."""
    anything = object()
    U, Q = MultiTaskNet.init_shared_user_and_item_embeddings(anything, 944, 1683, 32)  # type: ignore[arg-type]
    assert (tuple(U.weight.shape), tuple(Q.weight.shape)) == ((944, 32), (1683, 32))
    four = MultiTaskNet.init_separate_user_and_item_embeddings(anything, 944, 1683, 32)  # type: ignore[arg-type]
    assert [tuple(table.weight.shape) for table in four] == [(944, 32), (1683, 32)] * 2
    assert all(type(table) is ScaledEmbedding for table in (U, Q, *four))
    bias = MultiTaskNet.init_item_bias(anything, 944, 1683)  # type: ignore[arg-type]
    assert (type(bias), tuple(bias.weight.shape), bool(bias.weight.any())) == (ZeroEmbedding, (1683, 1), False)
    layers = MultiTaskNet.init_mlp_layers(anything, [96, 64])  # type: ignore[arg-type]
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear]


def test_embeddings_start_as_described() -> None:
    torch.manual_seed(0)
    weight = ScaledEmbedding(4000, 50, padding_idx=3).weight.detach()
    assert not weight[3].any()
    assert not ZeroEmbedding(5, 2, padding_idx=1).weight.any()
    assert abs(float(weight.std()) * 50 - 1) < 0.02
    assert abs(float(weight.mean())) < 1e-3


def test_ids_out_of_range_are_an_error() -> None:
    net = MultiTaskNet(3, 4)
    for user, item in ((3, 0), (-1, 0), (0, 4), (0, -7)):
        with pytest.raises(IndexError):
            net(torch.tensor([1, user]), torch.tensor([1, item]))
