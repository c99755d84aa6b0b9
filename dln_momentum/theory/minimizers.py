"""The interpolator that training selects: the Bregman minimiser, by Newton's method on the dual."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

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

# Entries of the stacked matrices worked on at once, whatever the number of runs.
_CHUNK_ENTRIES = 2**20
# The curvature is that of a chord of this length relative to the residual: see _chord_slope.
_REACH = 0.03
# A step is tried at this multiple where theta has to shrink by orders of magnitude.
_STRETCH = 16.0
_HALVINGS = 60
# The largest Delta/2 that is worked with as it is: a few of them still add up to a number.
_LARGEST = 2.0**1000
# The relative residual up to which a guess is a better start than none.
_NEAR = 0.1


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

    theta has that form by construction, to the rounding of its logarithm, so that the residual is
    all that is left to judge. It is relative to the larger of the norms of b and theta, since a c
    far from the mirror image of every interpolator of moderate size forces a large theta. The
    initialisation comes as c because theta~_0 itself can overflow.

    It does not judge whether b came from labels in the range of X, and it cannot resolve
    coordinates of theta below 1e-16 of the largest.

    Args:
        row_space: The row space, with V [r, d], or [*runs, r, d] for one problem a run.
        target: b, [*runs, r].
        balancedness: Delta, finite and positive, broadcasts to [*runs, d].
        log_init: c, broadcasts to [*runs, d]; zero where left out.
        near: Where to look first, broadcasts to [*runs, d]. The minimiser is unique, so that this
            changes the time alone; it is passed over where it is of no help.
        tol: The relative residual that counts as converged.
        max_iterations: Newton steps before a run is given up.

    Returns:
        The minimisers. A run that fails, or has NaN in b or c, is not ``converged``; it does not
        affect its neighbours.

    Raises:
        InputError: If ``balancedness`` is not finite and positive, if shapes do not fit, or if
            ``tol`` or ``max_iterations`` is not positive.

    >>> rows = RowSpace.of(torch.tensor([[1.0, 1.0, 2.0]], dtype=torch.float64))
    >>> b = rows.target(torch.tensor([2.0], dtype=torch.float64))
    >>> delta = torch.tensor([[1e-30], [1e-3], [1e3]], dtype=torch.float64)
    >>> bregman_minimizer(rows, b, delta).theta
    tensor([[5.0000e-16, 5.0000e-16, 1.0000e+00],
            [1.5...e-02, 1.5...e-02, 9.8...e-01],
            [3.3333e-01, 3.3333e-01, 6.6667e-01]], dtype=torch.float64)
    """
    raise_if_any(_faults(row_space, target, balancedness, log_init, near, tol, max_iterations))
    half = checked_balancedness(balancedness) / 2
    log_init = torch.zeros_like(half) if log_init is None else log_init
    guess = half.new_full(half.shape[-1:], torch.nan) if near is None else near
    runs, basis, b, half, c, guess = _flatten(row_space.basis, target, half, log_init, guess)
    # (b, Delta) -> (k b, k Delta) scales theta: sums of a few entries stay in range
    unit = (half.amax(-1, keepdim=True) / _LARGEST).clamp(min=1.0)
    b, half, guess = b / unit, half / unit, guess / unit
    size = max(1, _CHUNK_ENTRIES // basis.shape[-2:].numel())
    chunks = [slice(i, i + size) for i in range(0, max(len(b), 1), size)]
    parts = [
        _solve(
            _part(basis, chunk), b[chunk], half[chunk], c[chunk], guess[chunk], tol, max_iterations
        )
        for chunk in chunks
    ]
    z, residual, iterations = (torch.cat(part) for part in zip(*parts, strict=True))
    return Minimizer(
        theta=_predictor(z, half * unit).reshape(*runs, z.shape[-1]),
        nu=apply(basis, z - c).reshape(*runs, row_space.rank),
        residual=residual.reshape(runs),
        converged=(residual <= tol).reshape(runs),
        iterations=iterations.reshape(runs),
    )


def _faults(
    row_space: RowSpace,
    target: Tensor,
    balancedness: Tensor,
    log_init: Tensor | None,
    near: Tensor | None,
    tol: float,
    max_iterations: int,
) -> Iterator[str]:
    if not tol > 0:
        yield f"tol = {tol} must be > 0"
    if max_iterations < 1:
        yield f"max_iterations = {max_iterations} must be >= 1"
    r, d = row_space.basis.shape[-2:]
    shapes = {
        "target": (target.shape, (r,)),
        "balancedness": (balancedness.shape, (1, d)),
        "log_init": ((1,) if log_init is None else log_init.shape, (1, d)),
        "near": ((d,) if near is None else near.shape, (d,)),
    }
    for name, (shape, allowed) in shapes.items():
        if len(shape) < 1 or shape[-1] not in allowed:
            yield f"{name} of shape {tuple(shape)} must be [*runs, {allowed[-1]}]"
    runs = {name: tuple(shape[:-1]) for name, (shape, _) in shapes.items()}
    runs["basis"] = tuple(row_space.basis.shape[:-2])
    try:
        torch.broadcast_shapes(*runs.values())
    except RuntimeError:
        yield f"the run dimensions {runs} must broadcast"


def _flatten(
    basis: Tensor, target: Tensor, *of_coordinates: Tensor
) -> tuple[torch.Size, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The shape of the runs, and the inputs with the runs along one axis."""
    r, d = basis.shape[-2:]
    leading = [t.shape[:-1] for t in (target, *of_coordinates)]
    runs = torch.broadcast_shapes(*leading, basis.shape[:-2])
    if basis.ndim > 2:
        basis = basis.expand(*runs, r, d).reshape(-1, r, d)
    half, c, guess = (t.expand(*runs, d).reshape(-1, d) for t in of_coordinates)
    return runs, basis, target.expand(*runs, r).reshape(-1, r), half, c, guess


def _part(basis: Tensor, index: slice | Tensor) -> Tensor:
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
        residual = _relative_norm(slack, b, theta)
        # One step beyond the tolerance squares the error for the price of one step.
        going = torch.isfinite(residual) & ~(best[active] <= tol)
        better = residual < best[active]
        best_z[active[better]], best[active[better]] = z[better], residual[better]
        if k == max_iterations or not bool(going.any()):
            break
        if not bool(going.all()):
            basis = _part(basis, going)
            active, z, theta, slack, b, half = (
                t[going] for t in (active, z, theta, slack, b, half)
            )
        # Stretching every step would let the coordinates where sinh is linear overshoot for ever.
        z = _newton_step(basis, z, theta, slack, b, half, stretch=k % 2 == 1)
        iterations[active] += 1
    return best_z, best, iterations


def _predictor(z: Tensor, half: Tensor) -> Tensor:
    """Delta/2 sinh(z), finite wherever it can be."""
    return 2 * half * torch.sinh(z / 2) * torch.cosh(z / 2)


def _relative_norm(slack: Tensor, b: Tensor, theta: Tensor) -> Tensor:
    scale = torch.maximum(vector_norm(b), vector_norm(theta))
    return vector_norm(slack) / torch.where(scale == 0, 1.0, scale)


def _start(basis: Tensor, b: Tensor, half: Tensor, c: Tensor, guess: Tensor) -> Tensor:
    """The guess, brought to the form c + V^T nu; where that is far off, `_cold_start`."""
    away = torch.asinh(guess / half) - c
    z = c + apply(basis.mT, apply(basis, away))
    theta = _predictor(z, half)
    near = _relative_norm(b - apply(basis, theta), b, theta) < _NEAR
    if not bool(near.all()):
        far = ~near
        z[far] = _cold_start(_part(basis, far), b[far], half[far], c[far])
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
    weights = _chord_slope(theta.abs(), half, _REACH * size)
    # Where Delta spans many decades the decrement itself may underflow: both are kept in units.
    units = binary_centre(weights), binary_scale(slack)
    step, decrement = weighted_solution(basis, weights / units[0], slack / units[1])
    # Far above the solution exp falls by e a step at best: there a long step pays.
    far = size > 2 * vector_norm(b)
    first = torch.where(far & stretch, _STRETCH, 1.0).to(z.dtype)
    scale = units[1] / units[0]
    return z + _step_length(z, step, scale, theta / units[1], half / units[1], decrement, first)


def _chord_slope(size: Tensor, half: Tensor, reach: Tensor) -> Tensor:
    """Slope of |theta| against |z| over the next ``reach`` instead of its derivative.

    The derivative sqrt(theta^2 + Delta^2/4) is blind to the wall that the exponential is: at a
    Delta of 1e-30 it is 1e-30 until the coordinate is active. The chord has a slope of at least
    reach/asinh(reach/Delta), and becomes the derivative as the residual vanishes.
    """
    reach = reach[:, None]
    end = size + reach
    # weights first: a product of two sizes may overflow
    mean = (end / (end + size)) * torch.hypot(size, half) + (size / (end + size)) * torch.hypot(
        end, half
    )
    ratio = (reach / mean).clamp(min=1e-150)
    # beyond float64 the arcsinh is the logarithm of twice its argument
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
    """The step times its length, which is halved until the dual no longer rises steeply along it.

    Along the step the dual has the slope <theta(z + t step) - theta(z), step> - decrement, which
    starts at -decrement. A stretched step has to be downhill all the way.

    Args:
        step, decrement: in units in which the slack is of size 1.
        scale: what the step is to be multiplied by, [*runs, 1].
        theta, half: in units of the slack.
    """
    length, pending = first.clone(), torch.arange(len(z), device=z.device)
    whole = step * scale
    for _ in range(_HALVINGS):
        t = length[pending]
        ahead = _predictor(z[pending] + t[:, None] * whole[pending], half[pending])
        slope = ((ahead - theta[pending]) * step[pending]).sum(-1) / decrement[pending] - 1
        pending = pending[~(slope <= torch.where(t > 1, 0.0, 0.5))]
        if len(pending) == 0:
            break
        length[pending] /= 2
    return length[:, None] * whole
