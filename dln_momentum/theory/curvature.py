r"""The Hessian of F in closed form, its largest eigenvalue, and batch sharpness.

(docs/theory.md#curvature; not on the poster.) With w = (u, v), theta = u v and A = X^T X/n,

.. math:: \nabla^2 F = \begin{pmatrix} V A V & U A V + \operatorname{diag}(\nabla L) \\
          V A U + \operatorname{diag}(\nabla L) & U A U \end{pmatrix}^{(\top)},
          \qquad U = \operatorname{diag}(u),\ V = \operatorname{diag}(v).

In the orthonormal coordinates w_+-/sqrt(2) it is ``diag(+-grad L) + D A D^T/2`` with D the matrix
(diag(w_+), -diag(w_-)) stacked: the same eigenvalues. The sharpness is the largest of them. Heavy
ball is stable on a quadratic of curvature h for ``h < 2 (1 + beta)/gamma``; a flow has no bound.
"""

from __future__ import annotations

from typing import Any

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
    """The Hessian of F in (u, v), [*runs, 2d, 2d].

    Args:
        problem: the data, shared or with the same run dimensions.
        w: (w_+, w_-), [2, *runs, d].

    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> w = torch.tensor([[1.0, 1.0], [1.0, 1.0]], dtype=torch.float64)  # u = 1, v = 0
    >>> hessian(problem, w)[:2, 2:].tolist()
    [[-2.0, 0.0], [0.0, -4.0]]
    """
    u, v = (w[0] + w[1]) / 2, (w[0] - w[1]) / 2
    A = problem.X.mT @ problem.X / problem.n
    gradient = torch.diag_embed(problem.gradient(theta_of(w)))
    rows = torch.cat([v, u], -1)
    blocks = torch.cat([torch.cat([A, A], -1), torch.cat([A, A], -1)], -2)
    none = torch.zeros_like(gradient)
    cross = torch.cat([torch.cat([none, gradient], -1), torch.cat([gradient, none], -1)], -2)
    return rows.unsqueeze(-1) * blocks * rows.unsqueeze(-2) + cross


def hessian_product(problem: Problem, w: Tensor, x: Tensor) -> Tensor:
    """The Hessian of F in (u, v) times x = (x_u, x_v), [2, *runs, d] each."""
    u, v = (w[0] + w[1]) / 2, (w[0] - w[1]) / 2
    gradient = problem.gradient(theta_of(w))
    pushed = apply(problem.X.mT, apply(problem.X, v * x[0] + u * x[1])) / problem.n
    return torch.stack([v * pushed + gradient * x[1], u * pushed + gradient * x[0]])


