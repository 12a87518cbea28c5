"""The homework's rubric: 14 points in 13 checks, 8 visible ones (8 points) and 5 hidden ones (6 points).

Each check asks a submission's process for plain arrays and compares them with the expected ones (``checks.py``). A
submission gets the same points each time. The hidden checks are in ``hidden.py``. Where that file is missing, as in a
student's folder, the rubric has the visible checks only.
"""

from collections.abc import Callable
from importlib.util import find_spec

from grading.checks import (
    LAYER_SIZES,
    NUM_ITEMS,
    NUM_USERS,
    SEPARATE,
    SHARED,
    Ask,
    Check,
    Split,
    Wrong,
    about,
    check_mlp,
    check_shapes,
    check_tables,
    expect_shape,
)


def item_bias(ask: Ask, _: Split | None) -> None:
    answer = ask("bias")
    shape = (NUM_ITEMS, 1)
    expect_shape(
        "the item bias", answer.shape("table"), shape, {(NUM_USERS, 1): "one bias for each user, not each item"}
    )
    if answer.arrays({"table": shape})["table"].any():
        raise Wrong("the item bias starts with numbers other than 0: expected zeros. Likely cause: not a ZeroEmbedding")


def training(names: tuple[str, ...], mrr: float) -> Callable[[Ask, Split | None], None]:
    """Make the ``run`` of a check that trains."""

    def run(ask: Ask, split: Split | None) -> None:
        from grading import trained_metrics  # here, because importing torch takes a second, and other checks need none

        trained_metrics.check_training(ask, split, names, mrr)

    return run


VISIBLE = (
    Check("1a-0-basic", 1, "shared embeddings: shapes, distinct ScaledEmbeddings", about(check_tables, SHARED)),
    Check("1a-1-basic", 1, "separate embeddings: U_reg, Q_reg, U_fact, Q_fact", about(check_tables, SEPARATE)),
    Check("1a-2-basic", 1, "item bias: shape, zeros", item_bias),
    Check("1b-0-basic", 1, "MLP for layer_sizes [96, 64]: Linear, ReLU, Linear", about(check_mlp, LAYER_SIZES)),
    Check("2-0-basic", 1, "shared forward: shapes", about(check_shapes, SHARED)),
    Check("2-1-basic", 1, "separate forward: shapes", about(check_shapes, SEPARATE)),
    Check(
        "2-2-basic",
        1,
        "shared, 5 epochs: test MRR 0.06 ± 0.02, MSE 0.90 ± 0.05",
        training(SHARED, mrr=0.06),
        90.0,
        True,
    ),
    Check(
        "2-3-basic",
        1,
        "separate, 5 epochs: test MRR 0.08 ± 0.02, MSE 0.90 ± 0.05",
        training(SEPARATE, mrr=0.08),
        90.0,
        True,
    ),
)
HIDDEN: tuple[Check, ...] = ()
if find_spec("grading.hidden") is not None:
    from grading.hidden import HIDDEN
RUBRIC = tuple(sorted((*VISIBLE, *HIDDEN), key=lambda check: check.id))
