"""The homework's rubric: 14 points in 13 checks, of which 8 are shown to students and 5 (6 points) are hidden.

Each check asks a submission's process for arrays and compares them with what the homework's equations give, computed
here in float64 from the submission's own parameters:

    p_ij = u_i · q_j + b_j                      (equation 1)
    r̂_ij = f_θ([u_i, q_j, u_i ∗ q_j])           (equation 4)

A check that a submission does not pass raises ``Wrong``, with what was expected, what came and, where it is known, the
likely cause. Everything is drawn from fixed seeds: a submission gets the same points each time.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

import data
from metrics import mrr_score, mse_score
from sandbox import Answer

Array = NDArray[np.float64]

NUM_USERS, NUM_ITEMS, DIM, BATCH = 944, 1683, 32, 256  # the homework's: MovieLens 100K's ids, counted from 0
TOLERANCE = 1e-4  # float32 is good to 1e-6 here
EPOCHS = 5

SHARED = ("U", "Q")
SEPARATE = ("U_reg", "Q_reg", "U_fact", "Q_fact")


class Wrong(Exception):
    """A submission does not do what a check asks for."""


class Ask(Protocol):
    """A way to ask a submission's process: ``sandbox.Session.ask``."""

    def __call__(self, question: str, /, **arguments: Any) -> Answer: ...


class Split(NamedTuple):
    """The two sides of MovieLens 100K."""

    train: data.Interactions
    test: data.Interactions


@dataclass(frozen=True)
class Check:
    """A line of the rubric.

    Attributes:
        id: the course's name for it; the hidden ones end in "-hidden".
        points: what it is worth, all or nothing.
        title: what it checks.
        run: asks and compares; raises Wrong.
        seconds: how long a submission may take for it.
    """

    id: str
    points: int
    title: str
    run: Callable[[Ask, Split | None], None]
    seconds: float = 10.0

    @property
    def hidden(self) -> bool:
        return self.id.endswith("-hidden")

    @property
    def needs_data(self) -> bool:
        return self.id in ("2-2-basic", "2-3-basic")


def shared_embeddings(ask: Ask, _: Split | None) -> None:
    check_tables(ask("tables", sharing=True), SHARED)


def separate_embeddings(ask: Ask, _: Split | None) -> None:
    check_tables(ask("tables", sharing=False), SEPARATE)


def item_bias(ask: Ask, _: Split | None) -> None:
    bias = ask("bias").array("weights")
    expect_shape("the item bias", bias, (NUM_ITEMS, 1), {(NUM_USERS, 1): "one bias for each user, not each item"})
    if not (bias == 0).all():
        raise Wrong("the item bias starts with numbers other than 0: expected zeros. Likely cause: not a ZeroEmbedding")


def mlp_of_the_homework(ask: Ask, _: Split | None) -> None:
    check_mlp(ask, [96, 64])


def mlp_in_general(ask: Ask, _: Split | None) -> None:
    for layer_sizes in ([96, 64, 32], [24, 48], [60, 50, 40, 30, 20]):
        check_mlp(ask, layer_sizes)


def shared_shapes(ask: Ask, _: Split | None) -> None:
    check_shapes(ask, sharing=True)


def separate_shapes(ask: Ask, _: Split | None) -> None:
    check_shapes(ask, sharing=False)


def shared_training(ask: Ask, split: Split | None) -> None:
    check_training(ask, split, sharing=True, mrr_band=(0.06, 0.02), mse_band=(0.90, 0.05))


def separate_training(ask: Ask, split: Split | None) -> None:
    check_training(ask, split, sharing=False, mrr_band=(0.08, 0.02), mse_band=(0.90, 0.05))


def shared_equations(ask: Ask, _: Split | None) -> None:
    check_equations(ask, sharing=True)


def separate_equations(ask: Ask, _: Split | None) -> None:
    check_equations(ask, sharing=False)


def batches(ask: Ask, _: Split | None) -> None:
    for sharing in (True, False):
        check_batches(ask, sharing)


def gradients(ask: Ask, _: Split | None) -> None:
    for sharing in (True, False):
        check_gradients(ask, sharing)