def sharpness(problem: Problem, w: Tensor) -> Tensor:
    """The largest eigenvalue of the Hessian of F, [*runs]; nan where w is not finite.

    All eigenvalues of a dense matrix for d up to `DENSE`, Lanczos on `hessian_product` above.

    Args:
        problem: the data, shared or with the same run dimensions.
        w: (w_+, w_-), [2, *runs, d].

    >>> problem = Problem(X=[[1.0, 0.0]], y=[1.0])
    >>> w = torch.tensor([[2.0, 0.1], [2.0, 0.1]], dtype=torch.float64)  # u = (2, 0.1), v = 0
    >>> round(float(sharpness(problem, w)), 4)  # of ((0, -1), (-1, 4))
    4.2361
    """
    shape, d = w.shape[1:-1], w.shape[-1]
    flat = w.reshape(2, -1, d)
    X, y = (
        value.expand(*shape, *value.shape[-core:]).reshape(-1, *value.shape[-core:])
        if value.ndim > core
        else value
        for value, core in ((problem.X, 2), (problem.y, 1))
    )
    found = w.new_full((flat.shape[1],), torch.nan)
    finite = flat.isfinite().all(0).all(-1).nonzero().squeeze(-1)
    at_once = max(1, DENSE_ENTRIES // (4 * d * d)) if d <= DENSE else 1
    for runs in finite.split(at_once):
        data = _Data(X[runs] if X.ndim > 2 else X, y[runs] if y.ndim > 1 else y)
        part = flat[:, runs]
        if d <= DENSE:
            found[runs] = torch.linalg.eigvalsh(data.rotated_hessian(part))[:, -1]
        else:
            found[runs] = _by_lanczos(data, part)
    return found.reshape(shape)


def sharpness_threshold(gamma: Any, beta: Any) -> Any:
    """2 (1 + beta)/gamma, the sharpness above which heavy ball is unstable on a quadratic.

    >>> round(sharpness_threshold(0.01, 0.9), 9)
    380.0
    """
    return 2 * (1 + beta) / gamma


def batch_sharpness(problem: Problem, w: Tensor, weights: Tensor | None = None) -> Tensor:
    """The curvature of batch losses along their own gradients, in the mean over batches, [R].

        mean over B of <grad F_B, (Hessian of F_B) grad F_B> / ||grad F_B||^2

    (Andreyev and Beneventano, arXiv 2412.20553.) For the full batch it is the curvature of F along
    its gradient, at most the sharpness. Batches without a gradient are left out.

    Args:
        problem: the data, shared by the R runs or one for each of them.
        w: (w_+, w_-), [2, R, d].
        weights: of the rows in M batches, ``grad L_B = X^T (weights (X theta - y))/n``, [M, 1, n]
            or [M, R, n]; None for the full batch.
    """
    u, v = (w[0] + w[1]) / 2, (w[0] - w[1]) / 2
    residual = problem.residual(theta_of(w))
    rows = residual.new_ones(1, 1, problem.n) if weights is None else weights.to(residual)
    gradient = apply(problem.X.mT, rows * residual) / problem.n
    x = torch.stack([gradient * v, gradient * u])
    along = apply(problem.X, v * x[0] + u * x[1])
    # <x, H_B x> = sum_j weight_j (X (v x_u + u x_v))_j^2/n + 2 <grad L_B, x_u x_v>
    curved = (rows * along.square()).sum(-1) / problem.n + 2 * (gradient * x[0] * x[1]).sum(-1)
    size = x.square().sum((0, -1))
    return torch.where(size > 0, curved / size, torch.nan).nanmean(0)


class _Data:
    """X and y of some runs, whose closed forms need no check."""

    def __init__(self, X: Tensor, y: Tensor) -> None:
        self.X, self.y, self.n = X, y, X.shape[-2]

    def gradient(self, theta: Tensor) -> Tensor:
        return apply(self.X.mT, apply(self.X, theta) - self.y) / self.n

    def rotated_hessian(self, w: Tensor) -> Tensor:
        """In the coordinates w_+-/sqrt(2), [R, 2d, 2d]."""
        gradient = self.gradient(theta_of(w))
        D = torch.cat([w[0], -w[1]], -1)
        A = self.X.mT @ self.X / (2 * self.n)
        blocks = torch.cat([torch.cat([A, A], -1), torch.cat([A, A], -1)], -2)
        diagonal = torch.cat([gradient, -gradient], -1)
        return D.unsqueeze(-1) * blocks * D.unsqueeze(-2) + torch.diag_embed(diagonal)


def _by_lanczos(data: _Data, w: Tensor) -> float:
    """The largest eigenvalue of one run, w [2, 1, d]."""
    X = (data.X[0] if data.X.ndim > 2 else data.X).cpu().numpy()
    gradient = data.gradient(theta_of(w))[0].cpu().numpy()
    D = np.stack([w[0, 0].cpu().numpy(), -w[1, 0].cpu().numpy()])
    d = D.shape[-1]

    def product(x: np.ndarray) -> np.ndarray:
        pair = x.reshape(2, d)
        pushed = X.T @ (X @ (D * pair).sum(0)) / (2 * data.n)
        return (D * pushed + np.stack([gradient * pair[0], -gradient * pair[1]])).ravel()

    operator = LinearOperator((2 * d, 2 * d), matvec=product, dtype=np.float64)  # type: ignore[call-overload]
    # a start of its own: ARPACK's is drawn from a generator that is not seeded
    first = np.abs(D).ravel() + 1e-3 * np.abs(D).max()
    options: dict[str, Any] = {"v0": first, "tol": LANCZOS_TOLERANCE}
    found = eigsh(operator, 1, which="LA", return_eigenvectors=False, **options)
    return float(found[0])
