"""The expected outputs of the homework's equations, in float64 from a submission's parameters, and of usual mistakes.

    p_ij = u_i · q_j + b_j                      (equation 1)
    r̂_ij = f_θ([u_i, q_j, u_i ∗ q_j])           (equation 4)

Nothing here is a network: parameters are arrays by name, as in ``checks.py``.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from grading.checks import TOLERANCE, Array, Ids, Wrong, close, mlp


@dataclass(frozen=True)
class Pairs:
    """The inputs of both equations for a batch of pairs.

    Attributes:
        u_fact, q_fact, bias: for equation 1: (batch, d), (batch, d), (batch,).
        u_reg, q_reg: for equation 4: (batch, d) each; the same as for equation 1 when tables are shared.
        parameters: the network's.
        users, items: the IDs, (batch,).
    """

    u_fact: Array
    q_fact: Array
    bias: Array
    u_reg: Array
    q_reg: Array
    parameters: Mapping[str, Array]
    users: Ids
    items: Ids

    def interactions(self) -> Array:
        """Compute equation 1: (batch,)."""
        return np.asarray((self.u_fact * self.q_fact).sum(1) + self.bias)

    def ratings(self) -> Array:
        """Compute equation 4: (batch,); NaN where the MLP cannot read [u, q, u ∗ q]."""
        return mlp(np.concatenate([self.u_reg, self.q_reg, self.u_reg * self.q_reg], 1), self.parameters)

    def mistaken_interactions(self) -> dict[str, Array]:
        """Compute the outputs of usual mistakes in equation 1."""
        p, product, parameters = self.interactions(), self.u_fact * self.q_fact, self.parameters
        mistakes = {
            "the item bias is missing": p - self.bias,
            "the item bias is subtracted": p - 2 * self.bias,
            "the item bias alone": self.bias,
            "a sigmoid on the predictions": sigmoid(p),
            "the item bias is looked up with the user's ID": p - self.bias + parameters["B"].reshape(-1)[self.users],
            "the product is averaged instead of summed": product.mean(1) + self.bias,
            "the regression tables in place of the factorization tables": (self.u_reg * self.q_reg).sum(1) + self.bias,
        }
        for name, values in parameters.items():
            if name.startswith("other.") and values.size == values.shape[0] > self.users.max():
                bias = f"a user bias, {name.removeprefix('other.')}, is added"
                mistakes[bias] = p + values.reshape(-1)[self.users]
        return mistakes

    def mistaken_ratings(self) -> dict[str, Array]:
        """Compute the outputs of usual mistakes in equation 4."""
        u, q, parameters, r = self.u_reg, self.q_reg, self.parameters, self.ratings()
        mistakes = {
            "a sigmoid on the score": sigmoid(r),
            "the item bias is added to the score": r + self.bias,
            "a ReLU after the last layer": np.maximum(r, 0),
            "the ReLUs are missing": mlp(np.concatenate([u, q, u * q], 1), parameters, np.array),
        }
        u_fact, q_fact = self.u_fact, self.q_fact
        for order, parts in {
            "[q, u, u ∗ q]": [q, u, u * q],
            "[u ∗ q, u, q]": [u * q, u, q],
            "[u ∗ q, q, u]": [u * q, q, u],
            "[u, u ∗ q, q]": [u, u * q, q],
            "[q, u ∗ q, u]": [q, u * q, u],
            "[u, q, u + q]": [u, q, u + q],
            "[u, q, u − q]": [u, q, u - q],
            "the factorization tables": [u_fact, q_fact, u_fact * q_fact],
        }.items():
            mistakes[f"the MLP reads {order} instead of [u, q, u ∗ q]"] = mlp(np.concatenate(parts, 1), parameters)
        return mistakes


def look_up(parameters: Mapping[str, Array], tables: tuple[str, ...], users: Ids, items: Ids, dim: int) -> Pairs:
    """Look up the rows of pairs of IDs.

    Args:
        parameters: the network's.
        tables: ("U", "Q"), or ("U_reg", "Q_reg", "U_fact", "Q_fact").
        users, items: IDs, (batch,).
        dim: d, the length of the rows.

    Raises:
        Wrong: a table is missing, or has another shape.
    """

    def rows(name: str, ids: Ids, shape: tuple[int, ...]) -> Array:
        if name not in parameters:
            raise Wrong(f"the network has no attribute {name}: expected an embedding of that name")
        table = parameters[name]
        if table.shape[1:] != shape or len(table) <= ids.max():
            raise Wrong(f"{name} has shape {table.shape}: expected {(f'more than {ids.max()}', *shape)}")
        return np.asarray(table[ids])

    u_reg, q_reg = rows(tables[0], users, (dim,)), rows(tables[1], items, (dim,))
    u_fact, q_fact = rows(tables[-2], users, (dim,)), rows(tables[-1], items, (dim,))
    return Pairs(u_fact, q_fact, rows("B", items, (1,)).reshape(-1), u_reg, q_reg, parameters, users, items)


def mlp_input_width(parameters: Mapping[str, Array]) -> int:
    """Return the input width of the linear layer that was registered first."""
    return int(parameters["mlp.0.weight"].shape[1])


def bpr_loss(positive: Array, negative: Array) -> float:
    """Compute equation 3."""
    return float((1 - sigmoid(positive - negative)).mean())


def mse_loss(score: Array, ratings: Array) -> float:
    """Compute equation 5."""
    return float(((score - ratings) ** 2).mean())


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def difference(name: str, equation: str, got: Array, expected: Array, mistakes: Mapping[str, Array]) -> str:
    """Describe how outputs differ from an equation, and name the mistake with the same outputs, if any."""
    place = int(np.argmax(~np.isclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)))
    causes = [mistake for mistake, values in mistakes.items() if close(got, values)]
    ratio = float(np.median(got / expected))
    if not causes and close(got, ratio * expected):
        causes = [f"scaled by {ratio:.4g}"]
    cause = f". Likely cause: {causes[0]}" if causes else ""
    return f"{name} of {equation}: {got[place]:.6g} for a pair, expected {expected[place]:.6g}{cause}"
