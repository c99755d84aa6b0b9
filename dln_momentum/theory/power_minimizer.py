"""The minimiser that training at depth D > 2 selects, by Newton's method on the dual."""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.errors import raise_if_any
from dln_momentum.row_space import RowSpace, apply, vector_norm, weighted_solution
from dln_momentum.theory.depth import (
    log_gap,
    mirror_coordinate,
    power_of,
    predictor_at,
    scale_errors,
)
from dln_momentum.theory.dual_newton import CHORD, HALVINGS, STRETCH, basis_of, relative_norm
from dln_momentum.theory.minimizers import CHUNK_ENTRIES, Minimizer, flatten, solver_errors

_GAP = 1e-4
"""What a step leaves of the way to the boundary of the domain: theta grows by a power of it."""
_RESOLVED = 1e-3
"""Least chord, over theta, whose slope is better than the derivative: below it they agree to about
this fraction, and the chord loses digits."""


def power_minimizer(
    row_space: RowSpace,
    target: Tensor,
    scale: Tensor,
    log_init: Tensor | None = None,
    *,
    depth: Tensor | float,
    tol: float = 1e-13,
    max_iterations: int = 200,
) -> Minimizer:
    r"""The interpolator closest to h_A(c) in the divergence of H_A, for each run.

    .. math:: \theta = \operatorname{argmin} \{ D_{H_A}(\theta, h_A(c)) : V\theta = b \}
        = h_A(c + V^\top\nu)

    (docs/theory.md#depth). nu minimises the dual
    ``sum_i m/2 [(A_i - z_i)^(-2/m) + (A_i + z_i)^(-2/m)] + <nu, b>``, ``z = c + V^T nu``, which is
    finite where |z| < A; every step stays inside. What is carried from step to step is the
    coordinate r of `dln_momentum.theory.depth`, so that the distance of z to the boundary, on which
    large entries of theta depend, keeps its digits.

    Args:
        row_space: the row space, with V [r, d], or [*runs, r, d].
        target: b, [*runs, r].
        scale: A, finite and positive, broadcasts to [*runs, d].
        log_init: c with |c| < A, broadcasts to [*runs, d]; 0 by default.
        depth: D > 2, a number or [*runs, 1].
        tol: relative residual of V theta = b that counts as converged.
        max_iterations: Newton steps at most.

    Returns:
        The minimisers, with z = c + V^T nu. A run that fails is not ``converged``.

    Raises:
        InputError: for A, c, D, ``tol`` or ``max_iterations`` out of range, or shapes that do not
            fit.

    >>> rows = RowSpace.of(torch.tensor([[1.0, 1.0, 2.0]], dtype=torch.float64))
    >>> b = rows.target(torch.tensor([2.0], dtype=torch.float64))
    >>> A = torch.tensor([[1e4], [1.0], [1e-4]], dtype=torch.float64)  # A = alpha^-1
    >>> power_minimizer(rows, b, A, depth=3.0).theta
    tensor([[7.7...e-12, 7.7...e-12, 1.0000e+00],
            [3.2...e-01, 3.2...e-01, 6.7...e-01],
            [3.3333e-01, 3.3333e-01, 6.6667e-01]], dtype=torch.float64)
    """
    log_init = torch.zeros_like(scale) if log_init is None else log_init
    D = torch.atleast_1d(torch.as_tensor(depth, dtype=scale.dtype, device=scale.device))
    p = torch.as_tensor(power_of(D))
    vectors = {"target": target, "scale": scale, "log_init": log_init, "depth": D}
    raise_if_any(
        [*solver_errors(row_space, tol, max_iterations, **vectors), *scale_errors(scale, log_init)]
    )
    runs, basis, (b,), (A, c, D, p) = flatten(row_space.basis, [target], scale, log_init, D, p)
    size = max(1, CHUNK_ENTRIES // basis.shape[-2:].numel())
    chunks = (slice(i, i + size) for i in range(0, max(len(b), 1), size))
    parts = [
        _solve(basis_of(basis, i), b[i], A[i], c[i], D[i], p[i], tol, max_iterations)
        for i in chunks
    ]
    r, residual, iterations = (torch.cat(part) for part in zip(*parts, strict=True))
    return Minimizer(
        theta=predictor_at(r, A, D).reshape(*runs, r.shape[-1]),
        nu=apply(basis, -A * torch.tanh(r) - c).reshape(*runs, row_space.rank),
        residual=residual.reshape(runs),
        converged=(residual <= tol).reshape(runs),
        iterations=iterations.reshape(runs),
    )


def _solve(
    basis: Tensor,
    b: Tensor,
    A: Tensor,
    c: Tensor,
    D: Tensor,
    p: Tensor,
    tol: float,
    max_iterations: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Newton's method: the best r, its residual and the steps taken."""
    r = torch.atanh(-c / A)
    best_r, best = r.clone(), torch.full_like(r[:, 0], torch.inf)
    iterations = torch.zeros_like(best, dtype=torch.int64)
    active = torch.arange(len(r), device=r.device)
    for k in range(max_iterations + 1):
        theta = predictor_at(r, A, D)
        slack = b - apply(basis, theta)
        residual = relative_norm(slack, b, theta)
        # one step beyond the tolerance squares the error
        going = torch.isfinite(residual) & ~(best[active] <= tol)
        better = residual < best[active]
        best_r[active[better]], best[active[better]] = r[better], residual[better]
        if k == max_iterations or not bool(going.any()):
            break
        if not bool(going.all()):
            basis = basis_of(basis, going)
            active, r, theta, slack, b, A, D, p = (
                t[going] for t in (active, r, theta, slack, b, A, D, p)
            )
        r = _newton_step(basis, r, theta, slack, b, A, D, p, stretch=k % 2 == 1)
        iterations[active] += 1
    return best_r, best, iterations


def _newton_step(
    basis: Tensor,
    r: Tensor,
    theta: Tensor,
    slack: Tensor,
    b: Tensor,
    A: Tensor,
    D: Tensor,
    p: Tensor,
    *,
    stretch: bool,
) -> Tensor:
    """r after a step in y = -z = A tanh r, in which theta increases."""
    size = vector_norm(slack)
    weights = _slope(r, theta.abs(), CHORD * size, A, D, p)
    step, decrement = weighted_solution(basis, weights, slack)
    # y stays in (-A, A): below, the distances to both ends as fractions of the step
    upper, lower = _gaps(r, A)
    reach = torch.where(step > 0, upper / step, -lower / step)
    reach = torch.where(step == 0, torch.inf, reach).amin(-1)
    far = size > 2 * vector_norm(b)
    first, gap = torch.where(far & stretch, STRETCH, 1.0).to(r.dtype), torch.full_like(size, _GAP)
    moved, pending = r.clone(), torch.arange(len(r), device=r.device)
    # along the step the dual has the slope <theta(y + t step) - theta(y), step> - decrement
    for _ in range(HALVINGS):
        inside = (1 - gap) * reach
        t = torch.minimum(first, inside)[pending]
        there = _moved(r[pending], t[:, None] * step[pending], upper[pending], lower[pending])
        moved[pending] = there
        ahead = predictor_at(there, A[pending], D[pending])
        slope = ((ahead - theta[pending]) * step[pending]).sum(-1) / decrement[pending] - 1
        pending = pending[~(slope <= torch.where(t > 1, 0.0, 0.5))]
        if len(pending) == 0:
            break
        # theta is a power of the gap: half as many decades of it, or half the length
        first = torch.where(first <= inside, first / 2, first)
        gap = gap.sqrt()
    return moved


def _gaps(r: Tensor, A: Tensor) -> tuple[Tensor, Tensor]:
    """A - y and A + y of y = A tanh r."""
    return A * torch.exp(-log_gap(r)), A * torch.exp(-log_gap(-r))


def _moved(r: Tensor, step: Tensor, upper: Tensor, lower: Tensor) -> Tensor:
    """The r of y + step; the gaps to the ends of the domain keep their relative accuracy."""
    return r + (torch.log1p(step / lower) - torch.log1p(-step / upper)) / 2


def _slope(r: Tensor, size: Tensor, reach: Tensor, A: Tensor, D: Tensor, p: Tensor) -> Tensor:
    """Slope of |theta| against |y| over a chord of length ``reach`` in theta; see `minimizers`."""
    size_r, reach = r.abs(), reach[:, None].expand_as(r)
    upper, lower = _gaps(size_r, A)
    log_A = torch.log(A)
    powers = torch.exp(p * (log_gap(size_r) - log_A)), torch.exp(p * (log_gap(-size_r) - log_A))
    derivative = p * (powers[0] / upper + powers[1] / lower)
    end = mirror_coordinate(size + reach, A, D)
    # A (tanh end - tanh r)
    rise = upper * -torch.expm1(log_gap(size_r) - log_gap(end))
    chord = torch.where(rise > 0, reach / torch.where(rise > 0, rise, 1.0), derivative)
    return torch.where(reach > _RESOLVED * size, torch.maximum(chord, derivative), derivative)
