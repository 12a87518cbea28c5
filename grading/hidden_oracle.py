"""The homework's equations and their gradients in float64 from a submission's parameters, and usual mistakes.

p_ij = u_i · q_j + b_j                      (equation 1)
r̂_ij = f_θ([u_i, q_j, u_i ∗ q_j])           (equation 4)
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from grading.checks import NUM_USERS, TOLERANCE, Array, Ids, Parameters, close, linear, mlp


@dataclass(frozen=True)
class Pairs:
    """A batch of users and items, and a network's parameters, which ``checks.check_network`` has accepted."""

    parameters: Parameters
    names: tuple[str, ...]  # of the tables: U_reg, Q_reg, U_fact, Q_fact, or U and Q for both equations
    layers: Sequence[str]  # the names of the MLP's linear layers in order
    users: Ids  # (batch,)
    items: Ids  # (batch,)

    def rows_fact(self) -> tuple[Array, Array]:
        """Look up u and q of equation 1: (batch, d) each."""
        return self.parameters[self.names[-2]][self.users], self.parameters[self.names[-1]][self.items]

    def rows_reg(self) -> tuple[Array, Array]:
        """Look up u and q of equation 4: (batch, d) each."""
        return self.parameters[self.names[0]][self.users], self.parameters[self.names[1]][self.items]

    def bias(self) -> Array:
        return np.asarray(self.parameters["B"][self.items, 0])

    def interactions(self) -> Array:
        """Compute equation 1: (batch,)."""
        u, q = self.rows_fact()
        return np.asarray((u * q).sum(1) + self.bias())

    def ratings(self) -> Array:
        """Compute equation 4: (batch,)."""
        u, q = self.rows_reg()
        return self._mlp(u, q, u * q)

    def _mlp(self, *parts: Array, relus: bool = True) -> Array:
        return mlp(np.concatenate(parts, 1), self.parameters, self.layers, relus)

    def bpr_gradients(self, negatives: Ids) -> dict[str, Array]:
        """Compute the gradients of equation 3, the mean of 1 − σ(p⁺ − p⁻), with these negative items.

        Returns:
            the gradient of each parameter of equations 1 and 4, by its name; 0 where it has no part in the loss.
        """
        other = replace(self, items=negatives)
        sigma = sigmoid(self.interactions() - other.interactions())
        slopes = -sigma * (1 - sigma) / len(self.users)
        gradients = self._zeros()
        for pairs, slope in ((self, slopes), (other, -slopes)):
            u, q = pairs.rows_fact()
            np.add.at(gradients[self.names[-2]], pairs.users, slope[:, None] * q)
            np.add.at(gradients[self.names[-1]], pairs.items, slope[:, None] * u)
            np.add.at(gradients["B"], pairs.items, slope[:, None])
        return gradients

    def mse_gradients(self, ratings: Array) -> dict[str, Array]:
        """Compute the gradients of equation 5, the mean of (r̂ − r)², as ``bpr_gradients`` does."""
        gradients = self._zeros()
        layer_inputs = self._layer_inputs()
        slopes = (2 * (self.ratings() - ratings) / len(ratings))[:, None]  # with respect to a layer's outputs
        for name, inputs in zip(reversed(self.layers), reversed(layer_inputs), strict=True):
            gradients[f"{name}.weight"] = slopes.T @ inputs
            gradients[f"{name}.bias"] = slopes.sum(0)
            slopes = slopes @ self.parameters[f"{name}.weight"]
            if name != self.layers[0]:
                slopes = slopes * (inputs > 0)
        u, q = self.rows_reg()
        from_u, from_q, from_product = np.split(slopes, 3, axis=1)
        np.add.at(gradients[self.names[0]], self.users, from_u + from_product * q)
        np.add.at(gradients[self.names[1]], self.items, from_q + from_product * u)
        return {name: gradient for name, gradient in gradients.items() if name in self.parameters}

    def distance_from_corners(self) -> Array:
        """Compute the distance from 0 of the nearest input of a ReLU: (batch,)."""
        hidden = zip(self.layers[:-1], self._layer_inputs(), strict=False)
        return np.asarray(np.min([np.abs(linear(inputs, self.parameters, name)).min(1) for name, inputs in hidden], 0))

    def _layer_inputs(self) -> list[Array]:
        """Compute the inputs of each linear layer, in order."""
        u, q = self.rows_reg()
        found = [np.concatenate([u, q, u * q], 1)]
        for name in self.layers[:-1]:
            found.append(np.maximum(linear(found[-1], self.parameters, name), 0))
        return found

    def _zeros(self) -> dict[str, Array]:
        """Make an array of zeros for each parameter of the equations."""
        own = {name: array for name, array in self.parameters.items() if not name.startswith("other.")}
        return {name: np.zeros_like(array) for name, array in own.items()}

    def mistaken_interactions(self) -> dict[str, Array]:
        """Compute the outputs of usual mistakes in equation 1."""
        p, b = self.interactions(), self.bias()
        (u_fact, q_fact), (u_reg, q_reg) = self.rows_fact(), self.rows_reg()
        mistakes = {
            "the item bias is missing": p - b,
            "the item bias is subtracted": p - 2 * b,
            "the item bias alone": b,
            "a sigmoid on the predictions": sigmoid(p),
            "the item bias is looked up with the user's ID": p - b + self.parameters["B"][self.users, 0],
            "the product is averaged instead of summed": (u_fact * q_fact).mean(1) + b,
            "the regression tables in place of the factorization tables": (u_reg * q_reg).sum(1) + b,
        }
        for name, values in self.parameters.items():
            if name.startswith("other.") and values.shape in ((NUM_USERS,), (NUM_USERS, 1)):
                bias = f"a user bias, {name.removeprefix('other.')}, is added"
                mistakes[bias] = p + values.reshape(-1)[self.users]
        return mistakes

    def mistaken_ratings(self) -> dict[str, Array]:
        """Compute the outputs of usual mistakes in equation 4."""
        r = self.ratings()
        u, q = self.rows_reg()
        u_fact, q_fact = self.rows_fact()
        mistakes = {
            "a sigmoid on the score": sigmoid(r),
            "the item bias is added to the score": r + self.bias(),
            "a ReLU after the last layer": np.maximum(r, 0),
            "the ReLUs are missing": self._mlp(u, q, u * q, relus=False),
        }
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
            mistakes[f"the MLP reads {order} instead of [u, q, u ∗ q]"] = self._mlp(*parts)
        return mistakes


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
