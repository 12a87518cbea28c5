"""The settings of training: each with its default, its range and its help, and the presets of their values."""

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cli.options import check_option, check_options, is_whole, option

HOMEWORK, DATA, EVALUATION, BEYOND = "the homework", "data and split", "evaluation", "beyond the homework"
STEPS_PER_EPOCH, LEAST_BATCH = 93, 32  # of batches of the size auto
LARGEST_WEIGHT = 1e9  # Adam squares gradients, and float32 ends at 3e38
PRESETS = Path(__file__).parent / "presets"


class Seeds(NamedTuple):
    """Seeds below 2⁶⁴ of the uses of random numbers, independent: none changes when another use draws more."""

    split: int
    network: int
    training: int
    validation: int


@dataclass(frozen=True)
class Settings:
    """The settings that the metrics of a run depend on, with the homework's values as defaults.

    A run is resumed only with the same settings, except for those that ``noted`` leaves out. The ones from
    ``rating_unit`` on are ingredients of training beyond the homework, each independent of the others. Some need more
    words than their help:

    Attributes:
        split: see ``splits.py``.
        rating_unit: with "spread" the network predicts (r − μ) / s, of the mean and the standard deviation of the
            training ratings, and λ_R weighs alike for ratings of any scale; see ``scale.py``.
        rating_baseline: r̂ is μ + a_i + c_j + s · (the MLP's output); see ``baseline.py``.
        rating_factors: with a baseline r̂ is μ + a_i + c_j + f_i·g_j + s · (the MLP's output); see ``factors.py``.
        negatives: number of items drawn uniformly as negatives. One is drawn for each interaction. More are drawn for
            a whole batch, all different, and are the negatives of each of its interactions. With more than 10,000 items
            a batch has a part for every 10,000, and each part has negatives of its own (see ``tuned.py``).
        ranking_loss: L_F. "bounded" is equation 3, and "logistic" is −log σ(p⁺ − p⁻) (Rendle et al., BPR, UAI 2009);
            both are means over the negatives. "softmax" is −log(exp p⁺ / (exp p⁺ + Σ exp p⁻)) over all negatives
            (sampled softmax: Jean et al., ACL 2015; Wu et al., ACM TOIS 2024). An item is no negative of itself there.
        watched_items: a user's embedding is u_i + n_i^(−1/2) · the sum of q_k over the n_i items that the user rated
            (Koren, SVD++, KDD 2008), and an item's is q_j + m_j^(−1/2) · the sum of u_h over the m_j users who rated it
            (He et al., LightGCN, SIGIR 2020); see ``rated_items.py``.
        pseudo_ratings: m. In each epoch the MLP also learns to return 0 for about m pairs of each user and a negative,
            at most one for each rating. 0 is the baseline's rating with ``rating_baseline``, and without it the mean
            in units of the spread. On observed pairs alone the MLP would learn that a low u·q means a low rating, and
            u·q is lower for pairs that were not trained on.
        weight_decay: w in the further term w · (δ / (δ + 1 %))^(1/2) / (2 · n) · ‖θ‖² of the loss, of all parameters θ,
            the number n of training interactions, and their density δ = n / (users · items). L_F and L_R are means over
            interactions, so w is the precision of a Gaussian prior in units of one of them where the ratings are
            dense. The rarer an interaction is, the more it tells, and the weaker the prior has to be: below a density
            of about 1 % the precision falls with its square root (measured: docs/tuned.md).
        embedding_dropout: probability with which an element of u_i is 0 in equation 1, the others being scaled by
            1 / (1 − probability) (Srivastava et al., JMLR 2014); ``dropout`` does the same in equation 4.

    Raises:
        ValueError: one of them is out of range, or two do not go together.
    """

    factorization_weight: float = option(
        0.99, "λ_F, weight of the BPR loss", group=HOMEWORK, metavar="λ_F", least=0, most=LARGEST_WEIGHT
    )
    regression_weight: float = option(
        0.01, "λ_R, weight of the mean squared error", group=HOMEWORK, metavar="λ_R", least=0, most=LARGEST_WEIGHT
    )
    shared_embeddings: bool = option(True, "let both tasks train the same embeddings", group=HOMEWORK)
    epochs: int = option(200, "passes over the training set", group=HOMEWORK, metavar="N", least=1)
    embedding_dim: int = option(32, "length d of an embedding", group=HOMEWORK, metavar="D", least=1)
    layer_sizes: tuple[int, ...] = option(
        (), "input width of each linear layer of the MLP", group=HOMEWORK, metavar="WIDTH", parse=int, several=True,
        default_help="3·d and 64",
    )  # fmt: skip
    batch_size: int | str = option(
        256, "ratings in a step: a number, or auto: a 93rd of the training set, at least 32", group=HOMEWORK,
        metavar="N", words=("auto",), least=1,
    )  # fmt: skip
    learning_rate: float = option(1e-3, "learning rate of Adam", group=HOMEWORK, metavar="RATE", above=0)
    seed: int = option(
        0, "seed of the split, the initial parameters, the order and the negatives", group=HOMEWORK, metavar="N",
        least=0,
    )  # fmt: skip
    split: str = option(
        "auto", "test set: random; user, random ones of each user; last, each user's latest; time, the latest of all; "
        "auto: that of the data, else random",
        group=DATA, metavar="RULE", choices=("auto", "random", "user", "last", "time"),
    )  # fmt: skip
    test_fraction: float = option(
        0.05, "share of the ratings in the test set", group=DATA, metavar="SHARE", above=0, below=1
    )
    folds: int = option(
        0, "K: split at random into K folds, of which the seed chooses the test set; 0: by test_fraction", group=DATA,
        metavar="K", least=0,
    )  # fmt: skip
    validation_fraction: float = option(
        0.0, "share of the other ratings in a validation set, which chooses the best epoch; 0: no such set",
        group=DATA, metavar="SHARE", least=0, below=1,
    )  # fmt: skip
    eval_users: int | str = option(
        "auto", "users whose items are ranked: a number, all, or auto: as many as cost little beside the training",
        group=EVALUATION, metavar="N", words=("all", "auto"), least=1,
    )  # fmt: skip
    eval_every: int = option(1, "evaluate every N epochs, and after the last", group=EVALUATION, metavar="N", least=1)
    patience: int = option(
        0, "stop after N epochs without a better one on the validation set; 0: never", group=EVALUATION, metavar="N",
        least=0,
    )  # fmt: skip
    topk: tuple[int, ...] = option(
        (10,), "numbers of items shown to a user, for the ranking metrics of the end: one or several", group=EVALUATION,
        metavar="K", parse=int, several=True, default_help="10",
    )  # fmt: skip
    rating_unit: str = option(
        "auto", "unit of the ratings in L_R: star, their own; spread, their standard deviation; auto: spread where they"
        " are not within 0.5 to 5",
        group=BEYOND, metavar="UNIT", choices=("auto", "star", "spread"),
    )  # fmt: skip
    rating_baseline: bool = option(False, "predict ratings above a baseline of user and item biases", group=BEYOND)
    rating_factors: int = option(
        0,
        "dimensions of factors in rating_baseline, at most: where the ratings do not show them they fall to 0",
        group=BEYOND,
        metavar="N",
        least=0,
    )
    optimizer: str = option(
        "auto", "adam; lazy_adam: update only the embeddings that a batch looks up; auto: lazy_adam for the "
        "homework's step with large tables",
        group=BEYOND, metavar="NAME", choices=("auto", "adam", "lazy_adam"),
    )  # fmt: skip
    negatives: int = option(
        1,
        "items drawn as negatives: one for each rating, more for a whole batch or a part of it",
        group=BEYOND,
        metavar="N",
        least=1,
    )
    unseen_negatives: bool = option(False, "leave out negatives that the user rated", group=BEYOND)
    ranking_loss: str = option(
        "bounded", "of p⁺ and the negatives' p⁻: bounded, 1 − σ(p⁺ − p⁻); logistic, −log σ(p⁺ − p⁻); softmax, −log of "
        "the share of p⁺",
        group=BEYOND, metavar="NAME", choices=("bounded", "logistic", "softmax"),
    )  # fmt: skip
    user_balance: float = option(
        0.0, "β: a rating of a user with n ratings weighs n^-β in the ranking loss", group=BEYOND, metavar="β",
        least=0, most=1,
    )  # fmt: skip
    watched_items: bool = option(
        False, "add the embeddings of the items that a user rated to u, and those of an item's users to q", group=BEYOND
    )
    pseudo_ratings: int = option(
        0, "m: pairs of each user and a negative in an epoch, for which the MLP learns to return 0",
        group=BEYOND, metavar="M", least=0,
    )  # fmt: skip
    weight_decay: float = option(
        0.0, "L2 penalty of all parameters, relative to the number and the density of the training ratings",
        group=BEYOND, metavar="W", least=0,
    )  # fmt: skip
    lr_schedule: str = option(
        "constant", "constant; linear: the learning rate falls to 0", group=BEYOND, metavar="NAME",
        choices=("constant", "linear"),
    )  # fmt: skip
    embedding_dropout: float = option(
        0.0, "dropout of u in the ranking task", group=BEYOND, metavar="SHARE", least=0, below=1
    )
    dropout: float = option(0.0, "dropout after each ReLU of the MLP", group=BEYOND, metavar="SHARE", least=0, below=1)

    def __post_init__(self) -> None:
        check_options(self)
        if not isinstance(self.layer_sizes, list | tuple):
            raise ValueError(f"layer_sizes is {self.layer_sizes}: expected a list of widths")
        sizes = tuple(self.layer_sizes) or (3 * self.embedding_dim, 64)
        object.__setattr__(self, "layer_sizes", sizes)
        if not all(is_whole(width) and width >= 1 for width in sizes):
            raise ValueError(f"layer_sizes is {' '.join(map(str, sizes))}: expected widths of at least 1")
        if self.factorization_weight == self.regression_weight == 0:
            raise ValueError("factorization_weight and regression_weight are both 0: there is nothing to learn from")
        topk = tuple(self.topk) if isinstance(self.topk, list | tuple) else (self.topk,)
        object.__setattr__(self, "topk", tuple(dict.fromkeys(topk)))
        if not topk or not all(is_whole(k) and k >= 1 for k in topk):
            raise ValueError(f"topk is {' '.join(map(str, topk)) or 'empty'}: expected whole numbers of at least 1")
        if self.folds == 1:
            raise ValueError("folds is 1: expected at least 2, or 0 for none")
        if self.folds > 0 and self.split not in ("auto", "random"):
            raise ValueError(f"folds are random, and split is {self.split}: give one of them")
        if 0 < self.patience < self.eval_every:
            raise ValueError(f"patience is {self.patience}: expected at least eval_every, which is {self.eval_every}")
        if self.pseudo_ratings and not self.rating_baseline and self.rating_unit != "spread":
            raise ValueError(
                "pseudo_ratings are those of the biases or the mean, and the network would learn 0 stars: give "
                "rating_baseline, or rating_unit spread"
            )
        if self.negatives == 1 and (self.unseen_negatives or self.ranking_loss == "softmax"):
            raise ValueError(
                "unseen_negatives and ranking_loss softmax are for several negatives, and negatives is 1: expected "
                "more negatives, or ranking_loss bounded or logistic without unseen_negatives"
            )

    @property
    def homework_step(self) -> bool:
        """Return whether a step is the homework's."""
        changed = self.negatives > 1, self.user_balance, self.watched_items, self.pseudo_ratings, self.weight_decay
        usual = self.lr_schedule == "constant" and self.ranking_loss == "bounded"
        return usual and not any((*changed, self.embedding_dropout, self.dropout))

    @property
    def needs_epochs(self) -> bool:
        """Return whether an epoch depends on the number of epochs."""
        return self.lr_schedule != "constant"

    def batch_size_for(self, interactions: int) -> int:
        """Return the number of interactions in a batch of a training set with this many."""
        wanted = self.batch_size
        size = max(LEAST_BATCH, round(interactions / STEPS_PER_EPOCH)) if isinstance(wanted, str) else wanted
        return min(size, interactions)

    @property
    def seeds(self) -> Seeds:
        """Return the seeds that are made of ``seed``."""
        return Seeds(*np.random.SeedSequence(self.seed).generate_state(4, np.uint64).tolist())

    def noted(self) -> dict[str, Any]:
        """Return the settings that a resumed run has to share, by name.

        Patience and topk may differ, and the number of epochs as well, unless an epoch depends on it.
        """
        shared = {name: value for name, value in asdict(self).items() if name not in ("patience", "topk", "epochs")}
        return shared | {"epochs": self.epochs} if self.needs_epochs else shared