RUBRIC = (
    Check("1a-0-basic", 1, "shared embeddings: shapes, distinct ScaledEmbeddings", shared_embeddings),
    Check("1a-1-basic", 1, "separate embeddings: U_reg, Q_reg, U_fact, Q_fact", separate_embeddings),
    Check("1a-2-basic", 1, "item bias: shape, zeros", item_bias),
    Check("1b-0-basic", 1, "MLP for layer_sizes [96, 64]: Linear, ReLU, Linear", mlp_of_the_homework),
    Check("1b-1-hidden", 1, "MLP in general: other and deeper layer_sizes", mlp_in_general),
    Check("2-0-basic", 1, "shared forward: shapes", shared_shapes),
    Check("2-1-basic", 1, "separate forward: shapes", separate_shapes),
    Check("2-2-basic", 1, "shared, 5 epochs: test MRR 0.06 ± 0.02, test MSE 0.90 ± 0.05", shared_training, 40.0),
    Check("2-3-basic", 1, "separate, 5 epochs: test MRR 0.08 ± 0.02, test MSE 0.90 ± 0.05", separate_training, 40.0),
    Check("2-4-hidden", 1, "shared: equations 1 and 4", shared_equations),
    Check("2-5-hidden", 1, "separate: equations 1 and 4, each with its own tables", separate_equations),
    Check("2-6-hidden", 1, "a batch of 1, each output from its own pair, any order", batches),
    Check("2-7-hidden", 2, "gradients: which loss teaches what", gradients),
)


def check_tables(tables: Answer, names: tuple[str, ...]) -> None:
    """As many ScaledEmbeddings as names, of the users' and the items' size in turn, none of which is another."""
    weights, classes, memory = tables.arrays("weights"), tables.text_lists("classes"), tables.integers("memory")
    if len(weights) != len(names):
        raise Wrong(f"{len(weights)} embeddings: expected {len(names)}, {', '.join(names)}")
    for name, weight, mro in zip(names, weights, classes, strict=True):
        shape = (NUM_USERS if name.startswith("U") else NUM_ITEMS, DIM)
        swapped = (NUM_ITEMS if name.startswith("U") else NUM_USERS, DIM)
        expect_shape(
            name, weight, shape, {swapped: f"another order than {', '.join(names)}", shape[::-1]: "transposed"}
        )
        if "ScaledEmbedding" not in mro:
            raise Wrong(f"{name} is of class {mro[0]}: expected a ScaledEmbedding")
        # Of 30,000 normal numbers the mean and the standard deviation are known to half a percent.
        if not (abs(weight.mean()) < 0.1 / DIM and 0.9 / DIM < weight.std() < 1.1 / DIM):
            raise Wrong(
                f"{name} has mean {weight.mean():.4f} and standard deviation {weight.std():.4f}: expected 0 and "
                f"1/{DIM} = {1 / DIM:.4f}, a ScaledEmbedding as it comes"
            )
    for place, name in enumerate(names):
        if memory[place] in memory[:place]:
            other = names[memory.index(memory[place])]
            raise Wrong(f"{other} and {name} are the same embedding: expected two")


def check_mlp(ask: Ask, layer_sizes: list[int]) -> None:
    """Linear, ReLU, …, Linear of these input widths and output width 1, and that is what it computes."""
    inputs = random(7).standard_normal((64, layer_sizes[0])).astype(np.float32)
    answer = ask("mlp", layer_sizes=layer_sizes, inputs=inputs)
    asked = f"init_mlp_layers({layer_sizes})"
    layers, parameters = answer.texts("layers"), answer.named_arrays("parameters")
    expected = ["Linear", "ReLU"] * (len(layer_sizes) - 1) + ["Linear"]
    if layers and layers != expected:
        cause = ""
        if layers == [*expected, "ReLU"]:
            cause = ". Likely cause: a ReLU after the last layer too"
        elif layers == expected[:-2]:
            cause = ". Likely cause: the last layer, of output width 1, is missing"
        elif "ReLU" not in layers:
            cause = ". Likely cause: the ReLUs are missing, or applied in forward instead of being layers"
        raise Wrong(f"{asked} has the layers {', '.join(layers)}: expected {', '.join(expected)}{cause}")
    widths = [weight.shape[::-1] for name, weight in parameters.items() if name.endswith("weight")]
    widths_expected = list(zip(layer_sizes, [*layer_sizes[1:], 1], strict=True))
    if sorted(widths) != sorted(widths_expected) or (layers and widths != widths_expected):
        raise Wrong(f"{asked} has linear layers of input and output width {widths}: expected {widths_expected}")
    outputs = answer.array("outputs")
    expected_outputs = mlp(inputs.astype(np.float64), parameters)
    if not close(outputs.reshape(-1), expected_outputs):
        raise Wrong(f"{asked} computes something else than its linear layers with ReLUs between them")


