"""Newton's method on the dual of the Bregman minimiser, for the runs of one chunk."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from dln_momentum.row_space import apply, binary_centre, binary_scale, vector_norm
from dln_momentum.theory.newton_systems import NewtonSystems

ACCURACY = (1e-4, 1e-1)
"""Error of a step over the step, in the energy norm: least, near the solution, and largest."""
_FINAL = 1e-2
"""The residual over the tolerance below which no further step is made."""
CHORD = 0.03
"""Length of the chord whose slope replaces the curvature, over the residual; see `_chord_slope`."""
STRETCH = 16.0
"""First multiple of a step that is tried where theta has to shrink by orders of magnitude."""
HALVINGS = 60
_EXPONENT = 700.0
"""Arguments of sinh below it do not overflow."""
_KEPT = 1e-3
"""Relative residual below which the orthogonal projection of a guess is good enough."""
_NEAR = 0.1
"""Largest relative residual at which ``near`` replaces the cold start."""


def basis_of(basis: Tensor, index: slice | Tensor) -> Tensor:
    """The matrices of some runs; a shared one is that of all."""
    return basis if basis.ndim == 2 else basis[index]


def solve(
    systems: NewtonSystems,
    b: Tensor,
    half: Tensor,
    c: Tensor,
    guess: Tensor,
    tol: float,
    max_iterations: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Newton's method: the best z = c + V^T nu, its residual and the steps taken."""
    basis, accurate = systems.basis, tol * _FINAL
    z = _start(systems, b, half, c, guess)
    theta = predictor(z, half)
    best_z, best = z.clone(), torch.full_like(z[:, 0], torch.inf)
    iterations = torch.zeros_like(best, dtype=torch.int64)
    active = torch.arange(len(z), device=z.device)
    for k in range(max_iterations + 1):
        slack = b - apply(basis, theta)
        residual = relative_norm(slack, b, theta)
        # one step beyond the tolerance squares the error
        done = (best[active] <= tol) | (residual <= accurate)
        going = torch.isfinite(residual) & ~done
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
        z, theta = _newton_step(systems, active, z, theta, slack, b, half, stretch=k % 2 == 1)
        iterations[active] += 1
    return best_z, best, iterations


def predictor(z: Tensor, half: Tensor) -> Tensor:
    """Delta/2 sinh(z), finite wherever it can be."""
    theta = half * torch.sinh(z)
    inside = z.abs() < _EXPONENT
    if bool(inside.all()):
        return theta
    return torch.where(inside, theta, 2 * half * torch.sinh(z / 2) * torch.cosh(z / 2))


def relative_norm(slack: Tensor, b: Tensor, theta: Tensor) -> Tensor:
    """||slack|| over the larger of ||b|| and ||theta||."""
    scale = torch.maximum(vector_norm(b), vector_norm(theta))
    return vector_norm(slack) / torch.where(scale == 0, 1.0, scale)


def _start(systems: NewtonSystems, b: Tensor, half: Tensor, c: Tensor, guess: Tensor) -> Tensor:
    """The z of the guess, brought to the form c + V^T nu, or `_cold_start` where it is bad.

    The form is reached by a projection: the cheap orthogonal one, or, where that moves theta, the
    one in the norm of the slopes of theta, which keeps V theta to first order.
    """
    basis = systems.basis
    away = torch.asinh(guess / half) - c
    z = c + apply(basis.mT, apply(basis, away))
    residual = _residual(basis, z, b, half)
    moved = (~(residual < _KEPT) & torch.isfinite(away).all(-1)).nonzero().squeeze(-1)
    if len(moved):
        slopes, V = torch.hypot(guess[moved], half[moved]), basis_of(basis, moved)
        here = _nearest(systems, moved, V, slopes, away[moved]) + c[moved]
        found = _residual(V, here, b[moved], half[moved])
        better = ~(found >= residual[moved])
        z[moved[better]], residual[moved[better]] = here[better], found[better]
    far = (~(residual < _NEAR)).nonzero().squeeze(-1)
    if len(far):
        z[far] = _cold_start(systems, far, basis_of(basis, far), b[far], half[far], c[far])
    return z


def _residual(basis: Tensor, z: Tensor, b: Tensor, half: Tensor) -> Tensor:
    theta = predictor(z, half)
    return relative_norm(b - apply(basis, theta), b, theta)


