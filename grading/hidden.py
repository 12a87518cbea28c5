"""The hidden checks, 6 points: the MLP in general, equations 1 and 4, batches and gradients.

They compare with the results of the equations (``hidden_oracle.py``). Files of this folder whose names begin with
"hidden" are withheld from students.

A submission that replaces the methods of ``worker.py`` and sends arrays of its own making can still gain the points for
new tables and a new bias (1a), because any arrays of the right shape and spread do; for shapes (2-0, 2-1) and
independence (2-6), because any function of the IDs does; and for training (2-2, 2-3), if it reaches the bands without
the test ratings. For the MLP, the equations and the gradients it has to be a right network.

A submission's gradients come from autograd in its process. The grader measures them as well: it asks for a loss at both
ends of small steps.
"""

from collections.abc import Callable

import numpy as np

from grading.checks import (
    BATCH,
    DIM,
    NUM_ITEMS,
    NUM_USERS,
    OUTPUTS,
    SEPARATE,
    SHARED,
    Array,
    Ask,
    Check,
    Draw,
    Ids,
    Parameters,
    Wrong,
    about,
    check_mlp,
    close,
    forward,
    fresh,
    random,
    some_pairs,
)
from grading.hidden_oracle import difference, look_up, sigmoid

WITH = {SHARED: "with shared embeddings", SEPARATE: "with separate embeddings"}
DIRECTIONS, STEP = 4, 1e-4  # of the numerical gradients: small beside a ReLU's distance from 0, large beside rounding
FRESH_TRIES = 3
MLPS = ([96, 64, 32], [24, 48], [60, 50, 40, 30, 20], [12])  # layer_sizes
TAUGHT = {  # the parameters that learn from each loss
    SHARED: {"bpr": ("U", "Q", "B"), "mse": ("U", "Q", "mlp")},
    SEPARATE: {"bpr": ("U_fact", "Q_fact", "B"), "mse": ("U_reg", "Q_reg", "mlp")},
}


def check_equations(ask: Ask, names: tuple[str, ...]) -> None:
    """Check predictions against equation 1 and score against equation 4, with random numbers in all parameters."""
    for scale in (0.5, 2.0):  # a bounded output shows at large numbers
        check_equations_at(ask, names, scale, random)
    check_equations_at(ask, names, 0.5, fresh)


def check_equations_at(ask: Ask, names: tuple[str, ...], scale: float, draw: Draw) -> None:
    """Check both equations with tables and biases of this standard deviation."""
    parameters = randomize(ask, names, scale, draw)
    check_names(parameters, names)
    users, items = some_pairs("equations", draw)
    predictions, score = forward(ask, users, items)
    pairs = look_up(parameters, names, users, items, DIM)
    p, r = pairs.interactions(), pairs.ratings()
    if not close(predictions, p):
        mistakes = pairs.mistaken_interactions()
        raise Wrong(difference("predictions are not those", OUTPUTS["predictions"], predictions, p, mistakes))
    if np.isnan(r).any():
        width = parameters["mlp.0.weight"].shape[1]
        if width == 3 * DIM:
            raise Wrong("the linear layers of mlp_layers do not lead from [u, q, u ∗ q] to one output")
        cause = ". Likely cause: the product u ∗ q is missing" if width == 2 * DIM else ""
        raise Wrong(
            f"mlp_layers, which starts with {width} inputs, cannot read [u, q, u ∗ q]: expected {3 * DIM}{cause}"
        )
    if not close(score, r):
        raise Wrong(difference("score is not that", OUTPUTS["score"], score, r, pairs.mistaken_ratings()))


