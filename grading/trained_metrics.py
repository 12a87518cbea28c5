"""The metrics of a submission's trained network: checks 2-2 and 2-3, the only ones for which the grader loads torch."""

from dataclasses import dataclass

import numpy as np
import torch

from grading.checks import BATCH, OUTPUTS, Ask, Split, Wrong, check_finite, check_vector, expect_shape
from metrics import mrr_score, mse_score

EPOCHS = 5
MRR_WIDTH = 0.02
MSE_CENTER, MSE_WIDTH = 0.90, 0.05


def check_training(ask: Ask, split: Split | None, names: tuple[str, ...], mrr_center: float) -> None:
    """Train the network, and check that its metrics on the test set are within the bands, center ± width."""
    assert split is not None
    mrr, mse = train_and_score(ask, split, names)
    causes = []
    if not abs(mrr - mrr_center) <= MRR_WIDTH:
        chance = "; random predictions reach as much" if mrr < 0.01 else ""
        causes.append(f"Likely cause: the MRR comes from the predictions, equation 1, and how they learn{chance}")
    if not abs(mse - MSE_CENTER) <= MSE_WIDTH:
        chance = "; one number for all ratings would do as well" if mse > 1.15 else ""
        causes.append(f"Likely cause: the MSE comes from the score, equation 4, and how it learns{chance}")
    if causes:
        got = f"after {EPOCHS} epochs the test MRR is {mrr:.4f} and the test MSE {mse:.4f}"
        wanted = f"expected MRR {mrr_center} ± {MRR_WIDTH} and MSE {MSE_CENTER:.2f} ± {MSE_WIDTH}"
        raise Wrong("\n".join([f"{got}: {wanted}", *causes]))


def train_and_score(ask: Ask, split: Split, names: tuple[str, ...], seed: int = 0) -> tuple[float, float]:
    """Compute the test MRR and MSE of a network after 5 epochs with equal loss weights.

    The submission's process gets the training set only. The initial parameters, the shuffles and the negative items
    come from the seed.

    Raises:
        Wrong: the outputs have another shape, or are not finite.
    """
    torch.set_num_threads(1)  # the other cores are for other submissions
    train, n = split.train, len(split.train)
    ask("network", names=names, seed=seed)
    draw = torch.Generator().manual_seed(seed)
    order = torch.stack([torch.randperm(n, generator=draw) for _ in range(EPOCHS)])
    trained = ask(
        "train",
        user_ids=train.user_ids[order].numpy().astype(np.int32),
        item_ids=train.item_ids[order].numpy().astype(np.int32),
        negative_ids=torch.randint(train.num_items, order.shape, generator=draw).numpy().astype(np.int32),
        ratings=train.ratings[order].numpy(),
        batch_size=BATCH,
    )
    if "expected" in trained:
        (length,) = trained.integers("expected")
        for name in OUTPUTS:
            check_vector(name, tuple(trained.integers(name)), length)
    everything = ask("all_pairs", num_users=train.num_users, num_items=train.num_items)
    predictions, score = (everything.array(name) for name in OUTPUTS)
    for name, array in zip(OUTPUTS, (predictions, score), strict=True):
        expect_shape(name, array, (train.num_users, train.num_items), {})
        check_finite(f"after {EPOCHS} epochs: {name}", array)
    scored = AllPairs(torch.tensor(predictions, dtype=torch.float32), torch.tensor(score, dtype=torch.float32))
    return mrr_score(scored, split.test, train), mse_score(scored, split.test)


@dataclass(frozen=True)
class AllPairs:
    """A submission's outputs for every user and item, as a recommender for ``metrics``."""

    predictions: torch.Tensor
    score: torch.Tensor

    def predict_all_items(self, user_ids: torch.Tensor) -> torch.Tensor:
        return self.predictions[user_ids]

    def predict_ratings(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        return self.score[user_ids, item_ids]
