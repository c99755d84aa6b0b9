"""Potentials, minimisers and interpolators of a problem, for numbers, lists, arrays and tensors.

Each function computes in double precision and returns the kind it is given: a tensor if an argument
is a tensor, otherwise a NumPy array, or a float for a single number. Arguments broadcast: vectors
are [*S, d], and a number or [*S, 1] is the same value in every coordinate. `theory/` has the
formulas on tensors and row spaces.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dln_momentum.arrays import common_shape, integer_of, number_of, tensor_of
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.interface.arguments import checked
from dln_momentum.problem import Problem
from dln_momentum.start import Start
from dln_momentum.theory import (
    discrete_bias,
    entropy,
    interpolators,
    minimizers,
)
from dln_momentum.theory.power_minimizer import power_minimizer as solve_power

NO_PROBLEM = object()
"""The function is of vectors alone."""

SCALES = ("balancedness", "scale", "weights")
"""Arguments that other numbers are divided by, > 0."""

SMALLEST = 1e-290
"""The least of them, as of a start: quotients by a smaller one overflow, and a certificate of them
would say 0."""


def hyperbolic_entropy(theta: ArrayLike, balancedness: ArrayLike) -> Any:
    r"""The potential psi_Delta of which training minimises the divergence, shape S.

    .. math:: \psi_\Delta(\theta) = \tfrac14 \sum_i \Big(2\theta_i \operatorname{arcsinh}
        \frac{2\theta_i}{\Delta_i} - \sqrt{4\theta_i^2 + \Delta_i^2} + \Delta_i\Big)

    (docs/theory.md#potentials; poster, section 3.)

    Args:
        theta: predictor, [*S, d].
        balancedness: Delta > 0, [*S, d], [*S, 1] or a number.

    Raises:
        InputError: if an argument is not numeric, Delta is not finite and positive, or the shapes
            do not broadcast. The same holds for the functions below.

    >>> round(hyperbolic_entropy([1.0, -2.0], 0.02), 6)
    7.150604
    >>> hyperbolic_entropy([1.0, -2.0], [[0.02], [2.0]]).round(4).tolist()
    [7.1506, 1.0592]
    """
    return evaluated(entropy.hyperbolic_entropy, theta=theta, balancedness=balancedness)


def mirror_map(theta: ArrayLike, balancedness: ArrayLike) -> Any:
    """The gradient of psi_Delta, 1/2 arcsinh(2 theta/Delta), entry by entry.

    (docs/theory.md#potentials; poster, section 3.)

    >>> mirror_map([1.0, -2.0], 0.02).round(4).tolist()
    [2.6492, -2.9957]
    """
    return evaluated(entropy.mirror_map, theta=theta, balancedness=balancedness)


def inverse_mirror_map(z: ArrayLike, balancedness: ArrayLike) -> Any:
    """The predictor of a mirror image, Delta/2 sinh(2 z), entry by entry.

    >>> inverse_mirror_map(mirror_map([1.0, -2.0], 0.02), 0.02).round(12).tolist()
    [1.0, -2.0]
    """
    return evaluated(entropy.inverse_mirror_map, z=z, balancedness=balancedness)


def bregman_divergence(a: ArrayLike, b: ArrayLike, balancedness: ArrayLike) -> Any:
    r"""The Bregman divergence of psi_Delta between a and b, shape S; 0 only for a = b.

    .. math:: D_{\psi_\Delta}(a, b) = \psi_\Delta(a) - \psi_\Delta(b)
        - \langle \nabla\psi_\Delta(b), a - b \rangle

    (docs/theory.md#potentials; poster, section 3.) It keeps its digits for a close to b.

    >>> round(bregman_divergence([1.0, 2.0], [1.0, 1.0], 0.02), 6)
    0.193141
    """
    return evaluated(entropy.bregman_divergence, a=a, b=b, balancedness=balancedness)


def bregman_minimizer(
    problem: Problem,
    balancedness: ArrayLike,
    log_init: ArrayLike = 0.0,
    *,
    tol: float = 1e-13,
    max_iterations: int = 200,
) -> Any:
    r"""The interpolator that training with this Delta and perturbed initialisation selects.

    .. math:: \operatorname{argmin} \{ D_{\psi_\Delta}(\theta, \tilde\theta_0) : X\theta = y \},
        \qquad c = \operatorname{arcsinh}(2\tilde\theta_0/\Delta)

    (docs/theory.md#minimiser; poster, sections 3, 4 and 6), by Newton's method on the dual. Of a
    run, Delta and c at the end are ``run.certify().balancedness`` and ``.log_init``.

    Args:
        problem: the data.
        balancedness: Delta > 0, [*S, d], [*S, 1] or a number.
        log_init: c, of the same form; 0 is the initialisation 0.
        tol: relative residual of X theta = y that counts as converged.
        max_iterations: Newton steps at most.

    Returns:
        The minimisers, S + [d]; NaN where Newton's method has not converged.

    >>> problem = Problem(X=[[1, 1, 2]], y=[2])
    >>> bregman_minimizer(problem, 0.001).round(4).tolist()
    [0.0157, 0.0157, 0.9843]
    >>> bregman_minimizer(problem, [[1e-9], [1e3]]).round(4).tolist()
    [[0.0, 0.0, 1.0], [0.3333, 0.3333, 0.6667]]
    """
    tol, max_iterations = number_of("tol", tol), integer_of("max_iterations", max_iterations, 1)

    def solve(balancedness: Tensor, log_init: Tensor) -> Tensor:
        rows = problem.row_space
        found = minimizers.bregman_minimizer(
            rows, rows.target(problem.y), balancedness, log_init,
            tol=tol, max_iterations=max_iterations,
        )  # fmt: skip
        return torch.where(found.converged[..., None], found.theta, torch.nan)

    return evaluated(solve, problem, balancedness=balancedness, log_init=log_init)


def gradient_flow_limit(problem: Problem, start: Start | None = None) -> Any:
    """The limit of gradient flow, argmin {D_{psi_{Delta_0}}(., theta_0) : X theta = y}, S + [d].

    (docs/theory.md#gradient-flow; poster, section 3.)

    Args:
        problem: the data.
        start: the start; ``uniform(0.1)`` by default. Parameters of shape S give S + [d].

    >>> from dln_momentum.start import uniform
    >>> gradient_flow_limit(Problem(X=[[1, 1, 2]], y=[2]), uniform([0.01, 10])).round(4).tolist()
    [[0.007, 0.007, 0.993], [0.3333, 0.3333, 0.6667]]
    """
    start = checked(problem, start)
    if start.is_deep:
        raise InputError(
            f"start has depth = {start.depth}: gradient_flow_limit is of theta = u v, depth = 2; "
            "power_minimizer is the limit of others"
        )
    w_plus, w_minus = start.weights(problem.d)
    log_init = discrete_bias.log_init(w_plus, w_minus, *torch.zeros(2, 1, dtype=w_plus.dtype))
    return bregman_minimizer(problem, (w_plus * w_minus).abs().numpy(), log_init.numpy())


def basis_pursuit(problem: Problem) -> Any:
    """The interpolator of least l1 norm, the limit of the minimisers for Delta -> 0, [*runs, d].

    (docs/theory.md#potentials; poster, section 3.) A vertex of a linear program; see
    `dln_momentum.theory.interpolators.basis_pursuit` for data with several solutions.

    >>> basis_pursuit(Problem(X=[[1, 1, 3], [0, 1, 1]], y=[6, 2])).round(4).tolist()
    [0.0, 0.0, 2.0]
    """
    checked(problem, None)
    return interpolators.basis_pursuit(problem.X, problem.y).numpy()


def least_norm(problem: Problem, weights: ArrayLike = 1.0) -> Any:
    """The interpolator of least sum theta_i^2/w_i, the limit for large Delta = w, S + [d].

    (docs/theory.md#potentials; poster, section 3.)

    Args:
        problem: the data.
        weights: w > 0, [*S, d], [*S, 1] or a number, which does not change the result.

    >>> problem = Problem(X=[[1, 1]], y=[4])
    >>> least_norm(problem).round(4).tolist(), least_norm(problem, [3, 1]).round(4).tolist()
    ([2.0, 2.0], [3.0, 1.0])
    """
    return evaluated(
        lambda weights: interpolators.least_norm(problem.X, problem.y, weights),
        problem,
        weights=weights,
    )


def kkt_residual(
    problem: Problem, theta: ArrayLike, balancedness: ArrayLike, log_init: ArrayLike = 0.0
) -> Any:
    """The certificate: how far theta is from minimising D_{psi_Delta}(., theta~_0), shape S.

    The norm of the component of (arcsinh(2 theta/Delta) - c)/2 outside span(x_1..x_n), over the
    norm of the whole; 0 exactly at the minimiser over {X theta' = X theta}, converged or not
    (docs/theory.md#certificate; not on the poster).

    Args:
        problem: the data.
        theta: predictor, [*S, d].
        balancedness, log_init: Delta > 0 and c, [*S, d], [*S, 1] or a number.

    >>> problem = Problem(X=[[1, 1, 2]], y=[2])
    >>> kkt_residual(problem, bregman_minimizer(problem, 0.02), 0.02) < 1e-15
    True
    >>> round(kkt_residual(problem, basis_pursuit(problem), 0.02), 4)
    0.5774
    """
    return evaluated(
        lambda *vectors: discrete_bias.kkt_residual(problem.row_space, *vectors),
        problem,
        theta=theta,
        balancedness=balancedness,
        log_init=log_init,
    )


def power_minimizer(
    problem: Problem, scale: ArrayLike, log_init: ArrayLike = 0.0, *, depth: ArrayLike = 3.0
) -> Any:
    """The interpolator that training of theta = u^D - v^D with this A and c selects, S + [d].

    argmin {D_{H_A}(theta, h_A(c)) : X theta = y} (docs/theory.md#depth; not on the poster).

    Args:
        problem: the data, of the squared loss.
        scale: A > 0, [*S, d], [*S, 1] or a number; alpha^(2-D) of the start ``power(alpha, D)``.
        log_init: c with |c| < A, of the same form.
        depth: D > 2, a number or [*S, 1].

    Returns:
        The minimisers; NaN where Newton's method has not converged.

    >>> power_minimizer(Problem(X=[[1, 1, 2]], y=[2]), [[1e4], [1e-4]]).round(4).tolist()
    [[0.0, 0.0, 1.0], [0.3333, 0.3333, 0.6667]]
    """

    def solve(scale: Tensor, log_init: Tensor, depth: Tensor) -> Tensor:
        rows = problem.row_space
        found = solve_power(rows, rows.target(problem.y), scale, log_init, depth=depth)
        return torch.where(found.converged[..., None], found.theta, torch.nan)

    return evaluated(solve, problem, scale=scale, log_init=log_init, depth=depth)


def evaluated(function: Callable[..., Tensor], problem: Any = NO_PROBLEM, **arguments: Any) -> Any:
    """A function of float64 tensors [*S, d], and its value in the kind of the arguments.

    Of several runs those that are not finite, as they diverged, have the value nan.
    """
    tensors = {key: torch.atleast_1d(tensor_of(key, value)) for key, value in arguments.items()}
    raise_if_any(
        f"{key} has {int((~tensor.isfinite()).sum())} entries that are not finite; all must be"
        for key, tensor in tensors.items()
        if not bool(tensor.isfinite().all(-1).any())
    )
    raise_if_any(
        f"{key} has an entry {float(wrong[0]):g}, must be in [{SMALLEST:g}, {1 / SMALLEST:g}]"
        for key in SCALES
        if (scale := tensors.get(key)) is not None
        and len(wrong := scale[~((scale >= SMALLEST) & (scale <= 1 / SMALLEST))])
    )
    # the residual of an infinite theta would be 0
    tensors = {k: torch.where(x.isfinite(), x, torch.nan) for k, x in tensors.items()}
    shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
    if problem is not NO_PROBLEM:
        checked(problem, None)
        shapes["problem"] = (*problem.runs, problem.d)
    d = common_shape(shapes)[-1]
    result = function(*(tensor.expand(*tensor.shape[:-1], d) for tensor in tensors.values()))
    if any(isinstance(value, Tensor) for value in arguments.values()):
        return result
    return result.numpy() if result.ndim else result.item()