def _nearest(
    systems: NewtonSystems, runs: Tensor, basis: Tensor, weights: Tensor, vector: Tensor
) -> Tensor:
    """The vector of the row space with the V W x of another."""
    return _solved(systems, runs, weights, apply(basis, weights * vector))


def _solved(systems: NewtonSystems, runs: Tensor, weights: Tensor, rhs: Tensor) -> Tensor:
    units = binary_centre(weights), binary_scale(rhs)
    step, _ = systems.solve(
        runs, weights / units[0], rhs / units[1], torch.full_like(rhs[:, 0], ACCURACY[0])
    )
    return step * (units[1] / units[0])


def _cold_start(
    systems: NewtonSystems, runs: Tensor, basis: Tensor, b: Tensor, half: Tensor, c: Tensor
) -> Tensor:
    """The solution with sinh replaced by its chord up to the size theta may have."""
    reach = torch.maximum(vector_norm(b), 2 * half.amax(-1))
    slope = _chord_slope(torch.zeros_like(half), half, reach)
    return c + _solved(systems, runs, slope, b - apply(basis, slope * c))


def _newton_step(
    systems: NewtonSystems,
    runs: Tensor,
    z: Tensor,
    theta: Tensor,
    slack: Tensor,
    b: Tensor,
    half: Tensor,
    *,
    stretch: bool,
) -> tuple[Tensor, Tensor]:
    """z and theta after a step."""
    size = vector_norm(slack)
    # one step squares the residual: more accuracy than that is lost
    accuracy = (size / torch.maximum(vector_norm(b), vector_norm(theta))).clamp(*ACCURACY)
    weights = _chord_slope(theta.abs(), half, CHORD * size)
    # if Delta spans many decades the decrement underflows: weights and slack are kept in units
    units = binary_centre(weights), binary_scale(slack)
    step, decrement = systems.solve(runs, weights / units[0], slack / units[1], accuracy)
    # far above the solution a Newton step reduces exp by a factor e at most: try a longer step
    far = size > 2 * vector_norm(b)
    first = torch.where(far & stretch, STRETCH, 1.0).to(z.dtype)
    scales = units[1] / units[0], units[1]
    return _moved(z, step, scales, theta, half, decrement, first)


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
    if bool((ratio < 1e-8).all()):
        return mean  # ratio/asinh(ratio) is 1 to rounding
    slope = mean * (ratio / torch.asinh(ratio))
    finite = ratio.isfinite()
    if bool(finite.all()):
        return slope
    # where the ratio overflows, its arcsinh is the logarithm of twice the ratio
    return torch.where(finite, slope, reach / (math.log(2) + reach.log() - mean.log()))


def _moved(
    z: Tensor,
    step: Tensor,
    units: tuple[Tensor, Tensor],
    theta: Tensor,
    half: Tensor,
    decrement: Tensor,
    first: Tensor,
) -> tuple[Tensor, Tensor]:
    """z and theta after a step whose length is halved until the slope of the dual is small enough.

    Along the step the dual has the slope <theta(z + t step) - theta(z), step> - decrement, which
    is -decrement at t = 0. At the end of a step of length t <= 1 it may be half the decrement; at
    the end of a stretched step it must not be positive.

    Args:
        step, decrement: in units in which the slack has norm about 1.
        units: of the step and of the slack, [*runs, 1] each.
        first: the length that is tried first, [*runs].
    """
    whole, length = step * units[0], first[:, None]
    end = z + length * whole
    found = predictor(end, half)
    pending = _too_far(found, theta, step, units[1], decrement, length).nonzero().squeeze(-1)
    for _ in range(HALVINGS):
        if len(pending) == 0:
            break
        length = length.clone()
        length[pending] /= 2
        end[pending] = z[pending] + length[pending] * whole[pending]
        found[pending] = predictor(end[pending], half[pending])
        all_of = (found, theta, step, units[1], decrement, length)
        pending = pending[_too_far(*(x[pending] for x in all_of))]
    return end, found


def _too_far(
    found: Tensor, theta: Tensor, step: Tensor, unit: Tensor, decrement: Tensor, length: Tensor
) -> Tensor:
    """Whether the slope of the dual at the end of a step is too large, [A]."""
    slope = ((found - theta) / unit * step).sum(-1) / decrement - 1
    return ~(slope <= torch.where(length.squeeze(-1) > 1, 0.0, 0.5))
