"""The Bregman minimiser, the interpolator that training selects, by Newton's method on the dual."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dln_momentum.arrays import broadcast_shapes
from dln_momentum.errors import raise_if_any
from dln_momentum.row_space import RowSpace, apply
from dln_momentum.theory.dual_newton import basis_of, predictor, solve
from dln_momentum.theory.entropy import checked_balancedness
from dln_momentum.theory.newton_systems import NewtonSystems

CHUNK_ENTRIES = 2**20
"""Matrix entries of the runs that are solved together; it bounds the memory."""
_VECTORS = 16
"""Vectors of length d that the solver holds for a run."""
_LARGEST = 2.0**1000
"""Largest Delta/2 that is not rescaled: a sum of a few of them does not overflow."""


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
            z, residual, iterations = solve(
                systems, b[i] / unit[i], half[i], c[i], near, tol, max_iterations
            )
            parts[k].append((z, residual, iterations))
            before = torch.where((residual <= tol)[:, None], predictor(z, half[i]), near)
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
        theta=predictor(z, half).reshape(*runs, z.shape[-1]),
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
