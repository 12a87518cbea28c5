"""Any models.py: the forms that it may have, and the line that names its mistake."""

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from training import network
from training.network import NetworkError, error_of, own_traceback
from training.settings import Settings

OURS = (Path(__file__).parent.parent.parent / "models.py").read_text()
SEPARATE = Settings(embedding_dim=8, layer_sizes=(24, 5), shared_embeddings=False)
Use = Callable[[str], None]


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Use:
    """Return a function that puts another models.py in the place of ours."""

    def put(text: str) -> None:
        (tmp_path / "models.py").write_text(text)
        monkeypatch.delitem(sys.modules, "models", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(network, "FILE", tmp_path / "models.py")

    # What stood there before is put back at the end.
    monkeypatch.setitem(sys.modules, "models", sys.modules.get("models", sys))
    return put


def changed(old: str, new: str, text: str = OURS) -> str:
    """Replace the first occurrence of a string."""
    assert old in text
    return text.replace(old, new, 1)


def line_of(text: str, part: str, offset: int = 0) -> int:
    return text[: text.index(part)].count("\n") + 1 + offset


HEAD = "import torch\nfrom torch import nn\n\n\nclass MultiTaskNet(nn.Module):\n    def __init__(self, {}):\n"
BODY = """\
        super().__init__()
        self.users, self.items = nn.Embedding({}, {}), nn.Embedding({}, {})
        self.sharing = {}

    def forward(self, user_ids, item_ids):
        product = (self.users(user_ids) * self.items(item_ids)).sum(1)
        return [product, product + self.sharing]
"""
NAMES = ("num_users", "embedding_dim", "num_items", "embedding_dim", "embedding_sharing")


@pytest.mark.parametrize(
    ("signature", "names"),
    [
        ("num_users, num_items, embedding_dim=32, layer_sizes=[96, 64], embedding_sharing=True", NAMES),
        ("num_users, num_items, embedding_dim=32, layer_sizes=[96, 64], sparse=False, embedding_sharing=True", NAMES),
        ("num_users, num_items, *, layer_sizes=None, embedding_dim=32, embedding_sharing=True, **others", NAMES),
        ("embedding_sharing, layer_sizes, embedding_dim, num_items, num_users", NAMES),
        ("n, m, dim=32, sizes=[96, 64], embedding_sharing=True", ("n", "dim", "m", "dim", "embedding_sharing")),
        ("n, m, dim, sizes, sparse=0, embedding_sharing=True", ("n", "dim", "m", "dim", "embedding_sharing")),
        ("n, m, dim, sizes, shared", ("n", "dim", "m", "dim", "shared")),
        ("*all", ("all[0]", "all[2]", "all[1]", "all[2]", "all[4]")),
    ],
)
def test_the_constructor_is_called_by_name_or_by_position(signature: str, names: tuple[str, ...], use: Use) -> None:
    use(HEAD.format(signature) + BODY.format(*names))
    net = network.make(SEPARATE, 6, 9)
    assert [tuple(weight.shape) for weight in net.parameters()] == [(6, 8), (9, 8)]
    assert vars(net)["sharing"] is False


BIAS, MLP = "        return ZeroEmbedding(num_items, 1)\n", "        return nn.Sequential(*layers[:-1])\n"
BOTH = "        return ScaledEmbedding(num_users, embedding_dim), ScaledEmbedding(num_items, embedding_dim)\n"
OUT, FORWARD = "        return predictions, score\n", "forward_with_embedding_sharing"
SEE = ", see HOMEWORK.md"
NOT_FILLED_IN = changed(BIAS, '        raise NotImplementedError("exercise A1")\n')
LISTED = changed("self.mlp_layers(torch.cat", "nn.Sequential(*self.mlp_layers)(torch.cat")
WRONG: dict[str, tuple[str, str]] = {
    "a syntax error": (
        changed("MultiTaskNet(nn.Module):", "MultiTaskNet(nn.Module:"),
        f"models.py, line {line_of(OURS, 'class MultiTaskNet')}: SyntaxError: ",
    ),
    "an error of the import": (f"{OURS}\nfoo\n", f"line {OURS.count(chr(10)) + 2}: NameError: name 'foo' is not def"),
    "a module that is missing": (f"import notthere\n{OURS}", "models.py, line 1: ModuleNotFoundError: No module named"),
    "an exit": ("raise SystemExit(3)\n", "models.py, line 1: SystemExit: 3"),
    "no class": ("x = 1\n", "models.py has no class MultiTaskNet: expected one, an nn.Module"),
    "no module": ("class MultiTaskNet:\n    pass\n", "the constructor of MultiTaskNet takes (): expected (num_users,"),
    "a function not filled in": (
        NOT_FILLED_IN,
        f"models.py, line {line_of(NOT_FILLED_IN, 'raise Not')}: init_item_bias is not filled in: exercise A1{SEE}",
    ),
    "no item bias": (
        changed(BIAS, "        ZeroEmbedding(num_items, 1)\n"),
        f"models.py, line {line_of(OURS, 'def init_item_bias')}: init_item_bias returned None: exercise A1{SEE}",
    ),
    "no MLP": (
        changed(MLP, ""),
        f"line {line_of(OURS, 'def init_mlp_layers')}: init_mlp_layers returned None: exercise A2{SEE}",
    ),
    "a list of layers": (
        changed(MLP, "        return layers[:-1]\n", LISTED),
        "init_mlp_layers returned a list of 3, whose layers would not be trained: expected an nn.Sequential: "
        f"exercise A2{SEE}",
    ),
    "a ModuleList that is called": (
        changed("nn.Sequential(*layers[:-1])", "nn.ModuleList(layers[:-1])"),
        f'{FORWARD} raised NotImplementedError: Module [ModuleList] is missing the required "forward" function',
    ),
    "no tables": (changed(BOTH, "        pass\n"), f"embeddings returned None: exercise A1{SEE}"),
    "three tables": (
        changed(BOTH, "        return [ScaledEmbedding(num_users, embedding_dim)] * 3\n"),
        "returned embeddings of shapes (5, 32), (5, 32), (5, 32): expected (5, 32), (7, 32): exercise A1",
    ),
    "a bias for each user": (
        changed(BIAS, BIAS.replace("items", "users")),
        f"init_item_bias returned embeddings of shapes (5, 1): expected (7, 1): exercise A1{SEE}",
    ),
    "a layer of another width": (
        changed("nn.Linear(width, next", "nn.Linear(width + 1, next"),
        f"{FORWARD} raised RuntimeError: mat1 and mat2 shapes cannot be multiplied (3x96 and 97x64): exercise B",
    ),
    "an error in the constructor": (
        changed("self.embedding_dim = embedding_dim", "self.embedding_dim = embeding_dim"),
        f"line {line_of(OURS, 'self.embedding_dim = ')}: __init__ raised NameError: name 'embeding_dim' is not defined",
    ),
    "an error in forward": (
        changed("self.U(user_ids)", "self.V(user_ids)"),
        f"line {line_of(OURS, 'u, q = self.U(')}: {FORWARD} raised AttributeError: ",
    ),
    "nothing from forward": (changed(OUT, ""), f"{FORWARD} returned None: expected two tensors, predictions and"),
    "one output": (changed(OUT, "        return score\n"), f"{FORWARD} returned a tensor of shape (3,) and type"),
    "three outputs": (changed(OUT, "        return score, score, u\n"), f"{FORWARD} returned a tuple of 3: expected"),
    "predictions of every pair": (
        changed("self.B(item_ids).squeeze(-1)", "self.B(item_ids)"),
        f"line {line_of(OURS, f'def {FORWARD}')}: {FORWARD} returned predictions of shape (3, 3) for a batch of 3: "
        f"expected (3,): exercise B{SEE}",
    ),
    "a score without its squeeze": (
        changed("dim=-1)).squeeze(-1)", "dim=-1))"),
        f"{FORWARD} returned score of shape (3, 1) for a batch of 3: expected (3,): exercise B",
    ),
    "whole numbers": (changed(OUT, "        return predictions.long(), score\n"), "expected a float tensor"),
    "nothing to train": (
        HEAD.format("num_users, num_items, embedding_dim, layer_sizes, embedding_sharing")
        + "        super().__init__()\n\n    def forward(self, u, q):\n        return u.float(), q.float()\n",
        "models.py: MultiTaskNet has no parameters to train: expected embeddings and layers that are attributes",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_line_that_names_its_place(name: str, use: Use) -> None:
    text, says = WRONG[name]
    use(text)
    with pytest.raises(NetworkError) as found:
        network.make(Settings(), 5, 7)
    assert says in str(found.value)
    assert "\n" not in str(found.value)


def test_layer_sizes_that_do_not_begin_with_the_mlps_input_are_named() -> None:
    with pytest.raises(NetworkError, match=r"layer_sizes starts with 95: \[u, q, u ∗ q\] has 3·embedding_dim = 96 el"):
        network.make(Settings(layer_sizes=(95, 64)), 5, 7)


def test_making_a_network_leaves_its_class_and_the_random_numbers_after_it_alone() -> None:
    import models

    own = dict(vars(models.MultiTaskNet))
    torch.manual_seed(0)
    net = network.make(Settings(), 5, 7)
    following = torch.rand(3)
    torch.manual_seed(0)
    plain = models.MultiTaskNet(5, 7)
    assert all(torch.equal(x, y) for x, y in zip(net.parameters(), plain.parameters(), strict=True))
    assert torch.equal(following, torch.rand(3))
    assert vars(models.MultiTaskNet) == own
    assert net.training


def test_an_error_of_a_step_keeps_its_authors_frames(use: Use) -> None:
    fail = "    def fail(self, p):\n        return p + torch.ones(99)\n\n    def forward(self"
    text = changed(OUT, OUT.replace("predictions", "self.fail(predictions) if self.training else predictions"))
    text = changed("    def forward(self", fail, text)
    use(text)
    net = network.make(Settings(), 5, 7)
    with pytest.raises(RuntimeError) as found:
        net(torch.tensor([1, 2]), torch.tensor([1, 2]))
    lines = (own_traceback(found.value) or "").splitlines()
    assert [line.split(", in ")[1] for line in lines if line.startswith("  File")] == ["forward", FORWARD, "fail"]
    assert lines[-1].startswith("RuntimeError: The size of tensor a (2)")
    one = error_of(found.value)
    assert one is not None
    assert str(one).startswith(f"models.py, line {line_of(text, 'return p + torch')}: {FORWARD} raised RuntimeError")
    assert own_traceback(ValueError("ours")) is None
    assert error_of(ValueError("ours")) is None
