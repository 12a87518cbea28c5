"""Factors of the residuals of biases, of few dimensions, and of none where the residuals are noise.

    e_ij = Σ_t f_it g_jt + noise,    noise ~ N(0, σ²),    f_it ~ N(0, σ² / λ_t),    g_jt ~ N(0, σ² / κ_t)

The posterior is approximated by independent normal distributions (variational Bayes: Lim and Teh, Variational Bayesian
Approach to Movie Rating Prediction, KDD Cup and Workshop 2007; of independent dimensions, as here: Raiko, Ilin and
Karhunen, Principal Component Analysis for Large Scale Problems with Lots of Missing Values, ECML 2007). The one of a
factor follows in closed form from the others, and so do λ_t, κ_t and σ²:

    v_it = σ² / w_it,    f_it = Σ_j e_ij g_jt / w_it,    w_it = λ_t + Σ_j (g_jt² + the variance of g_jt)
    λ_t = σ² · users / Σ_i (f_it² + v_it),    σ² = mean of the expected squared errors

where e_ij is without the other dimensions, and likewise for g_jt. There is no damping to choose: the variances dampen
the factors, and a dimension falls to 0 where noise could have its singular value (Nakajima and Sugiyama, Theoretical
Analysis of Bayesian Matrix Factorization, JMLR 12, 2011). An outlier would be a dimension, too. Therefore |e| is
limited to three standard deviations of the normal distribution with the same median of |e|.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

MOST_ERROR = 3 / 0.6745  # the greatest |e|, in units of its median: three standard deviations of a normal distribution
SWEEPS = 15  # over all dimensions; ten more change the test MSE of MovieLens 100K and FilmTrust by 0.2 % or less
FALLING = 6  # sweeps after which dimensions that fell to 0 are left out, which saves time
LEAST_SIZE = 0.1  # of the singular value of a dimension that did not fall, in units of its damping
BLOCK = 2**17  # ratings at a time, whose columns stay in the processor's cache
FIRST_DAMPING = 5.0  # λ and κ, in units of σ; with 10, weak structure falls to 0, and with 3 more noise stays
LEAST_NOISE = 1e-6  # σ² in units of the mean square of e, so that the dampings stay above the rounding errors
SEED = 0  # of the first factors
_Block = tuple[Tensor, Tensor, Tensor]  # errors, users and items of some ratings


class Factors(NamedTuple):
    """The means of the factors, float64 on the CPU, without the dimensions that fell to 0.

    Attributes:
        users, items: (num_users, dimensions) and (num_items, dimensions); 0 for those without ratings.
        dampings: (2, dimensions), λ and κ.
    """

    users: Tensor
    items: Tensor
    dampings: Tensor

    @classmethod
    def none(cls, num_users: int, num_items: int) -> "Factors":
        """Return factors without dimensions."""
        users, items, dampings = (torch.zeros(n, 0, dtype=torch.float64) for n in (num_users, num_items, 2))
        return cls(users, items, dampings)

    @classmethod
    def of(cls, errors: Tensor, ids: tuple[Tensor, Tensor], rows: tuple[int, int], dimensions: int) -> "Factors":
        """Compute the factors of the errors of biases.

        Args:
            errors: (n,) float64 e.
            ids: the users and the items of the ratings, (n,) each.
            rows: num_users and num_items.
            dimensions: their greatest number.
        """
        limit = MOST_ERROR * errors.abs().median()
        errors = errors.clamp(-limit, limit)
        if not bool(errors.any()):
            return cls.none(*rows)
        blocks = list(zip(*(column.split(BLOCK) for column in (errors, *ids)), strict=True))
        noise = errors.square().mean()
        damping, least = FIRST_DAMPING * noise.sqrt(), LEAST_NOISE * noise
        start = torch.randn(rows[1], dimensions, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64)
        start *= (noise / damping).sqrt()
        zeros = torch.zeros(sum(rows), dtype=torch.float64).split(rows)
        found = [(_Column(zeros[0], zeros[0], damping), _Column(each, zeros[1], damping)) for each in start.unbind(1)]
        for sweep in range(1, SWEEPS + 1):
            squares = torch.zeros_like(noise)  # what the variances add to the squared errors of all ratings
            for t, (f, g) in enumerate(found):
                _add_products(blocks, f, g, 1)
                f = f.update(blocks, 0, g, noise)
                g = g.update(blocks, 1, f, noise)
                squares += _add_products(blocks, f, g, -1)
                found[t] = f, g
            squares += sum(part @ part for part, _, _ in blocks)
            noise = (squares / len(errors)).clamp(min=least)
            if sweep in (FALLING, SWEEPS):
                for f, g in (pair for pair in found if _fell(*pair)):
                    _add_products(blocks, f, g, 1)
                found = [pair for pair in found if not _fell(*pair)]
        if not found:
            return cls.none(*rows)
        tables = [torch.stack([column.mean for column in columns], 1) for columns in zip(*found, strict=True)]
        return cls(tables[0], tables[1], torch.stack([torch.stack([f.damping, g.damping]) for f, g in found], 1))

    def of_users(self, errors: Tensor, user_ids: Tensor, item_ids: Tensor, num_users: int) -> "Factors":
        """Compute the factors of other users for these factors of items, by least squares with the dampings λ.

        Without the variances of the items' factors these are a few percent larger than ``of`` would compute them.

        Args:
            errors: (n,) float64 e.
            user_ids, item_ids: (n,)
        """
        columns = [column[item_ids] for column in self.items.unbind(1)]
        if not columns:
            return self.none(num_users, len(self.items))

        zeros = torch.zeros(num_users, dtype=torch.float64)

        def sums(values: Iterable[Tensor]) -> Tensor:
            return torch.stack([zeros.index_add(0, user_ids, each) for each in values], 1)

        products = sums(one * other for one in columns for other in columns)
        left = products.view(num_users, len(columns), len(columns)) + self.dampings[0].diag()
        return self._replace(users=torch.linalg.solve(left, sums(errors * column for column in columns)))

    def predicted(self, user_ids: Tensor, item_ids: Tensor) -> Tensor:
        """Return the sums of f_it g_jt: (n,) float64 for (n,) users and items."""
        pairs = zip(self.users.unbind(1), self.items.unbind(1), strict=True)
        return sum((f[user_ids] * g[item_ids] for f, g in pairs), torch.zeros(len(user_ids), dtype=torch.float64))

    def variances(self, user_ids: Tensor, item_ids: Tensor, with_items: bool = True) -> Tensor:
        """Return the variances of predictions of ratings without each of them, in units of σ²: (n,) float64.

        Args:
            user_ids, item_ids: (n,), of all ratings.
            with_items: whether the items' factors include the ratings, too.
        """
        found = torch.zeros(len(user_ids), dtype=torch.float64)
        for f, g, (of_users, of_others) in zip(
            self.users.unbind(1), self.items.unbind(1), self.dampings.unbind(1), strict=True
        ):
            found += _without_own(g.square()[item_ids], of_users, user_ids)
            if with_items:
                found += _without_own(f.square()[user_ids], of_others, item_ids)
        return found


def _without_own(squares: Tensor, damping: Tensor, ids: Tensor) -> Tensor:
    """Return the part of the variance from a factor that is estimated by the other ratings with the same ID."""
    return squares / (damping + torch.bincount(ids, squares)[ids] - squares)


class _Column(NamedTuple):
    """One dimension of the factors of users or of items: (rows,) means and variances, and its damping, ()."""

    mean: Tensor
    variance: Tensor
    damping: Tensor

    @property
    def squares(self) -> Tensor:
        """The expected squares."""
        return self.mean.square() + self.variance

    def update(self, blocks: Sequence[_Block], side: int, other: "_Column", noise: Tensor) -> "_Column":
        """Return the posterior of this side, 0 for users and 1 for items, given the other's.

        Args:
            blocks: of the ratings, with the errors without this dimension.
            noise: σ².
        """
        weights, sums = torch.zeros(2, len(self.mean), dtype=torch.float64)
        squares = other.squares
        for errors, *ids in blocks:
            own, others = ids[side], ids[1 - side]
            weights.scatter_add_(0, own, squares.index_select(0, others))  # faster than indexing
            sums.scatter_add_(0, own, errors * other.mean.index_select(0, others))
        rated = weights > 0
        weights += self.damping
        found = self._replace(mean=sums / weights, variance=noise / weights)
        return found._replace(damping=noise * rated.sum() / found.squares[rated].sum())


def _add_products(blocks: Sequence[_Block], f: _Column, g: _Column, sign: int) -> Tensor:
    """Add a dimension's part of the ratings to the errors, or subtract it; return what its variances add to squares."""
    found = torch.zeros((), dtype=torch.float64)
    of_users, of_items = f.squares, g.squares
    for errors, users, items in blocks:
        products = f.mean.index_select(0, users) * g.mean.index_select(0, items)
        errors.add_(products, alpha=sign)
        found += of_users.index_select(0, users) @ of_items.index_select(0, items) - products @ products
    return found


def _fell(f: _Column, g: _Column) -> bool:
    """Return whether a dimension fell to 0: whether its singular value is far below its damping."""
    return bool(f.mean.norm() * g.mean.norm() < LEAST_SIZE * (f.damping * g.damping).sqrt())