def preset(name: str | Path) -> dict[str, Any]:
    """Read the settings of a preset: "homework", the defaults; one in ``training/presets/``; or a JSON file like those.

    Raises:
        ValueError, OSError: there is no such preset, it cannot be read, or it is no JSON object of settings.
    """
    if name == "homework":
        return {}
    own = {each.stem: each for each in PRESETS.glob("*.json")}
    path = own.get(str(name), Path(name))
    if not path.exists() or path.is_dir():
        raise ValueError(
            f"preset {name} is not there: expected homework, {', '.join(sorted(own))}, or a JSON file of settings"
        )
    try:
        values = json.loads(path.read_text("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"preset {path} is not JSON: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f'preset {path} is not a JSON object: expected settings by name, like {{"epochs": 50}}')
    known = {each.name: each for each in fields(Settings)}
    for key, value in values.items():
        if key not in known:
            raise ValueError(f"preset {path} sets {key}, which is no setting: expected names such as epochs or dropout")
        try:
            check_option(known[key], value)
        except ValueError as error:
            raise ValueError(f"preset {path}: {error}") from None
    return values


def folder_name(shared: bool, factorization_weight: float, regression_weight: float) -> str:
    """Return the homework's name of the folder of an experiment."""
    return f"shared={shared}_LF={factorization_weight}_LR={regression_weight}"
