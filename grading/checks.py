"""Checks of tables, MLP and shapes: questions to a submission's process, and comparisons with the expected answers.

A check raises ``Wrong`` where the submission is wrong. Most random numbers come from fixed seeds, one for each purpose,
so that all submissions are asked the same. Because such answers could be computed beforehand, the checks of the MLP,
the equations and the gradients also use numbers that cannot be predicted (``fresh``). They draw the IDs after the
parameters have been set. A right network passes with any numbers.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from grading.session import Answer

if TYPE_CHECKING:
    import data

Array = NDArray[np.float64]
Ids = NDArray[np.int64]
Parameters = Mapping[str, Array]  # by name, as ``worker.Submission.parameters`` returns them
Ask = Callable[..., Answer]  # ``Session.ask``, a question to a submission's process
Draw = Callable[[str], np.random.Generator]  # makes random numbers for a purpose: ``random`` or ``fresh``
Subject = TypeVar("Subject")

TOLERANCE = 1e-4  # relative and absolute; float32 is good to 1e-6 here
NUM_USERS, NUM_ITEMS, DIM, LAYER_SIZES, BATCH = 944, 1683, 32, [96, 64], 256  # the homework's, with IDs from 0

SHARED = ("U", "Q")
SEPARATE = ("U_reg", "Q_reg", "U_fact", "Q_fact")
OUTPUTS = {"predictions": "equation 1, u · q + b", "score": "equation 4, the MLP of [u, q, u ∗ q]"}


class Wrong(Exception):
    """A failed check, with the expected value, the value found and, if clear, the likely cause."""


class Split(NamedTuple):
    """The training set and the test set of MovieLens 100K."""

    train: "data.Interactions"
    test: "data.Interactions"


@dataclass(frozen=True)
class Check:
    """A line of the rubric."""

    id: str  # the course's name for it; those of hidden checks end in "-hidden"
    points: int  # given in full or not at all
    title: str
    run: Callable[[Ask, Split | None], None]  # asks and compares; raises Wrong; gets a split if it needs data
    seconds: float = 10.0  # the time limit
    needs_data: bool = False

    @property
    def hidden(self) -> bool:
        return self.id.endswith("-hidden")


def about(check: Callable[[Ask, Subject], None], *subjects: Subject) -> Callable[[Ask, Split | None], None]:
    """Make a line's ``run``: the same check of several subjects, which are names of tables or layer sizes."""

    def run(ask: Ask, _: Split | None) -> None:
        for subject in subjects:
            check(ask, subject)

    return run


def import_models(ask: Ask) -> None:
    """Have models.py imported, before any other question."""
    ask("import_models", num_users=NUM_USERS, num_items=NUM_ITEMS, embedding_dim=DIM, layer_sizes=LAYER_SIZES)


def check_tables(ask: Ask, names: tuple[str, ...]) -> None:
    """Check that there is one distinct ScaledEmbedding per name, alternately user- and item-sized."""
    answer = ask("tables", names=names)
    tables, classes, memory = answer.arrays("tables"), answer.strings("classes"), answer.integers("memory")
    if len(tables) != len(names):
        raise Wrong(f"{len(tables)} embeddings: expected {len(names)}, {', '.join(names)}")
    users, items = (NUM_USERS, DIM), (NUM_ITEMS, DIM)
    for place, (name, table, bases) in enumerate(zip(names, tables, classes, strict=True)):
        shape, other = (users, items) if name.startswith("U") else (items, users)
        order = f"another order than {', '.join(names)}"
        expect_shape(name, table, shape, {other: order, shape[::-1]: "transposed"})
        if "ScaledEmbedding" not in bases.split():
            raise Wrong(f"{name} is of class {bases.partition(' ')[0]}: expected a ScaledEmbedding")
        # With 30,000 numbers, the mean and the standard deviation of a sample are within half a percent.
        if not (abs(table.mean()) < 0.1 / DIM and 0.9 / DIM < table.std() < 1.1 / DIM):
            raise Wrong(
                f"{name} has mean {table.mean():.4f} and standard deviation {table.std():.4f}: expected 0 and "
                f"1/{DIM} = {1 / DIM:.4f}, as a new ScaledEmbedding has"
            )
        if memory[place] in memory[:place]:
            raise Wrong(f"{names[memory.index(memory[place])]} and {name} are the same embedding: expected two")


