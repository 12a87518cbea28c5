"""What the lines of the rubric have in common: asking a submission's process, and comparing what it answers.

A check raises ``Wrong`` where the submission does not do what is asked. Random numbers come from fixed seeds, and from
one for each purpose: two submissions that name their parameters alike are asked the same. Answers to these could be
computed beforehand, so that the MLP, the equations and the gradients are also asked about numbers that nobody can know
before (``fresh``); the ids are drawn when the parameters have been handed over. A right network passes with any.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from grading.compare import Array, Ids, Wrong, close, mlp
from grading.messages import Answer

if TYPE_CHECKING:
    import data

NUM_USERS, NUM_ITEMS, DIM, LAYER_SIZES, BATCH = 944, 1683, 32, [96, 64], 256  # the homework's, with ids from 0

SHARED = ("U", "Q")
SEPARATE = ("U_reg", "Q_reg", "U_fact", "Q_fact")
OUTPUTS = {"predictions": "equation 1, u · q + b", "score": "equation 4, the MLP of [u, q, u ∗ q]"}


Draw = Callable[[str], np.random.Generator]  # random numbers for a purpose: ``random`` or ``fresh``


class Ask(Protocol):
    """A way to ask a submission's process: ``session.Session.ask``."""

    def __call__(self, question: str, /, **arguments: Any) -> Answer: ...


class Split(NamedTuple):
    """The two sides of MovieLens 100K."""

    train: "data.Interactions"
    test: "data.Interactions"


class Band(NamedTuple):
    """What a figure may be: center ± width."""

    center: float
    width: float

    def __contains__(self, figure: object) -> bool:
        return isinstance(figure, float) and abs(figure - self.center) <= self.width


@dataclass(frozen=True)
class Check:
    """A line of the rubric.

    Attributes:
        id: the course's name for it; the hidden ones end in "-hidden".
        points: what it is worth, all or nothing.
        title: what it checks.
        run: asks and compares; raises Wrong. The split is there for those that need data.
        seconds: how long a submission may take for it.
        needs_data: whether it trains.
    """

    id: str
    points: int
    title: str
    run: Callable[[Ask, Split | None], None]
    seconds: float = 10.0
    needs_data: bool = False

    @property
    def hidden(self) -> bool:
        return self.id.endswith("-hidden")


def load(ask: Ask) -> None:
    """Before any other question: have models.py imported."""
    ask("load", num_users=NUM_USERS, num_items=NUM_ITEMS, embedding_dim=DIM, layer_sizes=LAYER_SIZES)


def check_tables(ask: Ask, names: tuple[str, ...]) -> None:
    """As many ScaledEmbeddings as names, of the users' and the items' size in turn, none of which is another."""
    tables = ask("tables", names=names)
    weights, classes, memory = tables.arrays("weights"), tables.text_lists("classes"), tables.integers("memory")
    if len(weights) != len(names):
        raise Wrong(f"{len(weights)} embeddings: expected {len(names)}, {', '.join(names)}")
    for place, (name, weight, bases) in enumerate(zip(names, weights, classes, strict=True)):
        users, items = (NUM_USERS, DIM), (NUM_ITEMS, DIM)
        shape, other = (users, items) if name.startswith("U") else (items, users)
        order = f"another order than {', '.join(names)}"
        expect_shape(name, weight, shape, {other: order, shape[::-1]: "transposed"})
        if "ScaledEmbedding" not in bases:
            raise Wrong(f"{name} is of class {', '.join(bases[:1])}: expected a ScaledEmbedding")
        # Of 30,000 normal numbers the mean and the standard deviation are known to half a percent.
        if not (abs(weight.mean()) < 0.1 / DIM and 0.9 / DIM < weight.std() < 1.1 / DIM):
            raise Wrong(
                f"{name} has mean {weight.mean():.4f} and standard deviation {weight.std():.4f}: expected 0 and "
                f"1/{DIM} = {1 / DIM:.4f}, a ScaledEmbedding as it comes"
            )
        if memory[place] in memory[:place]:
            raise Wrong(f"{names[memory.index(memory[place])]} and {name} are the same embedding: expected two")


