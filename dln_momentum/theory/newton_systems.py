"""The linear systems of Newton's method on the dual, V W V^T nu = g, for many runs at once.

A Cholesky factor of V W V^T costs n^2 d operations, a product with V W V^T only 4 n d. So a factor
preconditions conjugate gradients: for the later steps of its run, and for the runs whose weights
are near in ratio, as those of a sweep. What n x n matrices cannot resolve goes to
`weighted_solution`.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor

from dln_momentum.row_space import apply, weighted_solution

RESOLVED = 1e-10
"""Least pivot of V W V^T over the largest: rounding disturbs a step by 1e-16 over it at most."""
SPREAD = 1e3
"""Largest ratio between the quotients of two weights at which another's factor is tried."""
LEAST_ITERATIONS = 3
ROWS_AN_ITERATION = 20
"""A factor is given up after r over so many iterations, when they cost half of a new one."""
BLOCKS = 5
"""Blocks of rows in which V W V^T is formed; what lies above the diagonal blocks is left out."""
AT_ONCE = 2**20
"""Entries of V sqrt(W) that are held together, over all runs."""
COLUMNS = 4096
"""Columns of V that are always taken together, however many rows and runs there are."""
_NONE, _OWN = -2, -1


class NewtonSystems:
    """The systems of R runs, and the factors that are kept of them.

    A run's factor may be that of a neighbour: it changes a step within the accuracy asked for.

    >>> V = torch.eye(2, 3, dtype=torch.float64)
    >>> weights = torch.tensor([[2.0, 4.0, 1.0]], dtype=torch.float64)
    >>> systems = NewtonSystems(V, weights)
    >>> x, energy = systems.solve(torch.tensor([0]), weights, weights[:, :2], torch.tensor([1e-3]))
    >>> x.round(decimals=12), energy.round(decimals=12)
    (tensor([[1., 1., 0.]], dtype=torch.float64), tensor([6.], dtype=torch.float64))
    """

    def __init__(self, basis: Tensor, like: Tensor, at_once: int = 2**20) -> None:
        """No factor yet.

        Args:
            basis: V, [r, d] or [R, r, d]; zero rows are ignored.
            like: of the shape [R, d] and type of the weights.
            at_once: entries of V sqrt(W) that are held together.
        """
        r, d = basis.shape[-2:]
        self.basis, self._at_once = basis, max(1, at_once // (r * d))
        self._iterations = max(LEAST_ITERATIONS, r // ROWS_AN_ITERATION)
        self._weights = torch.full_like(like, torch.nan)  # those of the factor
        self._place = torch.full_like(like[:, 0], _NONE, dtype=torch.int64)
        self._shared: list[Tensor] = []
        self._own = like.new_empty(0, r, r)

    def solve(
        self, runs: Tensor, weights: Tensor, rhs: Tensor, accuracy: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x = V^T nu of some runs, and <nu, g>, which is <x, W x> up to the accuracy.

        Args:
            runs: which runs, [A].
            weights: the diagonal of W, positive, [A, d], in units in which it is about 1.
            rhs: g, [A, r], likewise.
            accuracy: energy norm of the error of nu over that of nu, as the factor estimates it,
                [A].
        """
        nu, left = torch.zeros_like(rhs), torch.ones_like(runs, dtype=torch.bool)
        for prepare in (None, self._share, self._factorise):
            if prepare is not None:
                prepare(runs[left], weights[left])
            low, high = torch.aminmax(weights / self._weights[runs], dim=-1)
            tried = left & (high <= SPREAD * low)  # False where there is no factor
            if bool(tried.all()):  # no copies
                nu, solved = self._iterate(runs, weights, rhs, accuracy)
                left = ~solved
            elif bool(tried.any()):
                nu[tried], solved = self._iterate(
                    runs[tried], weights[tried], rhs[tried], accuracy[tried]
                )
                left[tried] = ~solved
            if not bool(left.any()):
                break
        x, energy = apply(self._basis_of(runs).mT, nu), (nu * rhs).sum(-1)
        if bool(left.any()):
            x[left], energy[left] = weighted_solution(
                self._basis_of(runs[left]), weights[left], rhs[left]
            )
        return x, energy

    def _basis_of(self, runs: Tensor) -> Tensor:
        return self.basis if self.basis.ndim == 2 else self.basis[runs]

    def _share(self, runs: Tensor, weights: Tensor) -> None:
        """Factorise the matrix of one run, and assign it to all."""
        if self.basis.ndim > 2 or len(runs) < 2:
            return
        middle = weights[len(runs) // 2][None]
        factor, resolved = _factors(self.basis, middle)
        if bool(resolved):
            self._place[runs], self._weights[runs] = len(self._shared), middle
            self._shared.append(factor[0])

    def _factorise(self, runs: Tensor, weights: Tensor) -> None:
        """Factorise the matrix of each run."""
        if not len(self._own):
            self._own = self._own.new_empty(len(self._place), *self._own.shape[1:])
        for some, here in zip(runs.split(self._at_once), weights.split(self._at_once), strict=True):
            self._own[some], resolved = _factors(self._basis_of(some), here)
            self._place[some] = torch.where(resolved, _OWN, _NONE)
            self._weights[some] = torch.where(resolved[:, None], here, torch.nan)

    def _iterate(
        self, runs: Tensor, weights: Tensor, rhs: Tensor, accuracy: Tensor
    ) -> tuple[Tensor, Tensor]:
        """nu by conjugate gradients from 0, with the kept factors, and where it is accurate."""
        basis, factors = self._basis_of(runs), self._factors_of(runs)
        nu, place = torch.zeros_like(rhs), torch.arange(len(runs), device=runs.device)
        here, residual = nu, rhs
        direction = _divided(rhs, factors)
        energy = (rhs * direction).sum(-1, keepdim=True)
        enough = accuracy[:, None].square() * energy
        solved = torch.zeros_like(place, dtype=torch.bool)
        for k in range(self._iterations):
            image = apply(basis, weights * apply(basis.mT, direction))
            # nothing to solve for is a step of length 0
            curvature = (direction * image).sum(-1, keepdim=True)
            length = torch.where(energy == 0, 0.0, energy / curvature)
            here, residual = here + length * direction, residual - length * image
            step = _divided(residual, factors)
            before, energy = energy, (residual * step).sum(-1, keepdim=True)
            done = (energy <= enough).squeeze(-1)
            direction = step + energy / before * direction
            if k + 1 < self._iterations and not bool(done.any()):
                continue
            nu[place[done]], solved[place[done]] = here[done], True
            going = ~done
            if not bool(going.any()):
                break
            place, weights, here, residual, direction, energy, enough = (
                x[going] for x in (place, weights, here, residual, direction, energy, enough)
            )
            basis, factors = self._basis_of(runs[place]), self._factors_of(runs[place])
        return nu, solved

    def _factors_of(self, runs: Tensor) -> list[tuple[Tensor | slice, Tensor]]:
        """The factors of some runs: one for several of them, or one for each."""
        places = self._place[runs]
        found: list[tuple[Tensor | slice, Tensor]] = []
        for place in places.unique().tolist():
            here = slice(None) if bool((places == place).all()) else places == place
            found.append((here, self._own[runs[here]] if place == _OWN else self._shared[place]))
        return found


def _factors(basis: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Cholesky factors L of V W V^T, [A, r, r], and whether they resolve every direction, [A]."""
    r, d = basis.shape[-2:]
    matrix = weights.new_zeros(len(weights), r, r)
    # of one large matrix a few columns at a time
    width = max(COLUMNS, AT_ONCE // max(1, r * len(weights)))
    for first in range(0, d, width):
        here = slice(first, first + width)
        rows = basis[..., here] * weights[:, None, here].sqrt()
        for start, end in pairwise(r * k // BLOCKS for k in range(BLOCKS + 1)):
            matrix[:, start:end, :end] += rows[:, start:end] @ rows[:, :end].mT
    # a zero row of V gives a zero row here and in g: its unknown becomes 0/1
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    diagonal.masked_fill_(diagonal == 0, 1.0)
    factor, failed = torch.linalg.cholesky_ex(matrix)
    low, high = torch.aminmax(factor.diagonal(dim1=-2, dim2=-1), dim=-1)
    return factor, (failed == 0) & (low.square() >= RESOLVED * high.square())


def _divided(rhs: Tensor, factors: list[tuple[Tensor | slice, Tensor]]) -> Tensor:
    """(L L^T)^-1 g of each run."""
    solution = torch.empty_like(rhs)
    for here, factor in factors:
        some = rhs[here]
        columns = some.mT if factor.ndim == 2 else some.unsqueeze(-1)
        half = torch.linalg.solve_triangular(factor, columns, upper=False)
        whole = torch.linalg.solve_triangular(factor.mT, half, upper=True)
        solution[here] = whole.mT if factor.ndim == 2 else whole.squeeze(-1)
    return solution
