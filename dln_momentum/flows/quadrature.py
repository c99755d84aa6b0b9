"""I_+- summed from its definition, where it has one: the check of the regular form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dln_momentum.errors import InputError
from dln_momentum.flows.path import FlowPath
from dln_momentum.problem import Problem
from dln_momentum.theory.continuous_bias import path_integrals

REACH = 0.1
"""Steps over which w_+- changes by a larger share are too near a zero of w_+- to be summed: there
the integrand is a double pole at the distance w/w', and no polynomial."""

TINY = torch.finfo(torch.float64).tiny


@dataclass(frozen=True)
class SummedIntegrals:
    """I_{+-,t} at every time of a path, from the definition except within reach of a zero.

    Attributes:
        i_plus, i_minus: [T, d].
        uncertainty: bound on the error of the sums up to each time, the largest over coordinates,
            [T]: what the next lower order of quadrature would have given, all differences added.
        share: the share of the time over which the definition was summed, the smallest over
            coordinates; over the rest stands the regular form.
    """

    i_plus: Tensor
    i_minus: Tensor
    uncertainty: Tensor
    share: float


def quadrature_path_integrals(problem: Problem, path: FlowPath) -> tuple[Tensor, Tensor]:
    """I_{+-,t} summed from its definition lambda int (w_+-'/w_+-)^2, [T, d] each.

    The check of `path_integrals`, which is the equation of motion integrated once and so cannot
    test itself. Between the times of the path it takes the integral of the quintic polynomial
    through f = lambda (w'/w)^2, f' and f'' at both ends, which the equation of motion supplies;
    the error is of sixth order in the spacing, so give it a path with every step of the solver.

    Raises:
        InputError: if some w_+- changed sign, where the integral does not exist, or lambda = 0.
    """
    crossed = int((path.sign_changes > 0).sum())
    if crossed or path.lam == 0:
        raise InputError(
            [f"lambda = {path.lam:g} must be > 0 and sign changes 0, found {crossed} coordinates"]
        )
    plus, minus = (_accumulated(piece.value) for piece in _pieces(problem, path))
    return plus, minus


def summed_path_integrals(
    problem: Problem, path: FlowPath, reach: float = REACH
) -> SummedIntegrals:
    """I_{+-,t} summed from its definition wherever w_+- is far from zero, sign changes allowed.

    At a zero of w_+- the integral is the Hadamard finite part, which the regular form gives; it
    stands in for the sum over the steps during which w_+- changes by more than the share `reach`,
    and over no others. So this is a check of `path_integrals` on paths of any lambda.

    Args:
        problem: the data.
        path: a momentum flow with every step of the solver.
        reach: the largest |w'/w| times the length of a step that is summed.

    Raises:
        InputError: if lambda = 0.

    >>> from dln_momentum.flows import momentum_flow
    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> w = torch.full((2,), 0.1)
    >>> path = momentum_flow(problem, w, w, lam=4.0, time=60.0)
    >>> int(path.sign_changes.sum()), round(summed_path_integrals(problem, path).share, 1)
    (3, 0.9)
    """
    if path.lam == 0:
        raise InputError(["lambda = 0 must be > 0: gradient flow has no I_+-"])
    sums, bounds, shares = [], [], []
    steps = path.t.diff().unsqueeze(-1)
    for piece, regular in zip(_pieces(problem, path), path_integrals(path), strict=True):
        far = piece.change <= reach
        sums.append(_accumulated(torch.where(far, piece.value, regular.diff(dim=0))))
        bounds.append(_accumulated(torch.where(far, piece.doubt, 0.0)).amax(-1))
        shares.append(1.0 - float((~far * steps).sum(0).max() / path.t[-1].clamp_min(TINY)))
    return SummedIntegrals(sums[0], sums[1], torch.maximum(bounds[0], bounds[1]), min(shares))


class _Piece(NamedTuple):
    """The steps of one of I_+-, [T - 1, d]: the integral, its doubt, and |w'/w| h."""

    value: Tensor
    doubt: Tensor
    change: Tensor


def _pieces(problem: Problem, path: FlowPath) -> tuple[_Piece, _Piece]:
    residual_rate = (path.w_plus * path.dw_plus - path.w_minus * path.dw_minus) / 2 @ problem.X.mT
    gradient, gradient_rate = problem.gradient(path.theta), residual_rate @ problem.X / problem.n
    plus = _piece(path, path.w_plus, path.dw_plus, gradient, gradient_rate)
    minus = _piece(path, path.w_minus, path.dw_minus, -gradient, -gradient_rate)
    return plus, minus


def _piece(path: FlowPath, w: Tensor, dw: Tensor, gradient: Tensor, rate: Tensor) -> _Piece:
    """int lambda q^2 for q = w'/w, which obeys lambda (q' + q^2) + q + gradient = 0."""
    q = dw / w
    dq = -(q + gradient) / path.lam - q * q
    ddq = -(dq + rate) / path.lam - 2 * q * dq
    f, df, ddf = q * q, 2 * q * dq, 2 * (dq * dq + q * ddq)
    h = path.t.diff().unsqueeze(-1)
    trapezoid, turn = h / 2 * (f[1:] + f[:-1]), h**2 * df.diff(dim=0)
    quintic = trapezoid - turn / 10 + h**3 / 120 * (ddf[1:] + ddf[:-1])
    change = torch.where(w[1:] * w[:-1] > 0, q.abs()[1:].maximum(q.abs()[:-1]) * h, torch.inf)
    cubic = trapezoid - turn / 12
    return _Piece(path.lam * quintic, path.lam * (quintic - cubic).abs(), change)


def _accumulated(pieces: Tensor) -> Tensor:
    return torch.cat([pieces.new_zeros(1, *pieces.shape[1:]), pieces.cumsum(0)])
