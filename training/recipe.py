"""What may be added to the homework's way of training, each ingredient by itself; the defaults add nothing."""

from dataclasses import dataclass

SCHEDULES = ("constant", "linear")


@dataclass(frozen=True)
class Recipe:
    """Ingredients of training beyond the homework's.

    Attributes:
        negatives: so many items, drawn uniformly from all, are candidates for the negative; it is the one with the
            highest p_ij (adaptive sampling: Weston et al., WSABIE, IJCAI 2011; Spotlight's adaptive hinge loss).
        unseen_negatives: whether items that the user rated in the training ratings are no candidates, where others are.
        shared_negatives: whether all examples of a batch have the same candidates, which are then all different.
        negative_temperature: τ ≥ 0. Above 0 each candidate is a negative, with the weight softmax(p_ij / τ)
            (self-adversarial sampling: Sun et al., RotatE, ICLR 2019, equation 5); at 0 the one with the highest p_ij.
        user_balance: β in [0, 1]: in L_F a rating by a user with n of them has a weight proportional to n^(−β).
        watched_items: whether a user's embedding is u_i + n_i^(−1/2) · the sum of q_k of what the user rated, see
            ``training.watched``.
        temperature: T > 0 in L_F = mean of 1 − σ((p⁺ − p⁻) / T).
        weight_decay: w ≥ 0 in the loss's further term w/2 · (the sum of squares of all embeddings and item biases).
        lr_schedule: "constant"; or "linear", from the learning rate in the first step down to 0 after the last.
        embedding_dropout: probability in [0, 1) with which an element of u_i is 0 in equation 1, the others being
            scaled by 1 / (1 − probability) (Srivastava et al., JMLR 2014).
        dropout: the same for the outputs of each ReLU in equation 4.
        average_last: the share, in [0, 1], of the epochs at the end over which the weights are averaged, epoch by
            epoch; what is evaluated, and recommends, is then the mean so far (Izmailov et al., UAI 2018).
        start_at_mean: whether the output's bias in equation 4 starts at the mean training rating.
        clamp: whether predicted ratings are cut to the range of the training ratings where they are evaluated.

    Raises:
        ValueError: one of them is out of range.
    """

    negatives: int = 1
    unseen_negatives: bool = False
    shared_negatives: bool = False
    negative_temperature: float = 0.0
    user_balance: float = 0.0
    watched_items: bool = False
    temperature: float = 1.0
    weight_decay: float = 0.0
    lr_schedule: str = "constant"
    embedding_dropout: float = 0.0
    dropout: float = 0.0
    average_last: float = 0.0
    start_at_mean: bool = False
    clamp: bool = False

    def __post_init__(self) -> None:
        if self.negatives < 1:
            raise ValueError(f"negatives is {self.negatives}: expected at least 1")
        for name in ("unseen_negatives", "shared_negatives", "negative_temperature"):
            if getattr(self, name) and self.negatives == 1:
                raise ValueError(f"{name} is for several candidates: expected negatives above 1 with it")
        if not 0 <= self.negative_temperature < float("inf"):
            raise ValueError(f"negative_temperature is {self.negative_temperature}: expected 0 or a positive number")
        if not 0 <= self.user_balance <= 1:
            raise ValueError(f"user_balance is {self.user_balance}: expected a number from 0 to 1")
        if not 0 < self.temperature < float("inf"):
            raise ValueError(f"temperature is {self.temperature}: expected a positive number")
        if not 0 <= self.weight_decay < float("inf"):
            raise ValueError(f"weight_decay is {self.weight_decay}: expected 0 or a positive number")
        if self.lr_schedule not in SCHEDULES:
            raise ValueError(f"lr_schedule is {self.lr_schedule}: expected {' or '.join(SCHEDULES)}")
        for name in ("embedding_dropout", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: expected a probability from 0 to below 1")
        if not 0 <= self.average_last <= 1:
            raise ValueError(f"average_last is {self.average_last}: expected a share from 0 to 1")

    @property
    def plain_step(self) -> bool:
        """Whether a step is the homework's."""
        changed = self.negatives > 1, self.user_balance, self.watched_items, self.temperature != 1, self.weight_decay
        return not any((*changed, self.embedding_dropout, self.dropout)) and self.lr_schedule == "constant"

    @property
    def needs_epochs(self) -> bool:
        """Whether what happens in an epoch depends on how many there will be."""
        return self.lr_schedule != "constant" or self.average_last > 0

    def first_averaged(self, epochs: int) -> int:
        """The first of so many epochs, from 0, whose weights go into the mean."""
        return epochs - round(self.average_last * epochs)
