"""I_+- summed from its definition, where it has one: the check of the regular form."""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.errors import InputError
from dln_momentum.flow.path import FlowPath
from dln_momentum.problem import Problem


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
    residual_rate = (path.w_plus * path.dw_plus - path.w_minus * path.dw_minus) / 2 @ problem.X.mT
    gradient, gradient_rate = problem.gradient(path.theta), residual_rate @ problem.X / problem.n
    rates = path.dw_plus / path.w_plus, path.dw_minus / path.w_minus
    plus, minus = (
        _integral(path, rate, sign * gradient, sign * gradient_rate)
        for sign, rate in zip((1, -1), rates, strict=True)
    )
    return plus, minus


def _integral(path: FlowPath, q: Tensor, gradient: Tensor, gradient_rate: Tensor) -> Tensor:
    """int lambda q^2 for q = w'/w, which obeys lambda (q' + q^2) + q + gradient = 0."""
    dq = -(q + gradient) / path.lam - q * q
    ddq = -(dq + gradient_rate) / path.lam - 2 * q * dq
    f, df, ddf = q * q, 2 * q * dq, 2 * (dq * dq + q * ddq)
    h = path.t.diff().unsqueeze(-1)
    pieces = h / 2 * (f[1:] + f[:-1]) - h**2 / 10 * df.diff(dim=0)
    pieces = pieces + h**3 / 120 * (ddf[1:] + ddf[:-1])
    return path.lam * torch.cat([torch.zeros_like(q[:1]), pieces.cumsum(0)])
