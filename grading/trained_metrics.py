"""The metrics of a submission's trained network: checks 2-2 and 2-3, the only ones for which the grader loads torch.

The test metrics come from the outputs of ``forward``, and once more from the trained parameters by equations 1 and 4.
Both must be within the bands. A student's folder lacks the equations (``hidden_metrics.py``), so only the outputs of
``forward`` count there.
"""

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch

from grading.checks import (
    BATCH,
    OUTPUTS,
    Array,
    Ask,
    Ids,
    Split,
    Wrong,
    check_finite,
    check_network,
    check_vector,
    make_network,
)
from metrics import Scorer, mrr_score, mse_score

if TYPE_CHECKING:
    import data

EPOCHS = 5
MRR_WIDTH = 0.02
MSE_CENTER, MSE_WIDTH = 0.90, 0.05
HAS_EQUATIONS = find_spec("grading.hidden_metrics") is not None
FORWARD, EQUATIONS = "", " by equations 1 and 4 from the trained parameters"  # the sources of metrics


def check_training(ask: Ask, split: Split | None, names: tuple[str, ...], mrr_center: float) -> None:
    """Train the network, and check that its metrics on the test set are within the bands, center ± width."""
    assert split is not None
    for source, (mrr, mse) in train_and_score(ask, split, names).items():
        causes = []
        if not abs(mrr - mrr_center) <= MRR_WIDTH:
            chance = "; random predictions reach as much" if mrr < 0.01 else ""
            causes.append(f"Likely cause: the MRR comes from the predictions, equation 1, and how they learn{chance}")
        if not abs(mse - MSE_CENTER) <= MSE_WIDTH:
            chance = "; one number for all ratings would do as well" if mse > 1.15 else ""
            causes.append(f"Likely cause: the MSE comes from the score, equation 4, and how it learns{chance}")
        if causes and source == EQUATIONS:
            causes = ["Likely cause: forward, whose own metrics are within the bands, computes other equations"]
        if causes:
            got = f"after {EPOCHS} epochs the test MRR is {mrr:.4f} and the test MSE {mse:.4f}{source}"
            wanted = f"expected MRR {mrr_center} ± {MRR_WIDTH} and MSE {MSE_CENTER:.2f} ± {MSE_WIDTH}"
            raise Wrong("\n".join([f"{got}: {wanted}", *causes]))


def train_and_score(ask: Ask, split: Split, names: tuple[str, ...], seed: int = 0) -> dict[str, tuple[float, float]]:
    """Compute the test MRR and MSE of a network after 5 epochs with equal loss weights, by their source.

    The submission's process gets the training set only. The initial parameters, the shuffles and the negative items
    come from the seed. Users and items have other IDs each time, and their rows of the initial tables move with them:
    the metrics stay the same, but a submission cannot know the IDs before.

    Raises:
        Wrong: parameters or outputs have another shape, or are not finite.
    """
    torch.set_num_threads(1)  # the other cores are for other submissions
    answer = make_network(ask, names, seed)
    layers = check_network(answer.shapes, names)
    initial = answer.arrays(answer.shapes)
    num_users, num_items = split.train.num_users, split.train.num_items
    new_ids = {"U": other_ids(num_users), "Q": other_ids(num_items)}
    tables = {name: new_ids["U" if name.startswith("U") else "Q"] for name in (*names, "B")}
    ask("assign", **{name: moved(initial[name], ids).astype(np.float32) for name, ids in tables.items()})
    train(ask, split.train, new_ids, seed)
    trained = ask("parameters").arrays(answer.shapes)
    everything = ask("all_pairs", num_users=num_users, num_items=num_items)
    outputs = everything.arrays(dict.fromkeys(OUTPUTS, (num_users, num_items)))
    for name, array in (outputs | trained).items():
        check_finite(f"after {EPOCHS} epochs: {name}", array)
    pairs = np.ix_(new_ids["U"], new_ids["Q"])
    predictions, score = (torch.tensor(outputs[name][pairs], dtype=torch.float32) for name in OUTPUTS)
    scorers: dict[str, Scorer] = {FORWARD: AllPairs(predictions, score)}
    if HAS_EQUATIONS:
        from grading.hidden_metrics import ByEquations

        tables_moved_back = {name: trained[name][ids] for name, ids in tables.items()}
        scorers[EQUATIONS] = ByEquations(trained | tables_moved_back, names, layers)
    return {
        source: (mrr_score(scorer, split.test, split.train), mse_score(scorer, split.test))
        for source, scorer in scorers.items()
    }


def other_ids(count: int) -> Ids:
    """Draw a new ID for each ID but 0, whose row is padding in some networks."""
    return np.concatenate([[0], 1 + np.random.default_rng().permutation(count - 1)])


def moved(table: Array, new_ids: Ids) -> Array:
    """Move the row of each ID to that of its new ID."""
    result = table.copy()
    result[new_ids] = table[: len(new_ids)]
    return result


def train(ask: Ask, ratings: "data.Interactions", new_ids: dict[str, Ids], seed: int) -> None:
    """Have the network trained on the ratings, with new IDs of users and items."""
    n = len(ratings)
    draw = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(n, generator=draw) for _ in range(EPOCHS)])
    negatives = torch.randint(ratings.num_items, order.shape, generator=draw)
    trained = ask(
        "train",
        user_ids=new_ids["U"][ratings.user_ids[order]].astype(np.int32),
        item_ids=new_ids["Q"][ratings.item_ids[order]].astype(np.int32),
        negative_ids=new_ids["Q"][negatives].astype(np.int32),
        ratings=ratings.ratings[order].numpy(),
        batch_size=BATCH,
    )
    if "expected" in trained:
        (length,) = trained.integers("expected", 1)
        for name in OUTPUTS:
            check_vector(name, tuple(trained.integers(name)), length)


@dataclass(frozen=True)
class AllPairs:
    """A submission's outputs for every user and item, as a recommender for ``metrics``."""

    predictions: torch.Tensor
    score: torch.Tensor

    def predict_all_items(self, user_ids: torch.Tensor) -> torch.Tensor:
        return self.predictions[user_ids]

    def predict_ratings(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        return self.score[user_ids, item_ids]