def check_shapes(ask: Ask, sharing: bool) -> None:
    """forward of a batch gives two vectors of finite numbers."""
    ask("network", sharing=sharing, seed=0)
    users, items = some_pairs(BATCH, seed=1)
    outputs = ask("forward", user_ids=users, item_ids=items)
    for name in ("predictions", "score"):
        check_vector(name, outputs.array(name).shape, BATCH)
        if not np.isfinite(outputs.array(name)).all():
            raise Wrong(f"{name}: NaN or infinite numbers from a new network; expected finite ones")


def check_training(
    ask: Ask, split: Split | None, sharing: bool, mrr_band: tuple[float, float], mse_band: tuple[float, float]
) -> None:
    """Train on the training side, rank and rate everything, and see how the test side fares."""
    assert split is not None
    train = split.train
    ask("network", sharing=sharing, seed=0)
    draw = torch.Generator().manual_seed(0)
    n = len(train)
    order = torch.stack([torch.randperm(n, generator=draw) for _ in range(EPOCHS)])
    trained = ask(
        "train",
        user_ids=train.user_ids[order].numpy().astype(np.int32),
        item_ids=train.item_ids[order].numpy().astype(np.int32),
        negative_ids=torch.randint(train.num_items, order.shape, generator=draw).numpy().astype(np.int32),
        ratings=train.ratings[order].numpy(),
        batch_size=BATCH,
    )
    if "got" in trained:
        for name, shape in zip(("predictions", "score"), trained.shapes("got"), strict=True):
            check_vector(name, shape, *trained.integers("expected"))
    everything = ask("all_pairs", num_users=train.num_users, num_items=train.num_items)
    scored = AllPairs(*(matrix(everything, name, train) for name in ("predictions", "score")))
    mrr, mse = mrr_score(scored, split.test, train), mse_score(scored, split.test)
    got = f"after {EPOCHS} epochs the test MRR is {mrr:.4f} and the test MSE {mse:.4f}"
    wanted = f"expected MRR {mrr_band[0]} ± {mrr_band[1]} and MSE {mse_band[0]:.2f} ± {mse_band[1]}"
    cause = ""
    if not np.isfinite(scored.predictions.numpy()).all() or not np.isfinite(scored.score.numpy()).all():
        raise Wrong(f"after {EPOCHS} epochs there are NaN or infinite predictions or scores: expected finite ones")
    if abs(mrr - mrr_band[0]) > mrr_band[1]:
        chance = "; as low as chance: are the predictions those of equation 1?" if mrr < 0.01 else ""
        cause += f"\nLikely cause: the MRR comes from the predictions, equation 1, and how they learn{chance}"
    if abs(mse - mse_band[0]) > mse_band[1]:
        chance = "; what predicting one number for everything gives is 1.27" if mse > 1.15 else ""
        cause += f"\nLikely cause: the MSE comes from the score, equation 4, and how it learns{chance}"
    if cause:
        raise Wrong(f"{got}: {wanted}{cause}")


@dataclass(frozen=True)
class AllPairs:
    """What a submission predicts for every user and item, in the form that ``metrics`` scores."""

    predictions: torch.Tensor
    score: torch.Tensor

    def predict_all_items(self, user_ids: torch.Tensor) -> torch.Tensor:
        return self.predictions[user_ids]

    def predict_ratings(self, user_ids: torch.Tensor, item_ids: torch.Tensor) -> torch.Tensor:
        return self.score[user_ids, item_ids]


