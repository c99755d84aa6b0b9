"""The Bregman minimiser, the interpolator that training selects, by Newton's method on the dual."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

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
)
from dln_momentum.theory.entropy import checked_balancedness
from dln_momentum.theory.newton_systems import NewtonSystems

CHUNK_ENTRIES = 2**20
"""Matrix entries of the runs that are solved together; it bounds the memory."""
_VECTORS = 16
"""Vectors of length d that the solver holds for a run."""
ACCURACY = (1e-4, 1e-1)
"""Error of a step over the step, in the energy norm: least, near the solution, and largest."""
_FINAL = 1e-2
"""The residual over the tolerance below which no further step is made."""
CHORD = 0.03
"""Length of the chord whose slope replaces the curvature, over the residual; see `_chord_slope`."""
STRETCH = 16.0
"""First multiple of a step that is tried where theta has to shrink by orders of magnitude."""
HALVINGS = 60
_LARGEST = 2.0**1000
"""Largest Delta/2 that is not rescaled: a sum of a few of them does not overflow."""
_EXPONENT = 700.0
"""Arguments of sinh below it do not overflow."""
_KEPT = 1e-3
"""Relative residual below which the orthogonal projection of a guess is good enough."""
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
    case = Case(target, log_init, near)
    return bregman_minimizers(
        row_space, balancedness, [case], tol=tol, max_iterations=max_iterations
    )[0]


class Case(NamedTuple):
    """The arguments of `bregman_minimizer` of that name."""

    target: Tensor
    log_init: Tensor | None = None
    near: Tensor | None = None


def bregman_minimizers(
    row_space: RowSpace,
    balancedness: Tensor,
    cases: Sequence[Case],
    *,
    tol: float = 1e-13,
    max_iterations: int = 200,
) -> list[Minimizer]:
    """`bregman_minimizer` of several cases of one Delta, which share factorisations.

    Args:
        row_space, balancedness, tol, max_iterations: as there.
        cases: where one has no ``near``, the search starts at the minimiser of the case before.

    Raises:
        InputError: as there.
    """
    half = checked_balancedness(balancedness) / 2
    unknown = half.new_full(half.shape[-1:], torch.nan)
    vectors: list[Tensor] = [half]
    for case in cases:
        given = case._asdict() | {"balancedness": balancedness}
        raise_if_any(solver_errors(row_space, tol, max_iterations, **given))
        vectors.append(torch.zeros_like(half) if case.log_init is None else case.log_init)
        vectors.append(unknown if case.near is None else case.near)
    runs, basis, targets, (half, *vectors) = flatten(
        row_space.basis, [case.target for case in cases], *vectors
    )
    inits, guesses = vectors[::2], vectors[1::2]
    # (b, Delta) -> (k b, k Delta) scales theta by k: keep sums of a few entries in range
    unit = (half.amax(-1, keepdim=True) / _LARGEST).clamp(min=1.0)
    half = half / unit
    r, d = basis.shape[-2:]
    size = max(1, min(CHUNK_ENTRIES // (_VECTORS * d), 16 * CHUNK_ENTRIES // (r * r)))
    parts: list[list[tuple[Tensor, Tensor, Tensor]]] = [[] for _ in cases]
    for i in (slice(i, i + size) for i in range(0, max(len(half), 1), size)):
        systems, before = NewtonSystems(basis_of(basis, i), half[i], CHUNK_ENTRIES), None
        for k, (b, c, guess) in enumerate(zip(targets, inits, guesses, strict=True)):
            near = guess[i] / unit[i] if before is None or cases[k].near is not None else before
            z, residual, iterations = _solve(
                systems, b[i] / unit[i], half[i], c[i], near, tol, max_iterations
            )
            parts[k].append((z, residual, iterations))
            before = torch.where((residual <= tol)[:, None], _predictor(z, half[i]), near)
    return [
        _joined(basis, half * unit, c, found, runs, tol)
        for found, c in zip(parts, inits, strict=True)
    ]


def _joined(
    basis: Tensor,
    half: Tensor,
    c: Tensor,
    found: Sequence[tuple[Tensor, Tensor, Tensor]],
    runs: torch.Size,
    tol: float,
) -> Minimizer:
    """The minimisers of all runs, from the z, residual and steps of their chunks."""
    z, residual, iterations = (torch.cat(part) for part in zip(*found, strict=True))
    return Minimizer(
        theta=_predictor(z, half).reshape(*runs, z.shape[-1]),
        nu=apply(basis, z - c).reshape(*runs, basis.shape[-2]),
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
    basis: Tensor, targets: Sequence[Tensor], *of_coordinates: Tensor
) -> tuple[torch.Size, Tensor, list[Tensor], list[Tensor]]:
    """The shape of the runs, and the inputs with the runs along one axis."""
    r, d = basis.shape[-2:]
    leading = [t.shape[:-1] for t in (*targets, *of_coordinates)]
    runs = broadcast_shapes(*leading, basis.shape[:-2])
    if basis.ndim > 2:
        basis = basis.expand(*runs, r, d).reshape(-1, r, d)
    flat = [t.expand(*runs, d).reshape(-1, d) for t in of_coordinates]
    return runs, basis, [b.expand(*runs, r).reshape(-1, r) for b in targets], flat


def basis_of(basis: Tensor, index: slice | Tensor) -> Tensor:
    """The matrices of some runs; a shared one is that of all."""
    return basis if basis.ndim == 2 else basis[index]


def _solve(
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
    theta = _predictor(z, half)
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


def _predictor(z: Tensor, half: Tensor) -> Tensor:
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
    theta = _predictor(z, half)
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
    found = _predictor(end, half)
    pending = _too_far(found, theta, step, units[1], decrement, length).nonzero().squeeze(-1)
    for _ in range(HALVINGS):
        if len(pending) == 0:
            break
        length = length.clone()
        length[pending] /= 2
        end[pending] = z[pending] + length[pending] * whole[pending]
        found[pending] = _predictor(end[pending], half[pending])
        all_of = (found, theta, step, units[1], decrement, length)
        pending = pending[_too_far(*(x[pending] for x in all_of))]
    return end, found


def _too_far(
    found: Tensor, theta: Tensor, step: Tensor, unit: Tensor, decrement: Tensor, length: Tensor
) -> Tensor:
    """Whether the slope of the dual at the end of a step is too large, [A]."""
    slope = ((found - theta) / unit * step).sum(-1) / decrement - 1
    return ~(slope <= torch.where(length.squeeze(-1) > 1, 0.0, 0.5))
