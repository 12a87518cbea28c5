"""Gradients: which loss teaches which parameters, and whether by the gradient of what the network computes.

A submission's gradients come from autograd in its process. What they should be is measured here: a loss is asked for at
both ends of small steps.
"""

from collections.abc import Callable, Mapping

import numpy as np

from grading.checks import BATCH, NUM_ITEMS, NUM_USERS, Ask, Draw, fresh, random, some_pairs
from grading.compare import Array, Ids, Wrong
from grading.equations import WITH, assign, check_names, randomize
from grading.oracle import bpr_loss, mse_loss

DIRECTIONS, STEP = 4, 1e-4  # of the numerical gradients: small beside a ReLU's distance from 0, large beside rounding
FRESH_TRIES = 3


def check_gradients(
    ask: Ask, names: tuple[str, ...], bpr_teaches: tuple[str, ...], mse_teaches: tuple[str, ...]
) -> None:
    """Each loss teaches what it should, nothing else, and by the gradient of what the network computes."""
    check_gradients_of(ask, names, bpr_teaches, mse_teaches, random)
    for left in range(FRESH_TRIES - 1, -1, -1):
        try:
            check_gradients_of(ask, names, bpr_teaches, mse_teaches, fresh)
            return
        except Wrong:  # a step across the corner of a ReLU; a gradient that is wrong is so each time
            if not left:
                raise


def check_gradients_of(
    ask: Ask, names: tuple[str, ...], bpr_teaches: tuple[str, ...], mse_teaches: tuple[str, ...], draw: Draw
) -> None:
    """At parameters, for pairs and along directions that are drawn like this."""
    parameters = randomize(ask, names, draw=draw)
    check_names(parameters, names)
    users, items = some_pairs(BATCH, "gradients", draw)
    negatives = draw("negatives").integers(0, NUM_ITEMS, BATCH)
    ratings = draw("ratings").integers(1, 6, BATCH).astype(np.float64)
    answer = ask(
        "gradients", user_ids=users, item_ids=items, negative_ids=negatives, ratings=ratings.astype(np.float32)
    )

    def bpr() -> float:
        positive, negative = (ask("forward", user_ids=users, item_ids=ids) for ids in (items, negatives))
        return bpr_loss(positive.array("predictions"), negative.array("predictions"))

    def mse() -> float:
        return mse_loss(ask("forward", user_ids=users, item_ids=items).array("score"), ratings)

    for key, loss, title, taught in (("bpr", bpr, "the BPR loss", bpr_teaches), ("mse", mse, "the MSE", mse_teaches)):
        found = answer.named_arrays(key)
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
            told, measured = changes_along(
                ask, loss, parameters, own, users if part.startswith("U") else loss_items, draw
            )
            # A gradient that is cut off somewhere tells of other changes than come about.
            tolerance = 0.1 * np.sqrt((told**2).mean()) + 2e-7 * max(1.0, abs(loss()))
            if not (np.abs(measured - told) <= tolerance).all():
                worst = int(np.argmax(np.abs(measured - told)))
                raise Wrong(
                    f"{WITH[names]}, {part} does not learn from {title} by its gradient: along one direction the loss "
                    f"changes by {measured[worst]:.2g}, but the gradient says {told[worst]:.2g}. "
                    "Likely cause: a detach or no_grad on the way"
                )


def changes_along(
    ask: Ask,
    loss: Callable[[], float],
    parameters: Mapping[str, Array],
    gradients: Mapping[str, Array],
    ids: Ids,
    draw: Draw,
) -> tuple[Array, Array]:
    """How a loss changes along random directions in some of the parameters: as their gradients say, and measured.

    ids are those that were looked up in them, where they are a table.

    Returns:
        told, measured: (DIRECTIONS,) differences of the loss between both ends of a step.
    """
    told, measured = np.zeros(DIRECTIONS), np.zeros(DIRECTIONS)
    moves = {name: without_padding(gradient, ids) for name, gradient in gradients.items()}
    for direction in range(DIRECTIONS):
        steps = {
            name: STEP * draw(f"{name} {direction}").standard_normal(gradient.shape) * moves[name]
            for name, gradient in gradients.items()
        }
        for sign in (1, -1):
            assign(ask, {name: parameters[name] + sign * step for name, step in steps.items()})
            measured[direction] += sign * loss()
        told[direction] = 2 * sum(float((gradients[name] * step).sum()) for name, step in steps.items())
    assign(ask, {name: parameters[name] for name in gradients})
    return told, measured


def without_padding(gradient: Array, ids: Ids) -> Array:
    """1 for each row that learns: all but a single one that was looked up and has no gradient, a padding row."""
    moves = np.ones((len(gradient), *[1] * (gradient.ndim - 1)))
    if len(gradient) in (NUM_USERS, NUM_ITEMS):
        silent = [row for row in np.unique(ids) if not gradient[row].any()]
        if len(silent) == 1:
            moves[silent] = 0
    return moves