def check_equations(ask: Ask, sharing: bool) -> None:
    """With random numbers in all parameters, predictions are equation 1's and score is equation 4's."""
    parameters = randomize(ask, sharing)
    users, items = some_pairs(BATCH, seed=3)
    outputs = ask("forward", user_ids=users, item_ids=items)
    other = {name: values for name, values in parameters.items() if name.startswith("other.")}
    tables = parameters
    u_reg, q_reg = (tables[name][ids] for name, ids in zip(SHARED if sharing else SEPARATE[:2], (users, items)))
    u_fact, q_fact = (tables[name][ids] for name, ids in zip(SHARED if sharing else SEPARATE[2:], (users, items)))
    bias = tables["B"][items].reshape(-1)
    p = (u_fact * q_fact).sum(1) + bias
    r = rating(u_reg, q_reg, tables)
    predictions, score = outputs.array("predictions"), outputs.array("score")
    check_vector("predictions", predictions.shape, BATCH)
    check_vector("score", score.shape, BATCH)
    if not close(predictions, p):
        mistakes = {
            "the item bias is missing": p - bias,
            "the item bias is subtracted": p - 2 * bias,
            "the item bias alone": bias,
            "a sigmoid on the predictions": sigmoid(p),
            "the bias of the item whose number is the user's": p - bias + tables["B"][users].reshape(-1),
            "the product is averaged instead of summed": (p - bias) / DIM + bias,
            "the regression tables in place of the factorization tables": (u_reg * q_reg).sum(1) + bias,
        }
        for name, values in other.items():
            if values.shape in ((NUM_USERS, 1), (NUM_USERS,)):
                mistakes[f"a user bias, {name.removeprefix('other.')}, which is added"] = p + values[users].reshape(-1)
        raise Wrong(difference("predictions", "equation 1, u · q + b", predictions, p, mistakes))
    if np.isnan(r).any():
        width = parameters["mlp.0.weight"].shape[1]
        cause = ". Likely cause: the product u ∗ q is missing" if width == 2 * DIM else ""
        raise Wrong(
            f"mlp_layers, which starts with {width} inputs, cannot read [u, q, u ∗ q]: expected {3 * DIM}{cause}"
        )
    if not close(score, r):
        product = u_reg * q_reg
        mistakes = {
            "a sigmoid on the score": sigmoid(r),
            "the item bias is added to the score": r + bias,
            "a ReLU after the last layer": np.maximum(r, 0),
            "the ReLUs are missing": rating(u_reg, q_reg, tables, np.array),
            "the factorization tables in place of the regression tables": rating(u_fact, q_fact, tables),
        }
        orders = {"[q, u, u ∗ q]": [q_reg, u_reg, product], "[u ∗ q, u, q]": [product, u_reg, q_reg]}
        orders |= {"[u, u ∗ q, q]": [u_reg, product, q_reg], "[q, u ∗ q, u]": [q_reg, product, u_reg]}
        orders |= {"[u ∗ q, q, u]": [product, q_reg, u_reg], "[u, q, u + q]": [u_reg, q_reg, u_reg + q_reg]}
        orders |= {"[u, q, u − q]": [u_reg, q_reg, u_reg - q_reg]}
        for order, parts in orders.items():
            mistakes[f"the MLP reads {order} instead of [u, q, u ∗ q]"] = mlp(np.concatenate(parts, 1), tables)
        raise Wrong(difference("score", "equation 4, the MLP of [u, q, u ∗ q]", score, r, mistakes))


def check_batches(ask: Ask, sharing: bool) -> None:
    """Each pair's outputs do not depend on the others in its batch, on their order, or on there being others."""
    kind = "with shared embeddings" if sharing else "with separate embeddings"
    randomize(ask, sharing)
    users, items = some_pairs(BATCH, seed=4)
    whole = ask("forward", user_ids=users, item_ids=items)
    shuffled = random(5).permutation(BATCH)
    repeated = np.concatenate([np.repeat(np.arange(3), 20), np.arange(3)])
    for name in ("predictions", "score"):
        check_vector(name, whole.array(name).shape, BATCH)
    for what, places in (
        ("in a batch of 1", np.array([0])),
        ("in a batch of 1", np.array([17])),
        ("in another order", shuffled),
        ("in a batch that repeats pairs", repeated),
        ("in a batch of 100", np.arange(100)),
    ):
        part = ask("forward", user_ids=users[places], item_ids=items[places])
        for name in ("predictions", "score"):
            check_vector(f"{kind}, {what}: {name}", part.array(name).shape, len(places))
            if not close(part.array(name), whole.array(name)[places]):
                raise Wrong(
                    f"{kind}, {name} of the same pairs are other numbers {what}: expected each to depend on its own "
                    "user and item only. Likely cause: an operation across the batch, or a random one (dropout)"
                )


