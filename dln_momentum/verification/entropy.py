"""The hyperbolic entropy: its gradient, its divergence, and gradient flow as its mirror flow.

(docs/theory.md#potentials and docs/theory.md#gradient-flow; poster, section 3.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.flows.trajectory import solver_error
from dln_momentum.theory.entropy import bregman_divergence, hyperbolic_entropy, mirror_map
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import delta_in_range, explicit_part
from dln_momentum.verification.statement import Statement, Times, equal

STEP = 1e-4
"""Of the central difference: relative errors of STEP^2 and of 1e-16/STEP."""


def potential(m: Measurements) -> Statement:
    """psi(0) = 0; its gradient; D(a, b) = psi(a) - psi(b) - <grad psi(b), a - b>.

    At the interpolator of least norm, at several sizes, with Delta = Delta_0; the mirror image is
    arcsinh(2 theta/Delta)/2, which `mirror_descent` compares with the flow.
    """
    name = "psi: psi(0) = 0, arcsinh(2 theta/Delta)/2 its gradient, D its divergence"
    delta, problem = m.setting.balancedness, m.problem
    fine = delta_in_range(delta, "Delta_0")
    if not fine.met:
        return Statement(name, 4, (fine,))
    a = problem.row_space.span(problem.row_space.target(problem.y))
    # from the sizes at which psi is a square to those at which it is a multiple of |theta|
    sizes = torch.logspace(-3, 3, 7, dtype=torch.float64) * delta.max() / a.abs().max()
    points = sizes[:, None] * a
    image = torch.asinh(2 * points / delta) / 2
    slope = (
        hyperbolic_entropy((1 + STEP) * points, delta)
        - hyperbolic_entropy((1 - STEP) * points, delta)
    ) / (2 * STEP)
    other = points.flip(-1) / 2
    psi, psi_other = hyperbolic_entropy(points, delta), hyperbolic_entropy(other, delta)
    turned = (torch.asinh(2 * other / delta) / 2 * (points - other)).sum(-1)
    divergence = bregman_divergence(points, other, delta)
    errors = torch.stack(
        [
            _relative(slope, (image * points).sum(-1)),
            _relative(divergence, psi - psi_other - turned),
            (mirror_map(points, delta) - image).abs().amax(-1) / image.abs().amax(-1),
            hyperbolic_entropy(torch.zeros_like(points), delta),
        ]
    )
    return equal(
        name, 4, [fine], predicted=(image * points).sum(), measured=slope.sum(),
        error=errors.max(), tolerance=1e-6,
    )  # fmt: skip


def mirror_descent(m: Measurements) -> Statement:
    """grad psi(theta_t) = grad psi(theta_0) - int_0^t grad L, with psi = psi_{Delta_0}.

    It depends on the normalisation of psi, which no minimiser does.
    """
    name = "GF: grad psi(theta_t) = grad psi(theta_0) - int grad L at every recorded t"
    path, setting = m.explicit_gradient_path, m.setting
    fine = delta_in_range(setting.balancedness, "Delta_0")
    if not fine.met:
        return Statement(name, 3, (fine,))
    image = mirror_map(path.theta, setting.balancedness)
    error = image - mirror_map(setting.theta, setting.balancedness) + path.G
    # theta has an error of 1e-16 of w_+-^2, which the slope 1/sqrt(4 theta^2 + Delta^2) amplifies
    sizes = path.w.square().sum(0) / 4
    slope = 1 / torch.hypot(2 * path.theta, setting.balancedness)
    allowed = solver_error(path) + 4e-16 * (sizes * slope).amax(-1)
    return equal(
        name,
        3,
        [fine],
        predicted=-path.G[-1].sum(),
        measured=(image[-1] - image[0]).sum(),
        error=error.abs().amax(-1),
        tolerance=allowed,
        times=Times("t", path.t, explicit_part(path)),
    )


def _relative(measured: Tensor, expected: Tensor) -> Tensor:
    return (measured - expected).abs() / expected.abs()
