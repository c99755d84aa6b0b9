"""The row space span(x_1..x_n) of a design matrix."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from dln_momentum.arrays import all_finite
from dln_momentum.errors import raise_if_any
from dln_momentum.wide_rows import LARGE, factors_of

_NO_UNDERFLOW = 1e-140
"""Norms above it and below its inverse are those of the entries as they are, to rounding."""


@dataclass(frozen=True)
class RowSpace:
    r"""Orthonormal basis of span(x_1..x_n), for matrices that may lack full row rank.

    With the thin singular value decomposition :math:`X = U \Sigma V` cut at the numerical rank r,

    .. math:: \{\theta : X\theta = y\} = \{\theta : V\theta = b\}, \qquad b = \Sigma^{-1} U^\top y

    if y lies in the range of X, which `range_residual` measures. Every gradient of the loss lies
    in this span (docs/theory.md#problem; poster, section 3), so the minimisers and their
    optimality conditions depend on V and b alone.

    Stacked matrices of different ranks share the largest r: the basis of the others is padded with
    zero rows, and their coordinates and targets with zeros.

    Of a large well-conditioned X the basis is not stored: V = T X with T [r, n], of which products
    need T and X alone (`dln_momentum.wide_rows`).

    >>> X = torch.tensor([[3.0, 4.0, 0.0], [6.0, 8.0, 0.0]], dtype=torch.float64)
    >>> rows = RowSpace.of(X)
    >>> rows.rank
    1
    >>> rows.project(torch.tensor([1.0, 0.0, 7.0], dtype=torch.float64))
    tensor([0.3600, 0.4800, 0.0000], dtype=torch.float64)
    """

    rows: Tensor
    """V, [*runs, r, d], or X [n, d] where ``mixing`` is given."""
    to_target: Tensor
    """The map from y to b, [*runs, r, n]: Sigma^-1 U^T."""
    range_basis: Tensor
    """U^T, [*runs, r, n]: orthonormal rows that span the range of X."""
    ranks: Tensor
    """The rank of each matrix, [*runs]."""
    mixing: Tensor | None = None
    """T with V = T X, [r, n]; None where V is stored."""

    def __repr__(self) -> str:
        return f"RowSpace(rank={self.rank}, d={self.rows.shape[-1]}, runs={[*self.ranks.shape]})"

    @classmethod
    def of(cls, X: Tensor) -> RowSpace:
        """The row space of X, [*runs, n, d]; singular values below max(n, d) eps sigma_max are 0.

        Raises:
            InputError: if X is not a stack of finite floating-point matrices, each nonzero.
        """
        raise_if_any(_faults(X))
        wide = X.ndim == 2 and X.dtype == torch.float64 and X.numel() >= LARGE
        found = factors_of(X) if wide else None
        if found is not None:
            range_basis, mixing = found
            rank = torch.tensor(len(mixing), device=X.device)
            return cls(X, mixing, range_basis, rank, mixing)
        left, sigma, right = torch.linalg.svd(X, full_matrices=False)
        cutoff = max(X.shape[-2:]) * torch.finfo(X.dtype).eps * sigma[..., :1]
        kept = sigma > cutoff
        ranks = kept.sum(-1)
        r = int(ranks.max())
        sigma, mask = sigma[..., :r, None], kept[..., :r, None]
        range_basis = torch.where(mask, left[..., :r].mT, 0.0)
        return cls(
            rows=torch.where(mask, right[..., :r, :], 0.0).contiguous(),
            to_target=range_basis / torch.where(mask, sigma, 1.0),
            range_basis=range_basis.contiguous(),
            ranks=ranks,
        )

    @cached_property
    def basis(self) -> Tensor:
        """V, [*runs, r, d]: orthonormal rows, zero rows at the end where the rank is below r."""
        return self.rows if self.mixing is None else self.mixing @ self.rows

    @property
    def rank(self) -> int:
        """The number r of rows of the basis: the rank, or the largest rank of a stack."""
        return self.to_target.shape[-2]

    def coordinates(self, theta: Tensor) -> Tensor:
        """V theta, [*runs, r]: the coordinates of vectors [*runs, d] in the basis."""
        found = apply(self.rows, theta)
        return found if self.mixing is None else apply(self.mixing, found)

    def span(self, nu: Tensor) -> Tensor:
        """V^T nu, [*runs, d]: the vectors of the row space with coordinates [*runs, r]."""
        return apply(self.rows.mT, nu if self.mixing is None else apply(self.mixing.mT, nu))

    def target(self, y: Tensor) -> Tensor:
        """The b, [*runs, r], with {X theta = y} = {V theta = b}, for labels [*runs, n].

        For y outside the range of X it is the b of the nearest y inside.
        """
        return apply(self.to_target, y)

    def project(self, z: Tensor) -> Tensor:
        """V^T V z, [*runs, d]: the component of vectors [*runs, d] inside the row space."""
        return self.span(self.coordinates(z))

    def reject(self, z: Tensor) -> Tensor:
        """z - V^T V z, [*runs, d]: the component of vectors [*runs, d] outside the row space."""
        return z - self.project(z)

    def range_residual(self, y: Tensor) -> Tensor:
        """||y - U U^T y|| / ||y||, [*runs]: the distance of labels [*runs, n] from the range of X.

        It is 0 for y = 0.
        """
        outside = y - apply(self.range_basis.mT, apply(self.range_basis, y))
        norm = torch.linalg.vector_norm(y, dim=-1)
        return torch.linalg.vector_norm(outside, dim=-1) / torch.where(norm > 0, norm, 1.0)


def apply(matrix: Tensor, vectors: Tensor) -> Tensor:
    """Products [*runs, a] of a matrix [a, b] or [*runs, a, b] with vectors [*runs, b]."""
    # a shared matrix is one product over all runs, which is much faster than a stack of products
    if matrix.ndim == 2:
        return vectors @ matrix.mT
    return (matrix @ vectors.unsqueeze(-1)).squeeze(-1)


def weighted_solution(basis: Tensor, weights: Tensor, rhs: Tensor) -> tuple[Tensor, Tensor]:
    """The x in the row space with V W x = g, that is x = V^T (V W V^T)^-1 g, W = diag(weights).

    A QR factorisation of W^(1/2) V^T, with the rows sorted by weight, is accurate for weights over
    a hundred decades; a factorisation of V W V^T would be for sixteen.

    Args:
        basis: V, [r, d] or [*runs, r, d]; zero rows are ignored.
        weights: the diagonal of W, positive, [*runs, d].
        rhs: g, [*runs, r].

    Returns:
        x, [*runs, d], and <x, W x>, [*runs].
    """
    # x is homogeneous in weights and rhs: scaled to about 1, no square overflows or underflows
    unit, size = binary_centre(weights), binary_scale(rhs)
    x, energy = _scaled_solution(basis, weights / unit, rhs / size)
    return x / unit * size, (energy.unsqueeze(-1) / unit * size * size).squeeze(-1)


def binary_scale(values: Tensor) -> Tensor:
    """The power of two next to the largest |entry|, [*runs, 1].

    It is 1 where all entries are zero or one is not finite. Division by it is exact, except for
    entries that become subnormal.

    >>> binary_scale(torch.tensor([[3e300, 1.0], [0.0, 0.0]], dtype=torch.float64)).log2()
    tensor([[998.],
            [  0.]], dtype=torch.float64)
    """
    largest = values.abs().amax(-1, keepdim=True)
    # frexp puts the mantissa in [1/2, 1), and 2^1024 overflows
    usable = (largest > 0) & largest.isfinite()
    exponent = torch.frexp(torch.where(usable, largest, 1.0)).exponent - 1
    return torch.ldexp(torch.ones_like(largest), exponent)


def binary_centre(weights: Tensor) -> Tensor:
    """The power of two half-way between the smallest and the largest weight, [*runs, 1].

    >>> binary_centre(torch.tensor([[2.0**-1000, 2.0**1000]], dtype=torch.float64))
    tensor([[1.]], dtype=torch.float64)
    """
    low, high = (torch.frexp(w).exponent for w in torch.aminmax(weights, dim=-1, keepdim=True))
    middle = torch.div(low + high - 2, 2, rounding_mode="floor")
    return torch.ldexp(torch.ones_like(weights[..., :1]), middle.clamp(-1000, 1000))


def vector_norm(values: Tensor) -> Tensor:
    """The Euclidean norm over the last dimension, [*runs], even where squares overflow.

    >>> vector_norm(torch.tensor([[3e200, 4e200], [3e-200, 4e-200]], dtype=torch.float64))
    tensor([5.0000e+200, 5.0000e-200], dtype=torch.float64)
    """
    norm = torch.linalg.vector_norm(values, dim=-1)
    in_range = (norm > _NO_UNDERFLOW) & (norm < 1 / _NO_UNDERFLOW)
    if bool(in_range.all()):
        return norm
    scale = binary_scale(values)
    scaled = torch.linalg.vector_norm(values / scale, dim=-1) * scale.squeeze(-1)
    return torch.where(in_range, norm, scaled)


def _scaled_solution(basis: Tensor, weights: Tensor, rhs: Tensor) -> tuple[Tensor, Tensor]:
    """`weighted_solution` of weights centred at 1 and a right-hand side of size 1."""
    order = torch.argsort(weights, dim=-1, descending=True)
    root = torch.gather(weights, -1, order).sqrt()
    if basis.ndim == 2:
        rows = basis.mT[order]
    else:
        rows = torch.take_along_dim(basis.mT, order.unsqueeze(-1), dim=-2)
    reflectors, tau = torch.geqrf(rows * root.unsqueeze(-1))
    r = basis.shape[-2]
    triangle = reflectors[..., :r, :].triu()
    # a zero row of V gives a zero on the diagonal and in g: its unknown becomes 0/1
    diagonal = triangle.diagonal(dim1=-2, dim2=-1)
    diagonal.masked_fill_(diagonal == 0, 1.0)
    y = torch.linalg.solve_triangular(triangle.mT, rhs.unsqueeze(-1), upper=False)
    nu = torch.linalg.solve_triangular(triangle, y, upper=True).squeeze(-1)
    padded = torch.nn.functional.pad(y, (0, 0, 0, weights.shape[-1] - r))
    sorted_x = torch.ormqr(reflectors, tau, padded).squeeze(-1) / root
    from_q = torch.empty_like(sorted_x).scatter_(-1, order, sorted_x)
    # two formulas for x, with errors eps |y| / W^(1/2) and eps |nu|: take the smaller error
    norm_y, norm_nu = vector_norm(y.mT), vector_norm(nu).unsqueeze(-1)
    x = torch.where(weights.sqrt() * norm_nu > norm_y, from_q, apply(basis.mT, nu))
    return x, norm_y.squeeze(-1).square()


def _faults(X: Tensor) -> Iterator[str]:
    if not isinstance(X, Tensor):
        yield f"X is a {type(X).__name__}; it must be a tensor [*runs, n, d]"
    elif X.ndim < 2 or min(X.shape) < 1 or not X.is_floating_point():
        yield f"X of shape {tuple(X.shape)} and {X.dtype} must be floating point [*runs, n, d]"
    elif not all_finite(X):
        yield "X must be finite in every entry"
    elif not bool((X != 0).any(-1).any(-1).all()):
        yield "X = 0 must have a nonzero entry in each run"
