"""The interpolators of least l1 and of least weighted l2 norm, the limits of the minimisers."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor

from dln_momentum.arrays import broadcast_shapes
from dln_momentum.errors import InputError
from dln_momentum.row_space import RowSpace, weighted_solution

_RANGE_TOLERANCE = 1e-8
"""Largest distance of labels from the range of X, over their norm."""
_SUPPORT_TOLERANCE = 1e-7
"""Tolerance of the linear program: smaller coordinates are 0 unless X theta = y needs them."""
_FIT_TOLERANCE = 1e-12


def basis_pursuit(X: Tensor, y: Tensor) -> Tensor:
    r"""The interpolator of least l1 norm, the limit of the minimisers as Delta tends to zero.

    .. math:: \operatorname{argmin} \{ \|\theta\|_1 : X\theta = y \}

    (docs/theory.md#potentials; poster, section 3). Each run is a linear program in the positive and
    negative parts, solved by the simplex method of HiGHS. The vertex is then recomputed from its
    support, so that X theta = y to rounding; the l1 norm is within a relative 1e-6 of the least.

    The minimiser is not unique if a coordinate outside the support has \|<x_i, nu>\| = 1 for the
    dual solution nu (columns equal up to sign, or data on a grid; with probability 0 for continuous
    data). Then one vertex of the set of minimisers is returned; the limit of the Bregman minimisers
    is another point of that set.

    Args:
        X: design matrix, [n, d] or [*runs, n, d].
        y: labels, [*runs, n].

    Returns:
        The vertex, [*runs, d], with at most rank(X) nonzero entries; NaN for labels that are NaN
        and where the linear program fails.

    Raises:
        InputError: if ``y`` is outside the range of ``X``, or shapes do not fit.

    >>> X = torch.tensor([[1.0, 1.0, 3.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    >>> basis_pursuit(X, torch.tensor([6.0, 2.0], dtype=torch.float64))
    tensor([0., 0., 2.], dtype=torch.float64)
    """
    rows, target = _interpolation(X, y)
    basis = rows.basis.expand(*target.shape[:-1], -1, -1).reshape(-1, *rows.basis.shape[-2:])
    flat = target.reshape(-1, target.shape[-1])
    pairs = zip(basis.cpu().numpy(), flat.cpu().numpy(), strict=True)
    theta = np.array([_vertex(V, b) for V, b in pairs])
    return torch.from_numpy(theta).to(target).reshape(*target.shape[:-1], X.shape[-1])


def is_unique(X: Tensor, y: Tensor, theta: Tensor) -> Tensor:
    r"""Whether an interpolator of least l1 norm is the only one.

    It is if and only if the columns of its support S are independent and some nu has

    .. math:: X_S^\top \nu = \operatorname{sign}(\theta_S), \qquad \|X_{S^c}^\top \nu\|_\infty < 1

    (Zhang, Yin and Cheng, *Necessary and sufficient conditions of solution uniqueness in 1-norm
    minimization*, J. Optim. Theory Appl. 164, 2015). The nu of least norm is tried first; where it
    does not show it, the one with the least maximum is a linear program.

    Args:
        X: design matrix, [n, d] or [*runs, n, d].
        y: labels, [*runs, n].
        theta: `basis_pursuit` of them, [*runs, d].

    Returns:
        Booleans, [*runs]; False for a theta that is not finite.

    >>> X = torch.tensor([[1.0, 1.0, 3.0], [0.0, 1.0, 1.0]], dtype=torch.float64)
    >>> y = torch.tensor([6.0, 2.0], dtype=torch.float64)
    >>> is_unique(X, y, basis_pursuit(X, y)), is_unique(X[:, [2, 2]], y, torch.tensor([2.0, 0.0]))
    (tensor(True), tensor(False))
    """
    rows, _ = _interpolation(X, y)
    basis = rows.basis.expand(*theta.shape[:-1], -1, -1).reshape(-1, *rows.basis.shape[-2:])
    pairs = zip(basis.cpu().numpy(), theta.reshape(-1, X.shape[-1]).cpu().numpy(), strict=True)
    return torch.tensor([_is_unique(V, t) for V, t in pairs]).reshape(theta.shape[:-1])


def least_norm(X: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""The interpolator of least weighted l2 norm, the limit of the minimisers for large Delta.

    .. math:: \operatorname{argmin} \Big\{ \sum_i \theta_i^2 / w_i : X\theta = y \Big\}
        = W V^\top (V W V^\top)^{-1} b

    (docs/theory.md#potentials; poster, section 3): w is the balancedness, up to a factor.

    Args:
        X: design matrix, [n, d] or [*runs, n, d], of any rank.
        y: labels, [*runs, n].
        weights: w, finite and positive, broadcasts to [*runs, d]; ones by default.

    Returns:
        The interpolator, [*runs, d].

    Raises:
        InputError: if ``y`` is outside the range of ``X``, ``weights`` is not finite and positive,
            or shapes do not fit.

    >>> X = torch.tensor([[1.0, 1.0]], dtype=torch.float64)
    >>> y = torch.tensor([4.0], dtype=torch.float64)
    >>> least_norm(X, y), least_norm(X, y, torch.tensor([3.0, 1.0], dtype=torch.float64))
    (tensor([2.0000, 2.0000], dtype=torch.float64), tensor([3.0000, 1.0000], dtype=torch.float64))
    """
    rows, target = _interpolation(X, y)
    if weights is None:
        return rows.span(target)
    if not bool(((weights > 0) & torch.isfinite(weights)).all()):
        raise InputError("weights must be finite and > 0 in every entry")
    runs = _runs("weights", weights, X.shape[-1], target.shape[:-1])
    weights = weights.expand(*runs, X.shape[-1])
    target = target.expand(*runs, -1)
    theta = weights * weighted_solution(rows.basis, weights, target)[0]
    # one step of refinement reduces the residual to rounding
    slack = target - rows.coordinates(theta)
    return theta + weights * weighted_solution(rows.basis, weights, slack)[0]


def _interpolation(X: Tensor, y: Tensor) -> tuple[RowSpace, Tensor]:
    rows = RowSpace.of(X)
    _runs("y", y, X.shape[-2], X.shape[:-2])
    if bool(y.isinf().any()):
        raise InputError("y must not have infinite entries")
    distance = rows.range_residual(y)
    if bool((distance > _RANGE_TOLERANCE).any()):
        far = float(distance.max())
        raise InputError(
            f"y at {far:.1e} from the range of X must be within {_RANGE_TOLERANCE:.0e} of it"
        )
    return rows, rows.target(y)


def _runs(name: str, tensor: Tensor, length: int, runs: torch.Size) -> torch.Size:
    """The common run dimensions of a tensor [*runs, length] and of other tensors."""
    try:
        if tensor.shape[-1:] == (length,):
            return broadcast_shapes(tensor.shape[:-1], runs)
    except ValueError:
        pass
    shape = [*runs, length]
    raise InputError(f"{name} of shape {tuple(tensor.shape)} must broadcast to {shape}")


def _vertex(V: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    scale, d = np.abs(b).max(), V.shape[1]
    if not scale > 0:
        return np.full(d, scale)
    # the simplex method returns a vertex; scaled, since the tolerances of HiGHS are absolute
    kept = V.any(axis=1)
    solution = linprog(
        np.ones(2 * d), A_eq=np.hstack([V, -V])[kept], b_eq=b[kept] / scale, method="highs-ds"
    )
    if solution.status != 0:
        return np.full(d, np.nan)
    parts = solution.x[:d] - solution.x[d:]
    for tolerance in (_SUPPORT_TOLERANCE, 0.0):
        theta = _on_support(V, b, np.abs(parts) > tolerance * np.abs(parts).max())
        if np.linalg.norm(V @ theta - b) <= _FIT_TOLERANCE * np.linalg.norm(b):
            break
    return theta


def _on_support(
    V: NDArray[np.float64], b: NDArray[np.float64], support: NDArray[np.bool_]
) -> NDArray[np.float64]:
    theta = np.zeros(V.shape[1])
    theta[support] = np.linalg.lstsq(V[:, support], b, rcond=None)[0]
    return theta


def _is_unique(V: NDArray[np.float64], theta: NDArray[np.float64]) -> bool:
    if not np.isfinite(theta).all():
        return False
    on = theta != 0
    inside, outside, sign = V[:, on], V[:, ~on], np.sign(theta[on])
    nu, _, rank, _ = np.linalg.lstsq(inside.T, sign, rcond=None)
    if rank < on.sum():
        return False
    if outside.size == 0 or np.abs(outside.T @ nu).max() < 1 - _SUPPORT_TOLERANCE:
        return True
    if rank == np.linalg.matrix_rank(V):
        return False  # there is no other nu
    # the least t with |V_j^T nu| <= t outside the support
    r, m = outside.shape
    ones = np.ones((m, 1))
    solution = linprog(
        np.append(np.zeros(r), 1.0),
        A_ub=np.block([[outside.T, -ones], [-outside.T, -ones]]), b_ub=np.zeros(2 * m),
        A_eq=np.hstack([inside.T, np.zeros((inside.shape[1], 1))]), b_eq=sign,
        bounds=(None, None), method="highs",
    )  # fmt: skip
    return bool(solution.status == 0 and solution.fun < 1 - _SUPPORT_TOLERANCE)
