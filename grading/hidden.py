"""The hidden lines of the rubric: 6 points that students are not shown.

They ask for the MLP in general, equations 1 and 4, batches and gradients (``equations.py``, ``gradients.py``), and
compare with the results of the equations (``oracle.py``). A student's folder has none of these four files.

Code that answers in the place of ``worker.py``, with arrays of its own making, can still gain the points for
tables and bias as they come (1a), for which any arrays of the right shape and spread do; for shapes (2-0, 2-1) and
independence (2-6), for which any function of the ids does; and for training (2-2, 2-3), if its figures are in the
bands, without the test ratings. For the MLP, the equations and the gradients it has to be a right network.
"""

from grading.checks import SEPARATE, SHARED, Ask, Check, Split, check_mlp
from grading.equations import check_batches, check_equations
from grading.gradients import check_gradients


def mlp_in_general(ask: Ask, _: Split | None) -> None:
    for layer_sizes in ([96, 64, 32], [24, 48], [60, 50, 40, 30, 20], [12]):
        check_mlp(ask, layer_sizes)


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


HIDDEN = (
    Check("1b-1-hidden", 1, "MLP in general: other and deeper layer_sizes", mlp_in_general),
    Check("2-4-hidden", 1, "shared: equations 1 and 4", shared_equations),
    Check("2-5-hidden", 1, "separate: equations 1 and 4, each with its own tables", separate_equations),
    Check("2-6-hidden", 1, "a batch of 1, each output from its own pair, any order", batches),
    Check("2-7-hidden", 2, "gradients: which loss teaches what", gradients),
)
