"""What the lines of the rubric have in common: asking a submission's process, and comparing what it answers.

A check raises ``Wrong`` where the submission does not do what is asked. Random numbers come from fixed seeds, and from
one for each purpose: two submissions that name their parameters alike are asked the same. Answers to these could be
computed beforehand, so that the MLP, the equations and the gradients are also asked about numbers that nobody can know
before (``fresh``); the ids are drawn when the parameters have been handed over. A right network passes with any.

What code can still gain that answers in the place of ``worker.py``, with arrays of its own making: the points for
tables and bias as they come (1a), for which any arrays of the right shape and spread do; for shapes (2-0, 2-1) and
independence (2-6), for which any function of the ids does; and for training (2-2, 2-3), if its figures are in the
bands, without the test ratings. For the MLP, the equations and the gradients it has to be a right network.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from grading.messages import Answer
from grading.oracle import (
    Array,
    Ids,
    Wrong,
    close,
    difference,
    look_up,
    mlp,
    mlp_input_width,
)

if TYPE_CHECKING:
    import data

NUM_USERS, NUM_ITEMS, DIM, LAYER_SIZES, BATCH = 944, 1683, 32, [96, 64], 256  # the homework's, with ids from 0

SHARED = ("U", "Q")
SEPARATE = ("U_reg", "Q_reg", "U_fact", "Q_fact")
WITH = {SHARED: "with shared embeddings", SEPARATE: "with separate embeddings"}
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


def check_equations(ask: Ask, names: tuple[str, ...]) -> None:
    """With random numbers in all parameters, predictions are equation 1's and score is equation 4's."""
    for scale in (0.5, 2.0):  # large ones too, at which a bounded output shows
        check_equations_at(ask, names, scale, random)
    check_equations_at(ask, names, 0.5, fresh)


def check_equations_at(ask: Ask, names: tuple[str, ...], scale: float, draw: Draw) -> None:
    """With tables and biases of this standard deviation."""
    parameters = randomize(ask, names, scale, draw)
    check_names(parameters, names)
    users, items = some_pairs(BATCH, "equations", draw)
    predictions, score = forward(ask, users, items)
    pairs = look_up(parameters, names, users, items, DIM)
    p, r = pairs.interactions(), pairs.ratings()
    if not close(predictions, p):
        mistakes = pairs.mistaken_interactions()
        raise Wrong(difference("predictions are not those", OUTPUTS["predictions"], predictions, p, mistakes))
    if np.isnan(r).any():
        width = mlp_input_width(parameters)
        if width == 3 * DIM:
            raise Wrong("the linear layers of mlp_layers do not lead from [u, q, u ∗ q] to one output")
        cause = ". Likely cause: the product u ∗ q is missing" if width == 2 * DIM else ""
        raise Wrong(
            f"mlp_layers, which starts with {width} inputs, cannot read [u, q, u ∗ q]: expected {3 * DIM}{cause}"
        )
    if not close(score, r):
        raise Wrong(difference("score is not that", OUTPUTS["score"], score, r, pairs.mistaken_ratings()))


def check_batches(ask: Ask, names: tuple[str, ...]) -> None:
    """Each pair's outputs do not depend on the others in its batch, on their order, or on there being others."""
    randomize(ask, names)
    users, items = some_pairs(BATCH, "batches")
    whole = forward(ask, users, items)
    for what, places in (
        ("in a batch of 1", np.array([0])),
        ("in a batch of 1", np.array([17])),
        ("in another order", random("order").permutation(BATCH)),
        ("in a batch that repeats pairs", np.concatenate([np.repeat(np.arange(3), 20), np.arange(3)])),
        ("in a batch of 100", np.arange(100)),
    ):
        where = f"{WITH[names]}, {what}: "
        part = forward(ask, users[places], items[places], where)
        for name, now, before in zip(OUTPUTS, part, whole, strict=True):
            if not close(now, before[places]):
                raise Wrong(
                    f"{where}{name} of the same pairs are other numbers than before: expected each to depend on its "
                    "own user and item only. Likely cause: an operation across the batch, or a random one (dropout)"
                )


def randomize(ask: Ask, names: tuple[str, ...], scale: float = 0.5, draw: Draw | None = None) -> dict[str, Array]:
    """Make a network and put random numbers into all its parameters, so that each of them counts.

    Returns:
        The parameters as they then are, by the names of ``worker.Submission.parameters``.
    """
    before = ask("network", names=names, seed=0).named_arrays()
    draw, values = draw or random, {}
    for name, now in before.items():
        is_layer = name.startswith("mlp") and name.endswith("weight")
        values[name] = (1.5 / np.sqrt(now.shape[1]) if is_layer else scale) * draw(name).standard_normal(now.shape)
    assign(ask, values)
    after = ask("parameters").named_arrays()
    for name in before:
        # Tables that are one keep what the last of them was given.
        if name not in after or not any(close(after[name], value) for value in values.values()):
            raise Wrong(f"{name.removeprefix('other.')} does not keep the numbers that are put into it")
    return after


def check_names(parameters: Mapping[str, Array], names: tuple[str, ...]) -> None:
    """The parameters of both equations are where they can be told from each other."""
    for name in (*names, "B"):
        if name not in parameters:
            raise Wrong(f"the network has no attribute {name}: expected an embedding of that name")
    if "mlp.0.weight" not in parameters:
        raise Wrong("the network has no linear layers in an attribute mlp_layers: expected those of init_mlp_layers")


def assign(ask: Ask, values: Mapping[str, Array]) -> None:
    ask("assign", values={name: value.astype(np.float32) for name, value in values.items()})


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
        (length, length): "every user's with every item's: the product has to be row by row, (u * q).sum(1)",
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
