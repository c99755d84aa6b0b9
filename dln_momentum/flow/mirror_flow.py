r"""Momentum gradient flow as a mirror flow with a potential that moves (poster, section 5).

While no w_+- vanishes, theta_t follows

    lambda z'' + z' + grad L(theta_t) = 0,    z_t = grad Phi_t(theta_t),
    Phi_t(theta) = psi_{Delta_t}(theta) - <b_t, theta>,
    lambda b'' + b' = -(lambda/2) [(w_+'/w_+)^2 - (w_-'/w_-)^2],    b_0 = b'_0 = 0,

and grad Phi_t(theta_t) = arcsinh(2 theta_t/Delta_t)/2 - b_t, where the first term is
ln|w_+/w_-|/2. Solving the linear equation of z,

    z_t = z_0 + lambda z'_0 (1 - e^{-t/lambda}) - H_t,    lambda H' + H = G,  H_0 = 0,

gives z, and b with it, in closed form from what a `FlowPath` carries; nothing here has a pole.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.errors import InputError
from dln_momentum.flow.path import FlowPath
from dln_momentum.potentials import bregman_divergence, mirror_map
from dln_momentum.problem import Problem


def mirror_position(path: FlowPath) -> Tensor:
    """z_t = grad Phi_t(theta_t) at every time, [T, d].

    z_t = z_0 + lambda z'_0 (1 - e^{-t/lambda}) - H_t
    """
    if path.lam == 0:
        return static_mirror_image(path)[0] - path.G
    start = static_mirror_image(path)[0]
    forgotten = -torch.expm1(-path.t / path.lam).unsqueeze(-1)
    return start + path.lam * static_mirror_velocity(path)[0] * forgotten - path.G_delayed


def mirror_velocity(path: FlowPath) -> Tensor:
    """z'_t at every time, [T, d], from lambda z' + z + G = z_0 + lambda z'_0; needs lambda > 0."""
    constant = static_mirror_image(path)[0] + path.lam * static_mirror_velocity(path)[0]
    return (constant - mirror_position(path) - path.G) / path.lam


def linear_term(path: FlowPath) -> Tensor:
    """b_t of Phi_t(theta) = psi_{Delta_t}(theta) - <b_t, theta> at every time, [T, d].

    Zero for gradient flow, and of the order of lambda.
    """
    return static_mirror_image(path) - mirror_position(path)


def static_mirror_image(path: FlowPath) -> Tensor:
    """arcsinh(2 theta_t/Delta_t)/2 = ln|w_+/w_-|/2 at every time, [T, d]."""
    return (path.w_plus / path.w_minus).abs().log() / 2


def static_mirror_velocity(path: FlowPath) -> Tensor:
    """The time derivative of `static_mirror_image`, (w_+'/w_+ - w_-'/w_-)/2, [T, d]."""
    return (path.dw_plus / path.w_plus - path.dw_minus / path.w_minus) / 2


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


def mirror_flow_residual(problem: Problem, path: FlowPath) -> Tensor:
    """How far the path is from its mirror flow, [T, d], with b from its own equation.

    The equation integrated once, lambda z' + z + G = z_0 + lambda z'_0, with z and z' from
    ln|w_+/w_-|/2 - b and with lambda b' + b = -(I_+ - I_-)/2, where I_+- is summed from its
    definition. Zero up to the error of that quadrature; a statement about the path, unlike
    `mirror_position`, which has the equation built in.

    Raises:
        InputError: if some w_+- changed sign, where the mirror flow ends, or lambda = 0.
    """
    i_plus, i_minus = quadrature_path_integrals(problem, path)
    image = static_mirror_image(path)
    motion = (
        image
        - image[0]
        + path.lam * (static_mirror_velocity(path) - static_mirror_velocity(path)[0])
    )
    return motion + path.G + (i_plus - i_minus) / 2


def three_point_sides(
    a: Tensor, b: Tensor, c: Tensor, balancedness: Tensor
) -> tuple[Tensor, Tensor]:
    """Both sides of the three-point (Bregman cosine) identity, [*runs] each.

        D(a, b) + D(b, c) - D(a, c) = <grad psi(c) - grad psi(b), a - b>

    for psi = psi_Delta, and equally for every Phi = psi - <linear, theta>: a linear term drops out
    of a divergence.

    Args:
        a, b, c: points, [*runs, d].
        balancedness: Delta, positive, broadcastable.

    >>> points = torch.tensor([[1.0, 0.5], [0.2, -1.0], [0.0, 2.0]], dtype=torch.float64)
    >>> left, right = three_point_sides(*points, balancedness=torch.ones(2, dtype=torch.float64))
    >>> round(float(left), 12) == round(float(right), 12)
    True
    """
    divergences = [bregman_divergence(*pair, balancedness) for pair in ((a, b), (b, c), (a, c))]
    turn = mirror_map(c, balancedness) - mirror_map(b, balancedness)
    return divergences[0] + divergences[1] - divergences[2], (turn * (a - b)).sum(-1)
