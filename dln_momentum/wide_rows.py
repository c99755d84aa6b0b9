"""The row space of a large matrix, in a few passes over its columns.

A singular value decomposition of X [n, d] takes several copies of X, and minutes at
(n, d) = (100, 10^6). Where X is well-conditioned its Gram matrix X X^T, [n, n], knows as much
(docs/theory.md#problem).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

LARGE = 2**20
"""Entries of X from which it is looked at in this way."""

RESOLVED = 1e-4
"""Least eigenvalue of X X^T that is kept, over the largest. X is then conditioned up to 100, and
what n x n matrices lose, its square, leaves more digits than `RANGE_TOLERANCE` asks for."""

BLOCK = 2**20
"""Entries of X that are looked at together."""


def factors_of(X: Tensor) -> tuple[Tensor, Tensor] | None:
    r"""U^T and T, [r, n] each, with orthonormal rows V = T X that span the rows of X.

    With the eigenvectors :math:`X X^\top = U \Lambda U^\top` of the eigenvalues above `RESOLVED`
    and :math:`T_0 = \Lambda^{-1/2} U^\top`,

    .. math:: T = L^{-1} T_0, \qquad (T_0 X)(T_0 X)^\top = L L^\top,

    which makes the rows orthonormal to rounding, times the condition of X. That X has rank r is
    proved, not guessed: with N the other eigenvectors, :math:`\sigma_{r+1} \le \|N^\top X\|_F`,
    which is computed and must be below the cut of `RowSpace.of`.

    Args:
        X: a finite matrix [n, d], not 0.

    Returns:
        None where a singular value lies between the two limits, or n > d: nothing is known then.

    >>> X = torch.tensor([[3.0, 4.0, 0.0], [6.0, 8.0, 0.0]], dtype=torch.float64)
    >>> range_basis, mixing = factors_of(X)
    >>> (mixing @ X).abs()
    tensor([[0.6000, 0.8000, 0.0000]], dtype=torch.float64)
    """
    n, d = X.shape
    if n > d:
        return None
    unit = _unit(X)
    values, left = torch.linalg.eigh(_gram(X, unit))
    first = int((values < RESOLVED * values[-1]).sum())
    range_basis = left[:, first:].flip(-1).mT.contiguous()
    others, sigma = left[:, :first].mT, values[first:].flip(-1).sqrt()
    mixing = range_basis / sigma[:, None]
    outside, product = X.new_zeros(()), X.new_zeros(len(sigma), len(sigma))
    for block in _blocks(X, unit):
        rows = mixing @ block
        product.addmm_(rows, rows.mT)
        if first:
            outside += (others @ block).square_().sum()
    cut = max(n, d) * torch.finfo(X.dtype).eps * sigma[0]
    factor, failed = torch.linalg.cholesky_ex(product)
    if bool(outside.sqrt() > cut) or bool(failed):
        return None
    mixing = torch.linalg.solve_triangular(factor, mixing, upper=False)
    return range_basis, mixing / unit


def spectral_norm(X: Tensor) -> Tensor:
    """The largest singular value of X [n, d], of a stack the largest of all; from X X^T if large.

    >>> spectral_norm(torch.tensor([[3.0, 4.0]], dtype=torch.float64))
    tensor(5., dtype=torch.float64)
    """
    if X.ndim > 2 or X.numel() < LARGE or len(X) > X.shape[-1]:
        return torch.linalg.matrix_norm(X, 2).max()
    unit = _unit(X)
    return torch.linalg.eigvalsh(_gram(X, unit))[-1].sqrt() * unit


def _gram(X: Tensor, unit: float) -> Tensor:
    """X X^T over the square of the unit, [n, n]."""
    found = X.new_zeros(len(X), len(X))
    for block in _blocks(X, unit):
        found.addmm_(block, block.mT)
    return found


def _unit(X: Tensor) -> float:
    """The power of two next to the largest entry: divided by it, no square leaves the range."""
    least, most = torch.aminmax(X)
    largest = torch.maximum(-least, most)
    return float(torch.ldexp(torch.ones_like(largest), torch.frexp(largest).exponent - 1))


def _blocks(X: Tensor, unit: float) -> Iterator[Tensor]:
    """X over its unit, a few columns at a time."""
    for block in X.split(max(1, BLOCK // len(X)), dim=1):
        yield block / unit