def check_mlp(ask: Ask, layer_sizes: list[int]) -> None:
    """Check the layers, Linear, ReLU, …, Linear of these input widths and output width 1, and their outputs."""
    inputs = fresh("inputs").standard_normal((64, layer_sizes[0])).astype(np.float32)
    answer = ask("mlp", layer_sizes=layer_sizes, inputs=inputs)
    asked = f"init_mlp_layers({layer_sizes})"
    layers, parameters = answer.strings("layers"), answer.named_arrays("parameters")
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
        raise Wrong(f"{asked} computes other outputs than its linear layers with ReLUs between them")


def check_shapes(ask: Ask, names: tuple[str, ...]) -> None:
    """Check that forward of a batch returns two vectors of finite numbers."""
    ask("network", names=names, seed=0)
    users, items = some_pairs("shapes")
    forward(ask, users, items)


def forward(ask: Ask, users: Ids, items: Ids, where: str = "") -> tuple[Array, Array]:
    """Ask for predictions and score of some pairs, and check that they are finite numbers, one per pair."""
    outputs = ask("forward", user_ids=users, item_ids=items)
    for name in OUTPUTS:
        check_vector(f"{where}{name}", outputs.array(name).shape, len(users))
        check_finite(f"{where}{name}", outputs.array(name))
    return outputs.array("predictions"), outputs.array("score")


def check_vector(name: str, shape: tuple[int, ...], length: int) -> None:
    """Check that an output of a batch has one number for each pair."""
    causes = {
        (length, length): "the product is not row by row, or a bias of shape (batch, 1) is added to (batch,)",
        (length, 1): "a missing squeeze of the last dimension",
        (1, length): "a transposed result",
        (length, DIM): "the product u * q without its sum",
        (): "a squeeze() without a dimension, which also removes that of the batch, or a mean over the batch",
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


def random(purpose: str) -> np.random.Generator:
    """Make random numbers that are always the same for the same purpose."""
    return np.random.default_rng(zlib.crc32(purpose.encode()))


def fresh(purpose: str) -> np.random.Generator:
    """Make random numbers that differ each time."""
    return np.random.default_rng()


def some_pairs(purpose: str, draw: Draw = random) -> tuple[Ids, Ids]:
    """Draw the IDs of a batch of users and items."""
    generator = draw(purpose)
    return generator.integers(0, NUM_USERS, BATCH), generator.integers(0, NUM_ITEMS, BATCH)


def close(got: Array, expected: Array) -> bool:
    """Compare two arrays within the tolerance of float32; NaN is never close."""
    return got.shape == expected.shape and bool(np.isclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE).all())


def mlp(inputs: Array, parameters: Parameters, relus: bool = True) -> Array:
    """Apply linear layers, with ReLUs between them or without: (n, width) → (n,), NaN where their widths do not fit.

    The layers are put in the order of their widths, not in that of their registration.
    """
    places = [name.split(".")[1] for name in parameters if name.startswith("mlp.") and name.endswith(".weight")]
    hidden = inputs
    while places:
        fitting = [at for at in places if parameters[f"mlp.{at}.weight"].shape[1:] == hidden.shape[1:]]
        if not fitting:
            return np.full(len(inputs), np.nan)
        places.remove(fitting[0])
        layer = f"mlp.{fitting[0]}"
        weight = parameters[f"{layer}.weight"]
        bias = parameters.get(f"{layer}.bias", np.zeros(len(weight)))
        if weight.ndim != 2 or bias.shape != weight.shape[:1]:
            raise Wrong(f"a linear layer has a weight of shape {weight.shape} and a bias of shape {bias.shape}")
        hidden = hidden @ weight.T + bias
        if places and relus:
            hidden = np.maximum(hidden, 0)
    return hidden[:, 0] if hidden.shape[1] == 1 else np.full(len(inputs), np.nan)
