r"""Momentum gradient flow as a mirror flow with a potential that moves.

(docs/theory.md#mirror-flow; poster, section 5.)

While no w_+- vanishes, theta_t follows

    lambda z'' + z' + grad L(theta_t) = 0,    z_t = grad Phi_t(theta_t),
    Phi_t(theta) = psi_{Delta_t}(theta) - <b_t, theta>,
    lambda b'' + b' = -(lambda/2) [(w_+'/w_+)^2 - (w_-'/w_-)^2],    b_0 = b'_0 = 0,

and grad Phi_t(theta_t) = arcsinh(2 theta_t/Delta_t)/2 - b_t, where the first term is
ln|w_+/w_-|/2. Solving the linear equation of z,

    z_t = z_0 + lambda z'_0 (1 - e^{-t/lambda}) - H_t,    lambda H' + H = G,  H_0 = 0,

gives z and b in closed form from the fields of a `FlowPath`, without a pole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dln_momentum.flows.path import FlowPath


def mirror_position(path: FlowPath) -> Tensor:
    """z_t = grad Phi_t(theta_t) at every time, [T, d].

    z_t = z_0 + lambda z'_0 (1 - e^{-t/lambda}) - H_t
    """
    if path.lam == 0:
        return static_mirror_image(path)[0] - path.G
    start = static_mirror_image(path)[0]
    forgotten = -torch.expm1(-path.t / path.lam).unsqueeze(-1)
    return start + path.lam * static_mirror_velocity(path)[0] * forgotten - path.G_delayed


def linear_term(path: FlowPath) -> Tensor:
    """b_t of Phi_t(theta) = psi_{Delta_t}(theta) - <b_t, theta> at every time, [T, d].

    Zero for gradient flow, and of the order of lambda.
    """
    return static_mirror_image(path) - mirror_position(path)


def static_mirror_image(path: FlowPath) -> Tensor:
    """arcsinh(2 theta_t/Delta_t)/2 = ln|w_+/w_-|/2 at every time, [T, d]."""
    return (path.w[0] / path.w[1]).abs().log() / 2


def static_mirror_velocity(path: FlowPath) -> Tensor:
    """The time derivative of `static_mirror_image`, (w_+'/w_+ - w_-'/w_-)/2, [T, d]."""
    return (path.dw[0] / path.w[0] - path.dw[1] / path.w[1]) / 2


def mirror_flow_residual(path: FlowPath, i_plus: Tensor, i_minus: Tensor) -> Tensor:
    """How far the path is from its mirror flow, [T, d], with b from its own equation.

    The equation integrated once, lambda z' + z + G = z_0 + lambda z'_0, with z and z' from
    ln|w_+/w_-|/2 - b and with lambda b' + b = -(I_+ - I_-)/2. Zero up to the error of I_+-; a
    statement about the path, unlike `mirror_position`, which has the equation built in.

    Args:
        path: a momentum flow on which no w_+- changed sign: there the mirror flow ends.
        i_plus, i_minus: I_{+-,t} from its definition at every time of the path, [T, d] (see
            `dln_momentum.flows.quadrature_path_integrals`).
    """
    image = static_mirror_image(path)
    motion = (
        image
        - image[0]
        + path.lam * (static_mirror_velocity(path) - static_mirror_velocity(path)[0])
    )
    return motion + path.G + (i_plus - i_minus) / 2
