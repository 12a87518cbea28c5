"""The homework's rubric: 14 points in 13 checks, of which 8 are shown to students and 5 (6 points) are hidden.

Each check asks a submission's process for plain arrays and compares them with what the homework's equations give
(``checks.py``, ``gradients.py``, ``oracle.py``). Everything is drawn from fixed seeds: a submission gets the same
points each time.
"""

from collections.abc import Callable
from dataclasses import dataclass

from grading.checks import (
    LAYER_SIZES,
    NUM_ITEMS,
    NUM_USERS,
    SEPARATE,
    SHARED,
    Ask,
    Band,
    Split,
    check_batches,
    check_equations,
    check_mlp,
    check_shapes,
    check_tables,
    expect_shape,
)
from grading.gradients import check_gradients
from grading.oracle import Wrong


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


def shared_embeddings(ask: Ask, _: Split | None) -> None:
    check_tables(ask, SHARED)


def separate_embeddings(ask: Ask, _: Split | None) -> None:
    check_tables(ask, SEPARATE)


def item_bias(ask: Ask, _: Split | None) -> None:
    bias = ask("bias").array("weights")
    expect_shape("the item bias", bias, (NUM_ITEMS, 1), {(NUM_USERS, 1): "one bias for each user, not each item"})
    if not (bias == 0).all():
        raise Wrong("the item bias starts with numbers other than 0: expected zeros. Likely cause: not a ZeroEmbedding")


def mlp_of_the_homework(ask: Ask, _: Split | None) -> None:
    check_mlp(ask, LAYER_SIZES)


def mlp_in_general(ask: Ask, _: Split | None) -> None:
    for layer_sizes in ([96, 64, 32], [24, 48], [60, 50, 40, 30, 20], [12]):
        check_mlp(ask, layer_sizes)


def shared_shapes(ask: Ask, _: Split | None) -> None:
    check_shapes(ask, SHARED)


def separate_shapes(ask: Ask, _: Split | None) -> None:
    check_shapes(ask, SEPARATE)


def check_training(ask: Ask, split: Split | None, names: tuple[str, ...], mrr_band: Band, mse_band: Band) -> None:
    from grading import training  # here, because it takes a second, and the other checks do without it

    training.check_training(ask, split, names, mrr_band, mse_band)


def shared_training(ask: Ask, split: Split | None) -> None:
    check_training(ask, split, SHARED, mrr_band=Band(0.06, 0.02), mse_band=Band(0.90, 0.05))


def separate_training(ask: Ask, split: Split | None) -> None:
    check_training(ask, split, SEPARATE, mrr_band=Band(0.08, 0.02), mse_band=Band(0.90, 0.05))


def shared_equations(ask: Ask, _: Split | None) -> None:
    check_equations(ask, SHARED)


def separate_equations(ask: Ask, _: Split | None) -> None:
    check_equations(ask, SEPARATE)


def batches(ask: Ask, _: Split | None) -> None:
    check_batches(ask, SHARED)
    check_batches(ask, SEPARATE)


def gradients(ask: Ask, _: Split | None) -> None:
    check_gradients(ask, SHARED, bpr_teaches=("U", "Q", "B"), mse_teaches=("U", "Q", "mlp"))
    check_gradients(ask, SEPARATE, bpr_teaches=("U_fact", "Q_fact", "B"), mse_teaches=("U_reg", "Q_reg", "mlp"))


RUBRIC = (
    Check("1a-0-basic", 1, "shared embeddings: shapes, distinct ScaledEmbeddings", shared_embeddings),
    Check("1a-1-basic", 1, "separate embeddings: U_reg, Q_reg, U_fact, Q_fact", separate_embeddings),
    Check("1a-2-basic", 1, "item bias: shape, zeros", item_bias),
    Check("1b-0-basic", 1, "MLP for layer_sizes [96, 64]: Linear, ReLU, Linear", mlp_of_the_homework),
    Check("1b-1-hidden", 1, "MLP in general: other and deeper layer_sizes", mlp_in_general),
    Check("2-0-basic", 1, "shared forward: shapes", shared_shapes),
    Check("2-1-basic", 1, "separate forward: shapes", separate_shapes),
    Check("2-2-basic", 1, "shared, 5 epochs: test MRR 0.06 ± 0.02, MSE 0.90 ± 0.05", shared_training, 90.0, True),
    Check("2-3-basic", 1, "separate, 5 epochs: test MRR 0.08 ± 0.02, MSE 0.90 ± 0.05", separate_training, 90.0, True),
    Check("2-4-hidden", 1, "shared: equations 1 and 4", shared_equations),
    Check("2-5-hidden", 1, "separate: equations 1 and 4, each with its own tables", separate_equations),
    Check("2-6-hidden", 1, "a batch of 1, each output from its own pair, any order", batches),
    Check("2-7-hidden", 2, "gradients: which loss teaches what", gradients),
)
