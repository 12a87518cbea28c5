"""The hidden checks, 6 points: the MLP in general, equations 1 and 4, batches and gradients.

They compare with the results of the equations (``hidden_oracle.py``). Files of this folder whose names begin with
"hidden" are withheld from students.
"""

import numpy as np

from grading.checks import (
    BATCH,
    OUTPUTS,
    SEPARATE,
    SHARED,
    WITH,
    Array,
    Ask,
    Check,
    Wrong,
    about,
    check_mlp,
    check_network,
    close,
    forward,
    make_network,
    set_parameters,
    some_pairs,
)
from grading.hidden_oracle import Pairs, difference

GRADIENT_TOLERANCE = 1e-3  # relative, and of the largest number of an array; float32 is good to 1e-5 here
CORNER = 1e-3  # distance of the inputs of all ReLUs from 0, where rounding would decide about a gradient
MLPS = ([96, 64, 32], [24, 48], [60, 50, 40, 30, 20], [12])  # layer_sizes
LOSSES = {"bpr": "the BPR loss", "mse": "the MSE"}
TAUGHT = {  # the parameters that learn from each loss
    SHARED: {"bpr": ("U", "Q", "B"), "mse": ("U", "Q", "mlp")},
    SEPARATE: {"bpr": ("U_fact", "Q_fact", "B"), "mse": ("U_reg", "Q_reg", "mlp")},
}


def check_equations(ask: Ask, names: tuple[str, ...]) -> None:
    """Check predictions against equation 1 and score against equation 4, with random numbers in all parameters."""
    shapes = make_network(ask, names).shapes
    layers = check_network(shapes, names)
    for scale in (0.5, 2.0):  # a bounded output shows at large numbers
        parameters = set_parameters(ask, shapes, scale)
        for training in (True, False):
            users, items = some_pairs()
            compare_outputs(ask, Pairs(parameters, names, layers, users, items), training)


def compare_outputs(ask: Ask, pairs: Pairs, training: bool = True) -> None:
    """Check the outputs of forward for pairs against both equations, and name the mistake of wrong ones."""
    where = "" if training else "in eval mode: "
    predictions, score = forward(ask, pairs.users, pairs.items, where, training)
    p, r = pairs.interactions(), pairs.ratings()
    if not close(predictions, p):
        mistakes = pairs.mistaken_interactions()
        raise Wrong(difference(f"{where}predictions are not those", OUTPUTS["predictions"], predictions, p, mistakes))
    if not close(score, r):
        raise Wrong(difference(f"{where}score is not that", OUTPUTS["score"], score, r, pairs.mistaken_ratings()))


def check_batches(ask: Ask, names: tuple[str, ...]) -> None:
    """Check that each pair's outputs do not depend on the other pairs in its batch or on their order."""
    set_parameters(ask, make_network(ask, names).shapes)
    users, items = some_pairs()
    whole = forward(ask, users, items)
    for batch, places in (
        ("in a batch of 1", np.array([0])),
        ("in a batch of 1", np.array([17])),
        ("in another order", np.random.default_rng().permutation(BATCH)),
        ("in a batch that repeats pairs", np.concatenate([np.repeat(np.arange(3), 20), np.arange(3)])),
        ("in a batch of 100", np.arange(100)),
    ):
        where = f"{WITH[names]}, {batch}: "
        part = forward(ask, users[places], items[places], where)
        for name, now, before in zip(OUTPUTS, part, whole, strict=True):
            if not close(now, before[places]):
                raise Wrong(
                    f"{where}{name} of the same pairs differ from before: expected each to depend on its "
                    "own user and item only. Likely cause: an operation across the batch, or a random one (dropout)"
                )


def check_gradients(ask: Ask, names: tuple[str, ...]) -> None:
    """Check that each loss trains the right parameters, no others, and by the gradient of the equations."""
    shapes = make_network(ask, names).shapes
    layers = check_network(shapes, names)
    parameters = set_parameters(ask, shapes)
    users, items = some_pairs(2 * BATCH)
    smooth = Pairs(parameters, names, layers, users, items).distance_from_corners() > CORNER
    pairs = Pairs(parameters, names, layers, users[smooth][:BATCH], items[smooth][:BATCH])
    _, negatives = some_pairs(len(pairs.users))
    ratings = np.random.default_rng().integers(1, 6, len(pairs.users)).astype(np.float64)
    answer = ask(
        "gradients",
        user_ids=pairs.users,
        item_ids=pairs.items,
        negative_ids=negatives,
        ratings=ratings.astype(np.float32),
    )
    found = answer.arrays({f"{loss}.{name}": shape for loss in LOSSES for name, shape in shapes.items()})
    expected = {"bpr": pairs.bpr_gradients(negatives), "mse": pairs.mse_gradients(ratings)}
    for loss in LOSSES:
        for name in expected["bpr"] | expected["mse"]:
            check_role(names, loss, name, found[f"{loss}.{name}"])
    compare_outputs(ask, pairs)
    for loss, gradients in expected.items():
        for name, gradient in gradients.items():
            compare_gradient(f"{WITH[names]}, {name}", LOSSES[loss], found[f"{loss}.{name}"], gradient)


def check_role(names: tuple[str, ...], loss: str, name: str, gradient: Array) -> None:
    """Check that a parameter learns from a loss if and only if it should."""
    taught = name.partition(".")[0] in TAUGHT[names][loss]
    if not taught and gradient.any():
        raise Wrong(f"{WITH[names]}, {LOSSES[loss]} changes {name}: expected it to learn from the other loss only")
    if taught and not gradient.any():
        raise Wrong(
            f"{WITH[names]}, {name} learns nothing from {LOSSES[loss]}: its gradient is 0. "
            "Likely cause: forward does not use it there, or a detach or no_grad on the way"
        )


def compare_gradient(name: str, loss: str, found: Array, expected: Array) -> None:
    """Compare a parameter's gradient with that of the equations. A single row of a table may not learn (padding)."""
    if "mlp." not in name:
        silent = np.flatnonzero(expected.any(1) & ~found.any(1))
        if len(silent) == 1:
            expected[silent] = 0
    difference = np.abs(found - expected) - GRADIENT_TOLERANCE * np.abs(expected)
    place = np.unravel_index(np.argmax(difference), difference.shape)
    if not difference[place] <= GRADIENT_TOLERANCE * np.abs(expected).max():
        raise Wrong(
            f"{name} does not learn from {loss} by its gradient, which is {found[place]:.3g} at "
            f"{tuple(map(int, place))}: expected {expected[place]:.3g}. Likely cause: a detach or no_grad on the way"
        )


HIDDEN = (
    Check("1b-1-hidden", 1, "MLP in general: other and deeper layer_sizes", about(check_mlp, *MLPS)),
    Check("2-4-hidden", 1, "shared: equations 1 and 4", about(check_equations, SHARED)),
    Check("2-5-hidden", 1, "separate: equations 1 and 4, each with its own tables", about(check_equations, SEPARATE)),
    Check(
        "2-6-hidden",
        1,
        "a batch of 1, each output from its own pair, any order",
        about(check_batches, SHARED, SEPARATE),
    ),
    Check("2-7-hidden", 2, "gradients: which loss teaches what", about(check_gradients, SHARED, SEPARATE)),
)