def check_batches(ask: Ask, names: tuple[str, ...]) -> None:
    """Check that each pair's outputs do not depend on the other pairs in its batch or on their order."""
    randomize(ask, names)
    users, items = some_pairs("batches")
    whole = forward(ask, users, items)
    for batch, places in (
        ("in a batch of 1", np.array([0])),
        ("in a batch of 1", np.array([17])),
        ("in another order", random("order").permutation(BATCH)),
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


def randomize(ask: Ask, names: tuple[str, ...], scale: float = 0.5, draw: Draw = random) -> dict[str, Array]:
    """Make a network, set all its parameters to random numbers, and return them."""
    before = ask("network", names=names, seed=0).named_arrays()
    values = {}
    for name, now in before.items():
        is_layer = name.startswith("mlp") and name.endswith("weight")
        values[name] = (1.5 / np.sqrt(now.shape[1]) if is_layer else scale) * draw(name).standard_normal(now.shape)
    assign(ask, values)
    after = ask("parameters").named_arrays()
    for name in before:
        # Tables that share memory have the numbers of the last one.
        if name not in after or not any(close(after[name], value) for value in values.values()):
            raise Wrong(f"{name.removeprefix('other.')} does not keep the numbers that it is set to")
    return after


def check_names(parameters: Parameters, names: tuple[str, ...]) -> None:
    """Check that the parameters of both equations have their names."""
    for name in (*names, "B"):
        if name not in parameters:
            raise Wrong(f"the network has no attribute {name}: expected an embedding of that name")
    if "mlp.0.weight" not in parameters:
        raise Wrong("the network has no linear layers in an attribute mlp_layers: expected those of init_mlp_layers")


def assign(ask: Ask, values: Parameters) -> None:
    ask("assign", values={name: value.astype(np.float32) for name, value in values.items()})


def check_gradients(ask: Ask, names: tuple[str, ...]) -> None:
    """Check that each loss trains the right parameters, no others, and by the gradient of the network's outputs."""
    check_gradients_at(ask, names, random)
    for left in range(FRESH_TRIES - 1, -1, -1):
        try:
            check_gradients_at(ask, names, fresh)
            return
        except Wrong:  # a step can cross the corner of a ReLU; a wrong gradient fails each time
            if not left:
                raise


def check_gradients_at(ask: Ask, names: tuple[str, ...], draw: Draw) -> None:
    """Check the gradients at random parameters and pairs, along random directions."""
    parameters = randomize(ask, names, draw=draw)
    check_names(parameters, names)
    users, items = some_pairs("gradients", draw)
    negatives = draw("negatives").integers(0, NUM_ITEMS, BATCH)
    ratings = draw("ratings").integers(1, 6, BATCH).astype(np.float64)
    answer = ask(
        "gradients", user_ids=users, item_ids=items, negative_ids=negatives, ratings=ratings.astype(np.float32)
    )

    def bpr() -> float:  # equation 3
        positive, negative = (ask("forward", user_ids=users, item_ids=ids) for ids in (items, negatives))
        return float((1 - sigmoid(positive.array("predictions") - negative.array("predictions"))).mean())

    def mse() -> float:  # equation 5
        return float(((ask("forward", user_ids=users, item_ids=items).array("score") - ratings) ** 2).mean())

    for key, loss, title in (("bpr", bpr, "the BPR loss"), ("mse", mse, "the MSE")):
        found, taught = answer.named_arrays(key), TAUGHT[names][key]
        loss_items = np.concatenate([items, negatives]) if key == "bpr" else items
        for name in parameters:
            if name not in found or found[name].shape != parameters[name].shape:
                raise Wrong(f"{name.removeprefix('other.')} has a gradient of another shape than its own")
        gradients = {each: found[each] for each in parameters if not each.startswith("other.")}
        for name, gradient in gradients.items():
            part = name.partition(".")[0]
            if part not in taught and gradient.any():
                raise Wrong(f"{WITH[names]}, {title} changes {name}: expected it to learn from the other loss only")
            if part in taught and part in names and not gradient.any():
                raise Wrong(
                    f"{WITH[names]}, {name} learns nothing from {title}: its gradient is 0. "
                    "Likely cause: a detach or no_grad, or another table in its place"
                )
        for part in taught:
            own = {name: gradient for name, gradient in gradients.items() if name.partition(".")[0] == part}
            ids = users if part.startswith("U") else loss_items
            predicted, measured = changes_along(ask, loss, parameters, own, ids, draw)
            # A gradient that is cut off somewhere predicts other changes than are measured.
            tolerance = 0.1 * np.sqrt((predicted**2).mean()) + 2e-7 * max(1.0, abs(loss()))
            if not (np.abs(measured - predicted) <= tolerance).all():
                worst = int(np.argmax(np.abs(measured - predicted)))
                raise Wrong(
                    f"{WITH[names]}, {part} does not learn from {title} by its gradient: along one direction the loss "
                    f"changes by {measured[worst]:.2g}, but the gradient says {predicted[worst]:.2g}. "
                    "Likely cause: a detach or no_grad on the way"
                )


def changes_along(
    ask: Ask, loss: Callable[[], float], parameters: Parameters, gradients: Parameters, ids: Ids, draw: Draw
) -> tuple[Array, Array]:
    """Compare the changes of a loss along random directions with those that its gradients predict.

    The parameters that have gradients here are moved. If they are a table, IDs are those that were looked up in it.

    Returns:
        predicted, measured: (DIRECTIONS,) differences of the loss between both ends of a step.
    """
    predicted, measured = np.zeros(DIRECTIONS), np.zeros(DIRECTIONS)
    moves = {name: without_padding(gradient, ids) for name, gradient in gradients.items()}
    for direction in range(DIRECTIONS):
        steps = {
            name: STEP * draw(f"{name} {direction}").standard_normal(gradient.shape) * moves[name]
            for name, gradient in gradients.items()
        }
        for sign in (1, -1):
            assign(ask, {name: parameters[name] + sign * step for name, step in steps.items()})
            measured[direction] += sign * loss()
        predicted[direction] = 2 * sum(float((gradients[name] * step).sum()) for name, step in steps.items())
    assign(ask, {name: parameters[name] for name in gradients})
    return predicted, measured


def without_padding(gradient: Array, ids: Ids) -> Array:
    """Return 1 for each row that learns: all but a single row that was looked up without a gradient (padding)."""
    moves = np.ones((len(gradient), *[1] * (gradient.ndim - 1)))
    if len(gradient) in (NUM_USERS, NUM_ITEMS):
        silent = [row for row in np.unique(ids) if not gradient[row].any()]
        if len(silent) == 1:
            moves[silent] = 0
    return moves


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
