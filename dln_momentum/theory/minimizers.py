"""The Bregman minimiser, the interpolator that training selects, by Newton's method on the dual."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dln_momentum.arrays import broadcast_shapes
from dln_momentum.errors import raise_if_any
from dln_momentum.row_space import (
    RowSpace,
    apply,
    binary_centre,
    binary_scale,
    vector_norm,
    weighted_solution,
)
from dln_momentum.theory.entropy import checked_balancedness

CHUNK_ENTRIES = 2**20
"""Matrix entries of the runs that are solved together; it bounds the memory."""
CHORD = 0.03
"""Length of the chord whose slope replaces the curvature, over the residual; see `_chord_slope`."""
STRETCH = 16.0
"""First multiple of a step that is tried where theta has to shrink by orders of magnitude."""
HALVINGS = 60
_LARGEST = 2.0**1000
"""Largest Delta/2 that is not rescaled: a sum of a few of them does not overflow."""
_NEAR = 0.1
"""Largest relative residual at which ``near`` replaces the cold start."""


@dataclass(frozen=True)
class Minimizer:
    """The Bregman minimiser of each run, and how well it was found."""

    theta: Tensor
    """The minimiser, [*runs, d]."""
    nu: Tensor
    """The dual variable, [*runs, r]: arcsinh(2 theta/Delta) = c + V^T nu."""
    residual: Tensor
    """||V theta - b|| over the larger of ||b|| and ||theta||, [*runs]; infinite for NaN inputs."""
    converged: Tensor
    """Whether the residual is within the tolerance, boolean [*runs]."""
    iterations: Tensor
    """Newton steps taken, integer [*runs]."""


def bregman_minimizer(
    row_space: RowSpace,
    target: Tensor,
    balancedness: Tensor,
    log_init: Tensor | None = None,
    *,
    near: Tensor | None = None,
    tol: float = 1e-13,
    max_iterations: int = 200,
) -> Minimizer:
    r"""The interpolator closest to the perturbed initialisation, for each run.

    .. math:: \theta = \operatorname{argmin} \{ D_{\psi_\Delta}(\theta, \tilde\theta_0) :
        V\theta = b \}, \qquad c = \operatorname{arcsinh}(2\tilde\theta_0/\Delta)

    (docs/theory.md#minimiser and docs/theory.md#dual; poster, sections 3, 4 and 6). Its dual has
    one unknown for each row of V:

    .. math:: \min_\nu \sum_i \tfrac{\Delta_i}{2} \cosh(c_i + (V^\top\nu)_i)
        - \langle\nu, b\rangle, \qquad \theta = \tfrac{\Delta}{2} \sinh(c + V^\top\nu)

    theta has this form to rounding of its logarithm, so only the residual of V theta = b needs a
    tolerance. It is relative to the larger of the norms of b and theta, since c may force a large
    theta. The initialisation is given as c because theta~_0 itself can overflow. Coordinates of
    theta below 1e-16 of the largest are not resolved, and b is not checked to come from labels in
    the range of X.

    Args:
        row_space: the row space, with V [r, d], or [*runs, r, d] for one problem per run.
        target: b, [*runs, r].
        balancedness: Delta, finite and positive, broadcasts to [*runs, d].
        log_init: c, broadcasts to [*runs, d]; 0 by default.
        near: initial guess of theta, broadcasts to [*runs, d]. The minimiser is unique, so it
            changes only the time; a bad guess is ignored.
        tol: relative residual that counts as converged.
        max_iterations: Newton steps at most.

    Returns:
        The minimisers. A run that fails, or has NaN in b or c, is not ``converged``, and does not
        affect the other runs.

    Raises:
        InputError: if Delta is not finite and positive, shapes do not fit, or ``tol`` or
            ``max_iterations`` is not positive.

    >>> rows = RowSpace.of(torch.tensor([[1.0, 1.0, 2.0]], dtype=torch.float64))
    >>> b = rows.target(torch.tensor([2.0], dtype=torch.float64))
    >>> delta = torch.tensor([[1e-30], [1e-3], [1e3]], dtype=torch.float64)
    >>> bregman_minimizer(rows, b, delta).theta
    tensor([[5.0000e-16, 5.0000e-16, 1.0000e+00],
            [1.5...e-02, 1.5...e-02, 9.8...e-01],
            [3.3333e-01, 3.3333e-01, 6.6667e-01]], dtype=torch.float64)
    """
    vectors = {"target": target, "balancedness": balancedness, "log_init": log_init, "near": near}
    raise_if_any(solver_errors(row_space, tol, max_iterations, **vectors))
    half = checked_balancedness(balancedness) / 2
    log_init = torch.zeros_like(half) if log_init is None else log_init
    guess = half.new_full(half.shape[-1:], torch.nan) if near is None else near
    runs, basis, b, (half, c, guess) = flatten(row_space.basis, target, half, log_init, guess)
    # (b, Delta) -> (k b, k Delta) scales theta by k: keep sums of a few entries in range
    unit = (half.amax(-1, keepdim=True) / _LARGEST).clamp(min=1.0)
    b, half, guess = b / unit, half / unit, guess / unit
    size = max(1, CHUNK_ENTRIES // basis.shape[-2:].numel())
    chunks = (slice(i, i + size) for i in range(0, max(len(b), 1), size))
    parts = [
        _solve(basis_of(basis, i), b[i], half[i], c[i], guess[i], tol, max_iterations)
        for i in chunks
    ]
    z, residual, iterations = (torch.cat(part) for part in zip(*parts, strict=True))
    return Minimizer(
        theta=_predictor(z, half * unit).reshape(*runs, z.shape[-1]),
        nu=apply(basis, z - c).reshape(*runs, row_space.rank),
        residual=residual.reshape(runs),
        converged=(residual <= tol).reshape(runs),
        iterations=iterations.reshape(runs),
    )


def solver_errors(
    row_space: RowSpace, tol: float, max_iterations: int, **vectors: Tensor | None
) -> Iterator[str]:
    """Errors in the arguments of a minimiser; all vectors but ``target`` are [*runs, d]."""
    if not tol > 0:
        yield f"tol = {tol} must be > 0"
    if max_iterations < 1:
        yield f"max_iterations = {max_iterations} must be >= 1"
    r, d = row_space.basis.shape[-2:]
    runs = {"basis": tuple(row_space.basis.shape[:-2])}
    for name, vector in vectors.items():
        if vector is None:
            continue
        shape, length = tuple(vector.shape), r if name == "target" else d
        runs[name] = shape[:-1]
        if not shape or shape[-1] not in ((r,) if name == "target" else (1, d)):
            yield f"{name} of shape {shape} must be [*runs, {length}]"
    try:
        broadcast_shapes(*runs.values())
    except ValueError:
        yield f"the run dimensions {runs} must broadcast"


def flatten(
    basis: Tensor, target: Tensor, *of_coordinates: Tensor
) -> tuple[torch.Size, Tensor, Tensor, list[Tensor]]:
    """The shape of the runs, and the inputs with the runs along one axis."""
    r, d = basis.shape[-2:]
    leading = [t.shape[:-1] for t in (target, *of_coordinates)]
    runs = broadcast_shapes(*leading, basis.shape[:-2])
    if basis.ndim > 2:
        basis = basis.expand(*runs, r, d).reshape(-1, r, d)
    flat = [t.expand(*runs, d).reshape(-1, d) for t in of_coordinates]
    return runs, basis, target.expand(*runs, r).reshape(-1, r), flat


def basis_of(basis: Tensor, index: slice | Tensor) -> Tensor:
    """The matrices of some runs; a shared one is that of all."""
    return basis if basis.ndim == 2 else basis[index]


def _solve(
    basis: Tensor,
    b: Tensor,
    half: Tensor,
    c: Tensor,
    guess: Tensor,
    tol: float,
    max_iterations: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Newton's method: the best z = c + V^T nu, its residual and the steps taken."""
    z = _start(basis, b, half, c, guess)
    best_z, best = z.clone(), torch.full_like(z[:, 0], torch.inf)
    iterations = torch.zeros_like(best, dtype=torch.int64)
    active = torch.arange(len(z), device=z.device)
    for k in range(max_iterations + 1):
        theta = _predictor(z, half)
        slack = b - apply(basis, theta)
        residual = relative_norm(slack, b, theta)
        # one step beyond the tolerance squares the error
        going = torch.isfinite(residual) & ~(best[active] <= tol)
        better = residual < best[active]
        best_z[active[better]], best[active[better]] = z[better], residual[better]
        if k == max_iterations or not bool(going.any()):
            break
        if not bool(going.all()):
            basis = basis_of(basis, going)
            active, z, theta, slack, b, half = (
                t[going] for t in (active, z, theta, slack, b, half)
            )
        # if every step were stretched, coordinates where sinh is linear would always overshoot
        z = _newton_step(basis, z, theta, slack, b, half, stretch=k % 2 == 1)
        iterations[active] += 1
    return best_z, best, iterations


def _predictor(z: Tensor, half: Tensor) -> Tensor:
    """Delta/2 sinh(z), finite wherever it can be."""
    return 2 * half * torch.sinh(z / 2) * torch.cosh(z / 2)


def relative_norm(slack: Tensor, b: Tensor, theta: Tensor) -> Tensor:
    """||slack|| over the larger of ||b|| and ||theta||."""
    scale = torch.maximum(vector_norm(b), vector_norm(theta))
    return vector_norm(slack) / torch.where(scale == 0, 1.0, scale)


def _start(basis: Tensor, b: Tensor, half: Tensor, c: Tensor, guess: Tensor) -> Tensor:
    """The guess projected to the form c + V^T nu, or `_cold_start` where its residual is large."""
    away = torch.asinh(guess / half) - c
    z = c + apply(basis.mT, apply(basis, away))
    theta = _predictor(z, half)
    near = relative_norm(b - apply(basis, theta), b, theta) < _NEAR
    if not bool(near.all()):
        far = ~near
        z[far] = _cold_start(basis_of(basis, far), b[far], half[far], c[far])
    return z


def _cold_start(basis: Tensor, b: Tensor, half: Tensor, c: Tensor) -> Tensor:
    """The solution with sinh replaced by its chord up to the size theta may have."""
    reach = torch.maximum(vector_norm(b), 2 * half.amax(-1))
    slope = _chord_slope(torch.zeros_like(half), half, reach)
    return c + weighted_solution(basis, slope, b - apply(basis, slope * c))[0]


def _newton_step(
    basis: Tensor,
    z: Tensor,
    theta: Tensor,
    slack: Tensor,
    b: Tensor,
    half: Tensor,
    *,
    stretch: bool,
) -> Tensor:
    size = vector_norm(slack)
    weights = _chord_slope(theta.abs(), half, CHORD * size)
    # if Delta spans many decades the decrement underflows: weights and slack are kept in units
    units = binary_centre(weights), binary_scale(slack)
    step, decrement = weighted_solution(basis, weights / units[0], slack / units[1])
    # far above the solution a Newton step reduces exp by a factor e at most: try a longer step
    far = size > 2 * vector_norm(b)
    first = torch.where(far & stretch, STRETCH, 1.0).to(z.dtype)
    scale = units[1] / units[0]
    return z + _step_length(z, step, scale, theta / units[1], half / units[1], decrement, first)


def _chord_slope(size: Tensor, half: Tensor, reach: Tensor) -> Tensor:
    """Slope of |theta| against |z| over a chord of length ``reach`` instead of its derivative.

    The derivative sqrt(theta^2 + Delta^2/4) does not see that the exponential grows: for Delta =
    1e-30 it is 1e-30 until the coordinate is active. The slope of the chord is at least
    reach/asinh(reach/Delta), and tends to the derivative as the residual vanishes.
    """
    reach = reach[:, None]
    end = size + reach
    # weights first: a product of two sizes may overflow
    mean = (end / (end + size)) * torch.hypot(size, half) + (size / (end + size)) * torch.hypot(
        end, half
    )
    ratio = (reach / mean).clamp(min=1e-150)
    # where the ratio overflows, its arcsinh is the logarithm of twice the ratio
    large = reach / (math.log(2) + reach.log() - mean.log())
    return torch.where(ratio.isfinite(), mean * (ratio / torch.asinh(ratio)), large)


def _step_length(
    z: Tensor,
    step: Tensor,
    scale: Tensor,
    theta: Tensor,
    half: Tensor,
    decrement: Tensor,
    first: Tensor,
) -> Tensor:
    """The step times a length, halved until the slope of the dual at its end is small enough.

    Along the step the dual has the slope <theta(z + t step) - theta(z), step> - decrement, which
    is -decrement at t = 0. At the end of a step of length t <= 1 it may be half the decrement; at
    the end of a stretched step it must not be positive.

    Args:
        step, decrement: in units in which the slack has norm about 1.
        scale: the unit of the step, [*runs, 1].
        theta, half: in units of the slack.
    """
    length, pending = first.clone(), torch.arange(len(z), device=z.device)
    whole = step * scale
    for _ in range(HALVINGS):
        t = length[pending]
        ahead = _predictor(z[pending] + t[:, None] * whole[pending], half[pending])
        slope = ((ahead - theta[pending]) * step[pending]).sum(-1) / decrement[pending] - 1
        pending = pending[~(slope <= torch.where(t > 1, 0.0, 0.5))]
        if len(pending) == 0:
            break
        length[pending] /= 2
    return length[:, None] * whole