def check_mlp(ask: Ask, layer_sizes: list[int]) -> None:
    """Linear, ReLU, …, Linear of these input widths and output width 1, and that is what it computes."""
    inputs = fresh("inputs").standard_normal((64, layer_sizes[0])).astype(np.float32)
    answer = ask("mlp", layer_sizes=layer_sizes, inputs=inputs)
    asked = f"init_mlp_layers({layer_sizes})"
    layers, parameters = answer.texts("layers"), answer.named_arrays("parameters")
    expected = ["Linear", "ReLU"] * (len(layer_sizes) - 1) + ["Linear"]
    if layers and layers != expected:
        cause = ""
        if layers == [*expected, "ReLU"]:
            cause = ". Likely cause: a ReLU after the last layer too"
        elif layers in (expected[:-2], expected[:-1]):
            cause = ". Likely cause: the last layer, of output width 1, is missing"
        elif "ReLU" not in layers:
            cause = ". Likely cause: the ReLUs are missing, or applied in forward instead of being layers"
        raise Wrong(f"{asked} has the layers {', '.join(layers)}: expected {', '.join(expected)}{cause}")
    widths = [weight.shape[::-1] for name, weight in parameters.items() if name.endswith("weight")]
    widths_expected = list(zip(layer_sizes, [*layer_sizes[1:], 1], strict=True))
    if sorted(widths) != sorted(widths_expected) or (layers and widths != widths_expected):
        raise Wrong(f"{asked} has linear layers of input and output width {widths}: expected {widths_expected}")
    if not close(answer.array("outputs").reshape(-1), mlp(inputs.astype(np.float64), parameters)):
        raise Wrong(f"{asked} computes something else than its linear layers with ReLUs between them")


def check_shapes(ask: Ask, names: tuple[str, ...]) -> None:
    """forward of a batch gives two vectors of finite numbers."""
    ask("network", names=names, seed=0)
    users, items = some_pairs(BATCH, "shapes")
    forward(ask, users, items)


def forward(ask: Ask, users: Ids, items: Ids, where: str = "") -> tuple[Array, Array]:
    """Predictions and score of some pairs: one finite number for each, or ``Wrong``."""
    outputs = ask("forward", user_ids=users, item_ids=items)
    for name in OUTPUTS:
        check_vector(f"{where}{name}", outputs.array(name).shape, len(users))
        check_finite(f"{where}{name}", outputs.array(name))
    return outputs.array("predictions"), outputs.array("score")


def check_vector(name: str, shape: tuple[int, ...], length: int) -> None:
    """An output of a batch has one number for each pair."""
    causes = {
        (length, length): "the product is not row by row, or a bias of shape (batch, 1) is added to (batch,)",
        (length, 1): "a missing squeeze of the last dimension",
        (1, length): "a transposed result",
        (length, DIM): "the product u * q without its sum",
        (): "a squeeze() without a dimension, which takes away that of the batch too, or a mean over the batch",
    }
    if shape != (length,):
        cause = f". Likely cause: {causes[shape]}" if shape in causes else ""
        raise Wrong(f"{name} of shape {shape}: expected {(length,)}{cause}")


def check_finite(name: str, array: Array) -> None:
    if not np.isfinite(array).all():
        raise Wrong(f"{name}: NaN or infinite numbers; expected finite ones")


def expect_shape(name: str, array: Array, shape: tuple[int, ...], causes: dict[tuple[int, ...], str]) -> None:
    if array.shape != shape:
        cause = f". Likely cause: {causes[array.shape]}" if array.shape in causes else ""
        raise Wrong(f"{name} has shape {array.shape}: expected {shape}{cause}")


def some_pairs(count: int, purpose: str, draw: Draw | None = None) -> tuple[Ids, Ids]:
    """Ids of users and items."""
    generator = (draw or random)(purpose)
    return generator.integers(0, NUM_USERS, count), generator.integers(0, NUM_ITEMS, count)


def random(purpose: str) -> np.random.Generator:
    """Random numbers that are the same for the same purpose, whatever else is drawn."""
    return np.random.default_rng(zlib.crc32(purpose.encode()))


def fresh(purpose: str) -> np.random.Generator:
    """Random numbers that are others each time, whatever the purpose."""
    return np.random.default_rng()