def check_gradients(ask: Ask, sharing: bool) -> None:
    """Each loss teaches what it should, nothing else, and by the gradient of what the network computes."""
    kind = "with shared embeddings" if sharing else "with separate embeddings"
    teaches = {
        "bpr": (*(SHARED if sharing else SEPARATE[2:]), "B"),
        "mse": (*(SHARED if sharing else SEPARATE[:2]), "mlp"),
    }
    must_learn = {"bpr": teaches["bpr"][:2], "mse": teaches["mse"][:2]}
    losses = {"bpr": "the BPR loss", "mse": "the MSE"}
    parameters = randomize(ask, sharing)
    users, items = some_pairs(BATCH, seed=6)
    negatives = random(7).integers(0, NUM_ITEMS, BATCH)
    ratings = random(8).integers(1, 6, BATCH).astype(np.float32)
    batch = {"user_ids": users, "item_ids": items, "negative_ids": negatives, "ratings": ratings}
    answer = ask("gradients", **batch)

    def loss(name: str) -> float:
        positive = ask("forward", user_ids=users, item_ids=items)
        if name == "mse":
            return float(((positive.array("score") - ratings) ** 2).mean())
        negative = ask("forward", user_ids=users, item_ids=negatives)
        return float((1 - sigmoid(positive.array("predictions") - negative.array("predictions"))).mean())

    for name, taught in teaches.items():
        found = answer.named_arrays(name)
        own = {each: found[each] for each in found if not each.startswith("other.") and each in parameters}
        for parameter, gradient in own.items():
            part = parameter.partition(".")[0]
            if part not in taught and gradient.any():
                raise Wrong(
                    f"{kind}, {losses[name]} changes {parameter}: expected it to learn from the other loss only"
                )
            if part in must_learn[name] and not gradient.any():
                raise Wrong(
                    f"{kind}, {parameter} learns nothing from {losses[name]}: its gradient is 0. "
                    "Likely cause: a detach or no_grad, or another table in its place"
                )
        for part in taught:
            names = [each for each in own if each.partition(".")[0] == part]
            # A step along a direction changes the loss by the gradient's share in it, unless the gradient is cut off.
            step = {each: 1e-2 * random(9).standard_normal(own[each].shape) for each in names}
            changes = []
            for sign in (1, -1):
                moved = {each: (parameters[each] + sign * step[each]).astype(np.float32) for each in names}
                ask("assign", values=moved)
                changes.append(loss(name))
            ask("assign", values={each: parameters[each].astype(np.float32) for each in names})
            measured = changes[0] - changes[1]
            told = 2 * sum(float((own[each] * step[each]).sum()) for each in names)
            if not abs(measured - told) <= 0.1 * max(abs(measured), abs(told)) + 1e-5:
                raise Wrong(
                    f"{kind}, {part} does not learn from {losses[name]} by its gradient: along one direction the loss "
                    f"changes by {measured:.2g}, but the gradient says {told:.2g}. Likely cause: a detach or no_grad "
                    "on the way"
                )


