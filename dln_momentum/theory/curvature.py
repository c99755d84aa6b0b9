r"""The Hessian of F in closed form, its largest eigenvalue, and batch sharpness.

(docs/theory.md#curvature; not on the poster.) With x = (x_1, x_2) orthonormal coordinates of the
layers in which theta has no mixed second derivatives, g = grad L and A = X^T diag(l''(p, y)) X/n,

.. math:: \nabla^2 F = S A S^\top + \operatorname{diag}(g\,\partial^2\theta/\partial x^2),
          \qquad S = \operatorname{diag}(\partial\theta/\partial x_1),
          \operatorname{diag}(\partial\theta/\partial x_2)\text{ stacked.}

Of theta = u v they are w_+-/sqrt(2), theta = (x_1^2 - x_2^2)/2; of theta = u^D - v^D they are u and
v. The sharpness is the largest eigenvalue. Heavy ball is stable on a quadratic of curvature h for
``h < 2 (1 + beta)/gamma``; a flow has no bound.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from dln_momentum.problem import Problem
from dln_momentum.row_space import apply
from dln_momentum.theory.trajectory import theta_of

DENSE = 200
"""Coordinates up to which all eigenvalues are computed; above it Lanczos finds the largest."""
DENSE_ENTRIES = 2**22
"""Entries of the dense Hessians that are made at once."""
LANCZOS_TOLERANCE = 1e-10


def hessian(problem: Problem, w: Tensor) -> Tensor:
    """The Hessian of F in (u, v) of theta = u v, [*runs, 2d, 2d].

    Args:
        problem: the data, shared or with the same run dimensions.
        w: (w_+, w_-), [2, *runs, d].

    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> w = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)  # u = 1, v = 0
    >>> hessian(problem, w)[:2, 2:].tolist()
    [[-2.0, 0.0], [0.0, -4.0]]
    """
    u, v = (w[0] + w[1]) / 2, (w[0] - w[1]) / 2
    theta = theta_of(w)
    A = problem.X.mT @ (_row_curvature(problem, theta)[..., None] * problem.X) / problem.n
    gradient = torch.diag_embed(problem.gradient(theta))
    rows = torch.cat([v, u], -1)
    blocks = torch.cat([torch.cat([A, A], -1), torch.cat([A, A], -1)], -2)
    none = torch.zeros_like(gradient)
    cross = torch.cat([torch.cat([none, gradient], -1), torch.cat([gradient, none], -1)], -2)
    return rows.unsqueeze(-1) * blocks * rows.unsqueeze(-2) + cross


def hessian_product(problem: Problem, w: Tensor, x: Tensor) -> Tensor:
    """The Hessian of F in (u, v) of theta = u v times x = (x_u, x_v), [2, *runs, d] each."""
    u, v = (w[0] + w[1]) / 2, (w[0] - w[1]) / 2
    theta = theta_of(w)
    gradient, rows = problem.gradient(theta), _row_curvature(problem, theta)
    pushed = apply(problem.X.mT, rows * apply(problem.X, v * x[0] + u * x[1])) / problem.n
    return torch.stack([v * pushed + gradient * x[1], u * pushed + gradient * x[0]])


class Layers(NamedTuple):
    """theta in the orthonormal coordinates x of the layers, [2, *runs, d] but for theta."""

    theta: Tensor
    """[*runs, d]"""
    slopes: Tensor
    """d theta/dx"""
    bends: Tensor
    """d^2 theta/dx^2"""

    @classmethod
    def of(cls, w: Tensor, depth: Tensor | float = 2.0) -> Layers:
        """From w: (w_+, w_-) at depth 2, (u, v) > 0 at any other."""
        sign = w.new_tensor([1.0, -1.0]).reshape(2, *[1] * (w.ndim - 1))
        if not isinstance(depth, Tensor) and depth == 2:
            return cls(theta_of(w), sign * w / math.sqrt(2), sign.expand_as(w))
        slopes, bends = depth * w ** (depth - 1), depth * (depth - 1) * w ** (depth - 2)
        return cls((sign * w**depth).sum(0), sign * slopes, sign * bends)

    def runs(self, runs: Tensor) -> Layers:
        """Those of some of R runs."""
        return Layers(self.theta[runs], self.slopes[:, runs], self.bends[:, runs])


def sharpness(problem: Problem, w: Tensor, depth: Tensor | float = 2.0) -> Tensor:
    """The largest eigenvalue of the Hessian of F, [*runs]; nan where w is not finite.

    All eigenvalues of a dense matrix for d up to `DENSE`, Lanczos above.

    Args:
        problem: the data, shared or with the same run dimensions; of any loss.
        w: (w_+, w_-), [2, *runs, d]; at another depth than 2 the layers (u, v) > 0 themselves.
        depth: D of theta = u^D - v^D, a number or [*runs, 1]; 2.0 is theta = u v.

    >>> problem = Problem(X=[[1.0, 0.0]], y=[1.0])
    >>> w = torch.tensor([[2.0, 0.1], [2.0, 0.1]], dtype=torch.float64)  # u = (2, 0.1), v = 0
    >>> round(float(sharpness(problem, w)), 4)  # of ((0, -1), (-1, 4))
    4.2361
    """
    shape, d = w.shape[1:-1], w.shape[-1]
    theta, slopes, bends = Layers.of(w, depth)
    layers = Layers(theta.reshape(-1, d), slopes.reshape(2, -1, d), bends.reshape(2, -1, d))
    X = problem.X
    if X.ndim > 2:
        X = X.expand(*shape, *X.shape[-2:]).reshape(-1, *X.shape[-2:])
    of_rows = (problem.residual_weights(theta), _row_curvature(problem, theta))
    slope, curved = (rows.expand(*shape, -1).reshape(-1, problem.n) for rows in of_rows)
    found = w.new_full((len(layers.theta),), torch.nan)
    defined = (layers.slopes.isfinite().all(0) & layers.bends.isfinite().all(0)).all(-1)
    defined &= slope.isfinite().all(-1) & curved.isfinite().all(-1)
    at_once = max(1, DENSE_ENTRIES // (4 * d * d)) if d <= DENSE else 1
    for runs in defined.nonzero().squeeze(-1).split(at_once):
        of_runs = X[runs] if X.ndim > 2 else X
        gradient = apply(of_runs.mT, slope[runs]) / problem.n
        part = _Hessian(of_runs, curved[runs] / problem.n, gradient, layers.runs(runs))
        found[runs] = part.largest_of_all() if d <= DENSE else part.by_lanczos()
    return found.reshape(shape)


def sharpness_threshold(
    gamma: Any, beta: Any, *, nesterov: bool = False, weight_decay: Any = 0.0, decoupled: Any = 0.0
) -> Any:
    """The sharpness above which a step of the method is unstable on a quadratic.

    2 (1 + beta)/gamma of heavy ball, 2 (1 + beta)/(gamma (1 + 2 beta)) of Nesterov's; coupled decay
    omega takes omega off, and decoupled decay eta makes it (2 - eta) (1 + beta)/gamma
    (docs/theory.md#sharpness).

    >>> round(sharpness_threshold(0.01, 0.9), 9)
    380.0
    """
    if nesterov:
        return 2 * (1 + beta) / (gamma * (1 + 2 * beta)) - weight_decay
    return (2 - decoupled) * (1 + beta) / gamma - weight_decay


def batch_sharpness(
    problem: Problem, w: Tensor, weights: Tensor | None = None, depth: Tensor | float = 2.0
) -> Tensor:
    """The curvature of batch losses along their own gradients, in the mean over batches, [R].

        mean over B of <grad F_B, (Hessian of F_B) grad F_B> / ||grad F_B||^2

    (Andreyev and Beneventano, arXiv 2412.20553.) For the full batch it is the curvature of F along
    its gradient, at most the sharpness. Batches without a gradient are left out.

    Args:
        problem: the data, shared by the R runs or one for each of them; of any loss.
        w: (w_+, w_-), [2, R, d]; at another depth than 2 the layers (u, v).
        weights: of the rows in M batches, ``grad L_B = X^T (weights l')/n``, [M, 1, n]
            or [M, R, n]; None for the full batch.
        depth: D, a number or [R, 1].
    """
    theta, slopes, bends = Layers.of(w, depth)
    slope, curved = problem.residual_weights(theta), _row_curvature(problem, theta)
    rows = slope.new_ones(1, 1, problem.n) if weights is None else weights.to(slope)
    gradient = apply(problem.X.mT, rows * slope) / problem.n
    x = gradient * slopes[:, None]
    along = apply(problem.X, (slopes[:, None] * x).sum(0))
    # <x, H_B x> = sum_j weight_j l''_j (X S^T x)_j^2/n + <grad L_B, sum_i bend_i x_i^2>
    rounds = (rows * curved * along.square()).sum(-1) / problem.n
    rounds = rounds + (gradient * (bends[:, None] * x.square()).sum(0)).sum(-1)
    size = x.square().sum((0, -1))
    return torch.where(size > 0, rounds / size, torch.nan).nanmean(0)


def _row_curvature(problem: Problem, theta: Tensor) -> Tensor:
    """l''(p, y) of each row, [*runs, n]."""
    return problem.loss_of_row.curvature(apply(problem.X, theta), problem.y)


class _Hessian(NamedTuple):
    """diag(bends grad L) + S X^T diag(rows) X S^T of R runs, in the coordinates of `Layers`."""

    X: Tensor
    """[n, d], or [R, n, d]"""
    rows: Tensor
    """l''/n, [R, n]"""
    gradient: Tensor
    """[R, d]"""
    layers: Layers

    def largest_of_all(self) -> Tensor:
        """The largest of all eigenvalues of the matrices, [R]."""
        S = torch.cat([*self.layers.slopes], -1)
        A = self.X.mT @ (self.rows[..., None] * self.X)
        A = torch.cat([torch.cat([A, A], -1), torch.cat([A, A], -1)], -2)
        diagonal = torch.cat([*(self.layers.bends * self.gradient)], -1)
        matrix = S.unsqueeze(-1) * A * S.unsqueeze(-2) + torch.diag_embed(diagonal)
        return torch.linalg.eigvalsh(matrix)[:, -1]

    def by_lanczos(self) -> float:
        """The largest eigenvalue of the one run."""
        one = (self.X if self.X.ndim == 2 else self.X[0], self.rows[0], self.gradient[0])
        X, rows, gradient = (value.cpu().numpy() for value in one)
        slopes, bends = (x[:, 0].cpu().numpy() for x in self.layers[1:])

        def product(x: np.ndarray) -> np.ndarray:
            pair = x.reshape(slopes.shape)
            pushed = X.T @ (rows * (X @ (slopes * pair).sum(0)))
            return (slopes * pushed + gradient * bends * pair).ravel()

        operator = LinearOperator((slopes.size,) * 2, matvec=product, dtype=np.float64)  # type: ignore[call-overload]
        # a start of its own: ARPACK's is drawn from a generator that is not seeded
        first = np.abs(slopes).ravel() + 1e-3 * np.abs(slopes).max()
        options: dict[str, Any] = {"v0": first, "tol": LANCZOS_TOLERANCE}
        found = eigsh(operator, 1, which="LA", return_eigenvectors=False, **options)
        return float(found[0])
