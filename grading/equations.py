"""The checks of equations 1 and 4 with random numbers in all parameters, and of batches.

They are hidden from students: ``oracle.py`` computes the equations and usual mistakes.
"""

from collections.abc import Mapping

import numpy as np

from grading.checks import BATCH, DIM, OUTPUTS, SEPARATE, SHARED, Ask, Draw, forward, fresh, random, some_pairs
from grading.compare import Array, Wrong, close
from grading.oracle import difference, look_up, mlp_input_width

WITH = {SHARED: "with shared embeddings", SEPARATE: "with separate embeddings"}


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
        # Tables that are the same keep the numbers of the last one.
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