def randomize(ask: Ask, sharing: bool) -> dict[str, Array]:
    """Make a network and put random numbers into all its parameters, so that each of them counts.

    Returns:
        The parameters as they then are, by the names of ``worker.Submission.parameters``.
    """
    draw = random(2)
    before = ask("network", sharing=sharing, seed=0).named_arrays()
    for name in (*(SHARED if sharing else SEPARATE), "B"):
        if name not in before:
            raise Wrong(f"the network has no attribute {name}: expected an embedding of that name")
    if "mlp.0.weight" not in before:
        raise Wrong("the network has no linear layers in an attribute mlp_layers: expected those of init_mlp_layers")
    values = {}
    for name, now in before.items():
        scale = 1.5 / np.sqrt(now.shape[1]) if name.startswith("mlp") and name.endswith("weight") else 0.5
        values[name] = (scale * draw.standard_normal(now.shape)).astype(np.float32)
    after = ask("assign", values=values).named_arrays()
    for name in before:
        # Tables that are one keep what the last of them was given.
        if name not in after or not any(np.array_equal(after[name], value) for value in values.values()):
            raise Wrong(f"{name.removeprefix('other.')} does not keep the numbers that are put into it")
    return after


def rating(u: Array, q: Array, parameters: dict[str, Array], between: Callable[[Array], Array] | None = None) -> Array:
    """Equation 4: (batch, d), (batch, d) → (batch,)."""
    return mlp(np.concatenate([u, q, u * q], 1), parameters, between)


def mlp(inputs: Array, parameters: dict[str, Array], between: Callable[[Array], Array] | None = None) -> Array:
    """Linear layers with ReLUs, or something else, between them: (n, width) → (n,), NaN where they do not fit.

    They are put in the order in which their widths follow each other, whatever order they were made in.
    """
    linears = [name for name in parameters if name.startswith("mlp.") and name.endswith(".weight")]
    weights = {name.split(".")[1]: parameters[name] for name in linears}
    hidden, count = inputs, len(weights)
    for layer in range(count):
        fitting = [place for place, weight in weights.items() if weight.shape[1] == hidden.shape[1]]
        if not fitting:
            return np.full(len(inputs), np.nan)
        place = fitting[0]
        hidden = hidden @ weights.pop(place).T + parameters.get(f"mlp.{place}.bias", 0)
        if layer < count - 1:
            hidden = np.maximum(hidden, 0) if between is None else between(hidden)
    return hidden[:, 0]


def check_vector(name: str, shape: tuple[int, ...], length: int) -> None:
    """An output of a batch has one number for each pair."""
    causes = {
        (length, length): "every user's with every item's: the product has to be row by row, (u * q).sum(1)",
        (length, 1): "a missing squeeze of the last dimension",
        (1, length): "a transposed result",
        (length, DIM): "the product u * q without its sum",
        (): "a squeeze() without a dimension, which takes away that of the batch too, or a mean over the batch",
    }
    if shape != (length,):
        cause = f". Likely cause: {causes[shape]}" if shape in causes else ""
        raise Wrong(f"{name} of shape {shape}: expected {(length,)}{cause}")


def expect_shape(name: str, array: Array, shape: tuple[int, ...], causes: dict[tuple[int, ...], str]) -> None:
    if array.shape != shape:
        cause = f". Likely cause: {causes[array.shape]}" if array.shape in causes else ""
        raise Wrong(f"{name} has shape {array.shape}: expected {shape}{cause}")


def difference(name: str, equation: str, got: Array, expected: Array, mistakes: dict[str, Array]) -> str:
    """Say how outputs differ from an equation, and which mistake gives exactly these outputs."""
    place = int(np.argmax(~np.isclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)))
    causes = [mistake for mistake, values in mistakes.items() if close(got, values)]
    cause = f". Likely cause: {causes[0]}" if causes else ""
    ratio = np.median(got / expected)
    if not causes and close(got, ratio * expected):
        cause = f". Likely cause: scaled by {ratio:.4g}"
    return f"{name} are not those of {equation}: {got[place]:.6g} for a pair, expected {expected[place]:.6g}{cause}"


def matrix(answer: Answer, name: str, train: data.Interactions) -> torch.Tensor:
    """One of the outputs for all pairs."""
    array = answer.array(name)
    expect_shape(name, array, (train.num_users, train.num_items), {})
    return torch.tensor(array, dtype=torch.float32)


def close(got: Array, expected: Array) -> bool:
    """All finite and as near as float32 should be."""
    return got.shape == expected.shape and bool(np.isclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE).all())


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def some_pairs(count: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Ids of users and items."""
    draw = random(seed)
    return draw.integers(0, NUM_USERS, count), draw.integers(0, NUM_ITEMS, count)


def random(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)
