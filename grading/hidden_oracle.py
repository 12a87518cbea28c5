"""The expected outputs of the homework's equations, in float64 from a submission's parameters, and of usual mistakes.

p_ij = u_i · q_j + b_j                      (equation 1)
r̂_ij = f_θ([u_i, q_j, u_i ∗ q_j])           (equation 4)
"""

from dataclasses import dataclass

import numpy as np

from grading.checks import TOLERANCE, Array, Ids, Parameters, Wrong, close, mlp


@dataclass(frozen=True)
class Pairs:
    """The inputs of both equations for a batch of pairs, with the same rows for both when tables are shared."""

    u_fact: Array  # (batch, d), for equation 1
    q_fact: Array  # (batch, d)
    bias: Array  # (batch,)
    u_reg: Array  # (batch, d), for equation 4
    q_reg: Array  # (batch, d)
    parameters: Parameters
    users: Ids  # (batch,)

    def interactions(self) -> Array:
        """Compute equation 1: (batch,)."""
        return np.asarray((self.u_fact * self.q_fact).sum(1) + self.bias)

    def ratings(self) -> Array:
        """Compute equation 4: (batch,); NaN where the MLP cannot read [u, q, u ∗ q]."""
        return mlp(np.concatenate([self.u_reg, self.q_reg, self.u_reg * self.q_reg], 1), self.parameters)

    def mistaken_interactions(self) -> dict[str, Array]:
        """Compute the outputs of usual mistakes in equation 1."""
        p, parameters = self.interactions(), self.parameters
        mistakes = {
            "the item bias is missing": p - self.bias,
            "the item bias is subtracted": p - 2 * self.bias,
            "the item bias alone": self.bias,
            "a sigmoid on the predictions": sigmoid(p),
            "the item bias is looked up with the user's ID": p - self.bias + parameters["B"].reshape(-1)[self.users],
            "the product is averaged instead of summed": (self.u_fact * self.q_fact).mean(1) + self.bias,
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
            "the ReLUs are missing": mlp(np.concatenate([u, q, u * q], 1), parameters, relus=False),
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


def look_up(parameters: Parameters, tables: tuple[str, ...], users: Ids, items: Ids, dim: int) -> Pairs:
    """Look up the rows of pairs of IDs, (batch,) each, in the tables of these names and in B.

    Raises:
        Wrong: the rows of a table are not of length dim, or those of B not of length 1, or there are too few.
    """

    def rows(name: str, ids: Ids, width: int) -> Array:
        table = parameters[name]
        if table.shape[1:] != (width,) or len(table) <= ids.max():
            raise Wrong(f"{name} has shape {table.shape}: expected {(f'more than {ids.max()}', width)}")
        return np.asarray(table[ids])

    u_reg, q_reg = rows(tables[0], users, dim), rows(tables[1], items, dim)
    u_fact, q_fact = rows(tables[-2], users, dim), rows(tables[-1], items, dim)
    return Pairs(u_fact, q_fact, rows("B", items, 1).reshape(-1), u_reg, q_reg, parameters, users)


def sigmoid(x: Array) -> Array:
    return np.asarray(1 / (1 + np.exp(-x)))


def difference(name: str, equation: str, got: Array, expected: Array, mistakes: Parameters) -> str:
    """Describe how outputs differ from an equation, and name the mistake with the same outputs, if any."""
    place = int(np.argmax(~np.isclose(got, expected, rtol=TOLERANCE, atol=TOLERANCE)))
    causes = [mistake for mistake, values in mistakes.items() if close(got, values)]
    ratio = float(np.median(got / expected))
    if not causes and close(got, ratio * expected):
        causes = [f"scaled by {ratio:.4g}"]
    cause = f". Likely cause: {causes[0]}" if causes else ""
    return f"{name} of {equation}: {got[place]:.6g} for a pair, expected {expected[place]:.6g}{cause}"
