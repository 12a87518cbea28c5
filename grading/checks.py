"""Checks of tables, MLP and shapes: questions to a submission's process, and comparisons with the expected answers.

A check raises ``Wrong`` where the submission is wrong. It compares the shapes of an answer first, and receives the
numbers only if these are the expected ones. Before a check judges a computation, it sets all parameters to numbers that
cannot be predicted, and draws the IDs after that.

Code that replaces the methods of ``worker.Submission`` answers in place of the network. It can gain the points of the
new tables and the new bias (1a), because only their shapes and spread are checked, and those of shapes (2-0, 2-1) and
independence (2-6), because every function of the IDs passes. All other checks need the right computation on numbers
that differ each time: the MLP (1b), equations 1 and 4 (2-4, 2-5) and their gradients (2-7). Training (2-2, 2-3) needs
parameters that reach the bands by these equations, under IDs that differ each time. A number of ratings for each movie
and mean ratings reach them, too. Because the training set is public, such code could also recognize the users by their
ratings, and hand over parameters that were trained before.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from grading.session import Answer, Shape

if TYPE_CHECKING:
    import data

Array = NDArray[np.float64]
Ids = NDArray[np.int64]
Parameters = Mapping[str, Array]  # by name, as ``worker.Submission.parameters`` returns them
Ask = Callable[..., Answer]  # ``Session.ask``, a question to a submission's process
Shapes = Mapping[str, Shape]  # of parameters, by name
Subject = TypeVar("Subject")

TOLERANCE = 1e-4  # relative and absolute; float32 is good to 1e-6 here
MOST_PARAMETERS, MOST_NUMBERS = 64, 8  # of a network; the numbers as a multiple of a right network's
NUM_USERS, NUM_ITEMS, DIM, LAYER_SIZES, BATCH = 944, 1683, 32, [96, 64], 256  # the homework's, with IDs from 0

MLP_WEIGHT = re.compile(r"mlp\.\d+\.weight")
SHARED = ("U", "Q")
SEPARATE = ("U_reg", "Q_reg", "U_fact", "Q_fact")
WITH = {SHARED: "with shared embeddings", SEPARATE: "with separate embeddings"}
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
    if len(answer.shapes) != len(names):
        raise Wrong(f"{len(answer.shapes)} embeddings: expected {len(names)}, {', '.join(names)}")
    users, items = (NUM_USERS, DIM), (NUM_ITEMS, DIM)
    for place, name in enumerate(names):
        shape, other = (users, items) if name.startswith("U") else (items, users)
        order = f"another order than {', '.join(names)}"
        expect_shape(name, answer.shape(str(place)), shape, {other: order, shape[::-1]: "transposed"})
    for name, bases in zip(names, answer.strings("classes", len(names)), strict=True):
        if "ScaledEmbedding" not in bases.split():
            raise Wrong(f"{name} is of class {bases.partition(' ')[0]}: expected a ScaledEmbedding")
    memory = answer.integers("memory", len(names))
    for place, (name, table) in enumerate(zip(names, answer.arrays(answer.shapes).values(), strict=True)):
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
    answer = ask("mlp", layer_sizes=layer_sizes)
    asked = f"init_mlp_layers({layer_sizes})"
    layers, shapes = answer.strings("layers"), answer.shapes
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
    check_size(shapes, asked, mlp_numbers(layer_sizes))
    names = linear_layers(shapes, layer_sizes, asked)
    if layers and names != sorted(names):
        raise Wrong(f"{asked} applies its linear layers in another order than their widths: expected {layer_sizes}")
    parameters = set_parameters(ask, shapes)
    inputs = np.random.default_rng().standard_normal((64, layer_sizes[0])).astype(np.float32)
    inputs[32:] *= 20  # a bounded activation shows at large numbers
    outputs = ask("outputs", inputs=inputs)
    shape = outputs.shape("outputs")
    if shape not in ((64, 1), (64,)):
        raise Wrong(f"{asked} computes outputs of shape {shape} for 64 inputs: expected (64, 1)")
    found = outputs.arrays({"outputs": shape})["outputs"].reshape(64)
    if not close(found, mlp(inputs.astype(np.float64), parameters, names)):
        raise Wrong(f"{asked} computes other outputs than its linear layers with ReLUs between them")


def mlp_numbers(layer_sizes: Sequence[int]) -> int:
    """Count the weights and biases of an MLP."""
    return sum(width * next_width + next_width for width, next_width in pairwise([*layer_sizes, 1]))


def linear_layers(shapes: Shapes, layer_sizes: Sequence[int], owner: str, cause: str = "") -> list[str]:
    """Return the names of linear layers, "mlp.0", …, in the order of their application, which is that of their widths.

    Raises:
        Wrong: they differ from the layers with these input widths and output width 1.
    """
    weights = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if MLP_WEIGHT.fullmatch(name)}
    widths = [shape[::-1] for shape in weights.values()]
    expected = [*pairwise([*layer_sizes, 1])]
    if sorted(widths) != sorted(expected):
        raise Wrong(f"{owner} has linear layers of input and output width {widths}: expected {expected}{cause}")
    names = sorted(weights, key=lambda name: expected.index((weights[name][1], weights[name][0])))
    for name in names:
        bias, width = shapes.get(f"{name}.bias"), weights[name][0]
        if bias not in (None, (width,)):
            raise Wrong(f"{owner} has a linear layer with a bias of shape {bias}: expected {(width,)}")
    return names


def check_size(shapes: Shapes, owner: str, numbers: int) -> None:
    """Check that parameters are not many more than those of a right solution, which has this many numbers."""
    found = sum(map(math.prod, shapes.values()))
    if len(shapes) > MOST_PARAMETERS or found > MOST_NUMBERS * numbers:
        raise Wrong(
            f"{owner} has {len(shapes)} parameters with {found:,} numbers: expected about {numbers:,}, and at most "
            f"{MOST_PARAMETERS} with {MOST_NUMBERS * numbers:,}"
        )


def set_parameters(ask: Ask, shapes: Shapes, scale: float = 0.5) -> dict[str, Array]:
    """Set all parameters to fresh random numbers, and return those that they have afterwards.

    The standard deviation of the weights of linear layers keeps the size of their outputs; that of all others is scale.
    """
    draw = np.random.default_rng()
    values = {}
    for name, shape in shapes.items():
        is_layer = len(shape) == 2 and MLP_WEIGHT.fullmatch(name)
        deviation = 1.5 / np.sqrt(max(1, shape[1])) if is_layer else scale
        values[name] = np.asarray(deviation * draw.standard_normal(shape), np.float32)
    ask("assign", **values)
    kept = ask("parameters").arrays(shapes)
    drawn = {value.tobytes() for value in values.values()}
    for name, array in kept.items():
        if array.astype(np.float32).tobytes() not in drawn:  # tables that share memory have the numbers of the last one
            raise Wrong(f"{name.removeprefix('other.')} does not keep the numbers that it is set to")
    return kept


def check_shapes(ask: Ask, names: tuple[str, ...]) -> None:
    """Check that forward of a batch returns two vectors of finite numbers."""
    ask("network", names=names, seed=0)
    users, items = some_pairs()
    forward(ask, users, items)


def forward(ask: Ask, users: Ids, items: Ids, where: str = "", training: bool = True) -> tuple[Array, Array]:
    """Ask for predictions and score of some pairs, and check that they are finite numbers, one per pair."""
    answer = ask("forward", user_ids=users, item_ids=items, training=training)
    for name in OUTPUTS:
        check_vector(f"{where}{name}", answer.shape(name), len(users))
    outputs = answer.arrays(dict.fromkeys(OUTPUTS, (len(users),)))
    for name in OUTPUTS:
        check_finite(f"{where}{name}", outputs[name])
    return outputs["predictions"], outputs["score"]


def make_network(ask: Ask, names: tuple[str, ...], seed: int = 0) -> Answer:
    """Have the network made with tables of these names, and return all of its initial parameters."""
    ask("network", names=names, seed=seed)
    answer = ask("parameters")
    tables = len(names) // 2 * (NUM_USERS + NUM_ITEMS) * DIM + NUM_ITEMS
    check_size(answer.shapes, "the network", tables + mlp_numbers(LAYER_SIZES))
    return answer


def check_network(shapes: Shapes, names: tuple[str, ...]) -> list[str]:
    """Check that a network has the tables and the linear layers of both equations; return the names of the layers.

    A table can have more rows than IDs.
    """
    for name in (*names, "B"):
        if name not in shapes:
            raise Wrong(f"the network has no attribute {name}: expected an embedding of that name")
        rows = NUM_USERS if name.startswith("U") else NUM_ITEMS
        width = 1 if name == "B" else DIM
        if len(shapes[name]) != 2 or shapes[name][0] < rows or shapes[name][1] != width:
            raise Wrong(f"{name} has shape {shapes[name]}: expected {(rows, width)}")
    if "mlp.0.weight" not in shapes:
        raise Wrong("the network has no linear layers in an attribute mlp_layers: expected those of init_mlp_layers")
    without_product = shapes["mlp.0.weight"][1:] == (2 * DIM,)
    cause = ". Likely cause: the product u ∗ q is missing" if without_product else ""
    return linear_layers(shapes, LAYER_SIZES, "the network's mlp_layers", cause)


def check_vector(name: str, shape: tuple[int, ...], length: int) -> None:
    """Check that an output of a batch has one number for each pair."""
    causes = {
        (length, length): "the product is not row by row, or a bias of shape (batch, 1) is added to (batch,)",
        (1, length): "a transposed result",
        (length, 1): "a missing squeeze of the last dimension",
        (length, DIM): "the product u * q without its sum",
        (): "a mean over the batch",
    }
    if length == 1:
        causes[()] = "a squeeze() without a dimension, which also removes that of the batch: squeeze(-1) keeps it"
    if shape != (length,):
        includes = ", because (batch_size,) includes a batch of 1" if length == 1 else ""
        cause = f". Likely cause: {causes[shape]}" if shape in causes else ""
        raise Wrong(f"{name} of shape {shape}: expected {(length,)}{includes}{cause}")


def check_finite(name: str, array: Array) -> None:
    if not np.isfinite(array).all():
        raise Wrong(f"{name}: NaN or infinite numbers; expected finite ones")


def expect_shape(name: str, found: Shape, shape: Shape, causes: dict[Shape, str]) -> None:
    if found != shape:
        cause = f". Likely cause: {causes[found]}" if found in causes else ""
        raise Wrong(f"{name} has shape {found}: expected {shape}{cause}")


def some_pairs(count: int = BATCH) -> tuple[Ids, Ids]:
    """Draw the IDs of users and items. The first and the last ID of both are always among them."""
    draw = np.random.default_rng()
    users, items = draw.integers(0, NUM_USERS, count), draw.integers(0, NUM_ITEMS, count)
    users[:4] = items[4:8] = 0
    users[8:12] = NUM_USERS - 1
    items[12:16] = NUM_ITEMS - 1
    return users, items


def close(got: Array, expected: Array) -> bool:
    """Compare two arrays within the tolerance of float32; NaN and infinite numbers are never close."""
    near = np.isclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)
    return got.shape == expected.shape and bool((near & np.isfinite(got)).all())


def mlp(inputs: Array, parameters: Parameters, layers: Sequence[str], relus: bool = True) -> Array:
    """Apply linear layers of these names in this order, with ReLUs between them or without: (n, width) → (n,)."""
    outputs = linear(inputs, parameters, layers[0])
    for name in layers[1:]:
        outputs = linear(np.maximum(outputs, 0) if relus else outputs, parameters, name)
    return np.asarray(outputs[:, 0])


def linear(inputs: Array, parameters: Parameters, name: str) -> Array:
    """Apply one linear layer, which can lack a bias: (n, width) → (n, next width)."""
    return np.asarray(inputs @ parameters[f"{name}.weight"].T + parameters.get(f"{name}.bias", 0.0))
