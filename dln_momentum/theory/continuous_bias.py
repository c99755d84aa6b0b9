r"""The implicit bias of momentum gradient flow, without integrating anything singular.

Along a path of lambda w_+-'' + w_+-' +- grad L w_+- = 0 let

    I_{+-,t} = lambda int_0^t (w_+-'/w_+-)^2 ds.

At rest at first, and with I_+- the limits (docs/theory.md#continuous-bias; poster, section 4,
with its signs corrected),

    Delta_inf   = Delta_0 exp(-(I_+ + I_-)),
    theta~_0    = (w_{+,0}^2 exp(-2 I_+) - w_{-,0}^2 exp(-2 I_-)) / 4,
    theta^MGF   = argmin { D_{psi_{Delta_inf}}(theta, theta~_0) : X theta = y }.

Where w_+- crosses zero the integrand has a double pole and I_+- is the Hadamard finite part, which
may be negative (docs/theory.md#sign-changes). Everything here comes from the form that has no pole,

    I_{+-,t} = -+ G_t - ln|w_{+-,t}/w_{+-,0}| - lambda (w_{+-,t}'/w_{+-,t} - w_{+-,0}'/w_{+-,0}),

and takes the path of one flow or those of many, for which [T, d] reads [T, R, d].

Where lambda or the friction changes with time, the weight P(t) is in the place of lambda, and the
integral of (P/lambda) grad L in that of G (docs/theory.md#changing-coefficients).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dln_momentum.theory.discrete_bias import asymptotic_balancedness, log_init

if TYPE_CHECKING:
    from dln_momentum.flows.path import FlowPath, Path


@dataclass(frozen=True)
class ContinuousBias:
    """Exponents, Delta and c of the minimiser of a path; at one time [d], or at all times [T, d].

    Of many flows, [R, d] or [T, R, d].

    Attributes:
        i_plus, i_minus: the exponents that shrink |w_+-|; I_+- for a path that starts at rest.
        balancedness: Delta_0 exp(-(i_plus + i_minus)).
        log_init: c = arcsinh(2 theta~_0/Delta), the perturbed initialisation in log form.
    """

    i_plus: Tensor
    i_minus: Tensor
    balancedness: Tensor
    log_init: Tensor


def path_integrals(path: Path) -> Tensor:
    """(I_+, I_-) at every time of the path, [2, T, d], from the regular form.

    Positive while w_+- has not vanished. Not finite at a time at which w_+- is exactly zero.
    """
    return _without_boundary(path) - boundary_terms(path)


def boundary_terms(path: Path) -> Tensor:
    """[P w_+-'/w_+-]_0^t at every time of the path, [2, T, d]; P is lambda if that is constant."""
    rate = path.dw / path.w
    if path.changing:
        rate = path.memory * rate
        return rate - rate[:, :1]
    return path.lam * (rate - rate[:, :1])


def limit_bias(path: Path) -> ContinuousBias:
    """Delta_inf and theta~_0 from the last time of the path.

    (docs/theory.md#continuous-bias; poster, section 4.)

    The remaining speed, which vanishes at convergence, is neglected: the error is of the order of
    its square. A path that does not start at rest has -lambda w'_0/w_0 added to I.

    Args:
        path: a path that has converged, or nearly.

    Returns:
        The bias, [d]. Not finite if some w_+- is exactly zero at the start or at the end.

    >>> import math
    >>> from dln_momentum.flows import momentum_flow
    >>> from dln_momentum.problem import Problem
    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> w = torch.full((2,), 0.5)
    >>> path = momentum_flow(problem, w, w, lam=1.0, time=math.inf, tol=1e-20)
    >>> torch.allclose(limit_bias(path).balancedness, path.balancedness[-1], rtol=1e-8)
    True
    """
    memory = path.memory[-1] if path.changing else path.lam
    speed = memory * path.dw[:, -1] / path.w[:, -1]
    return _bias(path, _without_boundary(path)[:, -1] - speed)


def running_bias(path: Path) -> ContinuousBias:
    """The bias at every time, before any convergence, with the boundary term included.

    With ``I~_+- = I_+- + lambda (w_+-'/w_+- - w_{+-,0}'/w_{+-,0}) = -+ G - ln|w_+-/w_{+-,0}|``,

        Delta_t = Delta_0 exp(-(I~_+ + I~_-)),    arcsinh(2 theta_t/Delta_t) = c~_t - 2 G_t,

    so that theta_t minimises D_{psi_{Delta_t}}(., theta~_t) over its own level set
    {X theta = X theta_t}.

    Returns:
        The bias at every time, [T, d].
    """
    return _bias(path, _without_boundary(path))


def log_free_error(path: FlowPath) -> Tensor:
    """The error of u^2 - v^2 against its log-free sum, over max |u_0^2 - v_0^2|, at each time, [T].

    ``q_t = q_0 + 2 int_0^t P (u'^2 - v'^2) - [P q']_0^t`` for q = u^2 - v^2 = w_+ w_-, without
    logarithm and without singularity (docs/theory.md#changing-coefficients), of a flow whose lambda
    or friction changes.
    """
    q, products, boundary = _log_free_terms(path)
    wrong = q - q[0] - products + boundary.sum(0) - boundary[:, 0].sum(0)
    return wrong.abs().amax(-1) / q[0].abs().max()


def log_free_size(path: FlowPath) -> Tensor:
    """The largest term so far of the sum of `log_free_error`, over max |u_0^2 - v_0^2|, [T].

    The terms may be far larger than their sum; an error of the solver is relative to them.
    """
    q, products, boundary = _log_free_terms(path)
    terms = torch.stack([q, products, *boundary]).abs().amax((0, 2))
    return terms.cummax(0).values / q[0].abs().max()


def log_free_sum(path: FlowPath) -> Tensor:
    """The largest |2 int_0^t P (u'^2 - v'^2)| over max |u_0^2 - v_0^2|, at each time, [T].

    Of the integral itself or as q_t - q_0 + [P q']_0^t, whichever is larger.
    """
    q, products, boundary = _log_free_terms(path)
    moved = q - q[0] + boundary.sum(0) - boundary[:, 0].sum(0)
    return torch.maximum(products.abs(), moved.abs()).amax(-1) / q[0].abs().max()


def _log_free_terms(path: FlowPath) -> tuple[Tensor, Tensor, Tensor]:
    """q and 2 int P (u'^2 - v'^2), [T, d] each, and both products in P q', [2, T, d]."""
    assert path.speed_products is not None
    ends = torch.stack([path.dw[0] * path.w[1], path.w[0] * path.dw[1]])
    return path.w[0] * path.w[1], path.speed_products, path.memory * ends


def _without_boundary(path: Path) -> Tensor:
    """-+ G - ln|w_{+-,t}/w_{+-,0}|, [2, T, d]."""
    return torch.stack([-path.G, path.G]) - (path.w / path.w[:, :1]).abs().log()


def _bias(path: Path, exponents: Tensor) -> ContinuousBias:
    return ContinuousBias(
        *exponents,
        balancedness=asymptotic_balancedness(path.balancedness[0], *exponents),
        log_init=log_init(*path.w[:, 0], *exponents),
    )
