"""The interpolators at the two ends of the potential: least l1 and least weighted l2 norm."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linprog
from torch import Tensor

from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.row_space import RowSpace, weighted_solution

# Labels further than this from the range of X, relative to their norm, have no interpolator.
_RANGE_TOLERANCE = 1e-8
# The linear program is solved to 1e-7: coordinates below are off the support unless X theta = y
# needs them.
_SUPPORT_TOLERANCE = 1e-7
_FIT_TOLERANCE = 1e-12


def basis_pursuit(X: Tensor, y: Tensor) -> Tensor:
    r"""The interpolator of least l1 norm, the limit of the minimisers as Delta tends to zero.

    .. math:: \operatorname{argmin} \{ \|\theta\|_1 : X\theta = y \}

    (docs/theory.md#potentials; poster, section 3). Solved as a linear program in the positive and
    negative parts by the simplex method of HiGHS, one run after the other; the
    vertex is then recomputed from its support, so that X theta = y to rounding. The l1 norm is
    within a relative 1e-6 of the least one.

    The minimiser is not unique when a coordinate outside the support attains
    \|<x_i, nu>\| = 1 for the dual solution nu (columns equal up to sign, or data on a grid; never,
    with probability one, for continuous data). Then one vertex of the set of minimisers is
    returned, while the limit of the Bregman minimisers is another of its points.

    Args:
        X: Design matrix, [n, d] or [*runs, n, d].
        y: Labels, [*runs, n].

    Returns:
        The vertex, [*runs, d], with at most rank(X) nonzero entries; NaN for labels that are NaN
        and where the linear program fails.

    Raises:
        InputError: If ``y`` is outside the range of ``X``, or shapes do not fit.

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


def least_norm(X: Tensor, y: Tensor, weights: Tensor | None = None) -> Tensor:
    r"""The interpolator of least weighted l2 norm, the limit of the minimisers for large Delta.

    .. math:: \operatorname{argmin} \Big\{ \sum_i \theta_i^2 / w_i : X\theta = y \Big\}
        = W V^\top (V W V^\top)^{-1} b

    (docs/theory.md#potentials; poster, section 3): w is the balancedness, up to a factor.

    Args:
        X: Design matrix, [n, d] or [*runs, n, d], of any rank.
        y: Labels, [*runs, n].
        weights: w, finite and positive, broadcasts to [*runs, d]; ones where left out.

    Returns:
        The interpolator, [*runs, d].

    Raises:
        InputError: If ``y`` is outside the range of ``X``, ``weights`` is not finite and positive,
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
        raise_if_any(["weights must be finite and > 0 in every entry"])
    runs = _runs("weights", weights, X.shape[-1], target.shape[:-1])
    weights = weights.expand(*runs, X.shape[-1])
    target = target.expand(*runs, -1)
    theta = weights * weighted_solution(rows.basis, weights, target)[0]
    # One step of refinement takes the residual from the accuracy of the solution to rounding.
    slack = target - rows.coordinates(theta)
    return theta + weights * weighted_solution(rows.basis, weights, slack)[0]


def _interpolation(X: Tensor, y: Tensor) -> tuple[RowSpace, Tensor]:
    rows = RowSpace.of(X)
    _runs("y", y, X.shape[-2], X.shape[:-2])
    if bool(y.isinf().any()):
        raise_if_any(["y must not have infinite entries"])
    distance = rows.range_residual(y)
    if bool((distance > _RANGE_TOLERANCE).any()):
        far = float(distance.max())
        raise_if_any(
            [f"y at {far:.1e} from the range of X must be within {_RANGE_TOLERANCE:.0e} of it"]
        )
    return rows, rows.target(y)


def _runs(name: str, tensor: Tensor, length: int, runs: torch.Size) -> torch.Size:
    """The run dimensions of a tensor [*runs, length] and of others together."""
    try:
        if tensor.shape[-1:] == (length,):
            return torch.broadcast_shapes(tensor.shape[:-1], runs)
    except RuntimeError:
        pass
    shape = [*runs, length]
    raise InputError([f"{name} of shape {tuple(tensor.shape)} must broadcast to {shape}"])


def _vertex(V: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    scale, d = np.abs(b).max(), V.shape[1]
    if not scale > 0:
        return np.full(d, scale)
    # Simplex, for a vertex; scaled, since the tolerances of HiGHS are absolute.
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
