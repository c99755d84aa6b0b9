"""The potential itself, and the interpolators at its two ends.

(docs/theory.md#potentials; poster, section 3.)
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from dln_momentum.theory.entropy import bregman_divergence, hyperbolic_entropy, mirror_map
from dln_momentum.theory.interpolators import basis_pursuit, least_norm
from dln_momentum.verification.evidence import Evidence
from dln_momentum.verification.gradient_flow import start_in_range
from dln_momentum.verification.statement import Hypothesis, Statement, equal

STEP = 1e-4
"""Of the central difference: relative errors of STEP^2 and of 1e-16/STEP."""

LINEAR_PROGRAM = 1e-6
"""The relative error of a linear program's value at tolerances of 1e-7."""


def potential(evidence: Evidence) -> Statement:
    """psi(0) = 0; its gradient; D(a, b) = psi(a) - psi(b) - <grad psi(b), a - b>.

    At the interpolator of least norm, at several sizes, with Delta = Delta_0; the mirror image is
    arcsinh(2 theta/Delta)/2, which `mirror_descent` ties to the flow.
    """
    name = "psi: psi(0) = 0, arcsinh(2 theta/Delta)/2 its gradient, D its divergence"
    fine = start_in_range(evidence)
    if not fine.met:
        return Statement(name, 4, (fine,))
    delta, problem = evidence.case.balancedness, evidence.problem
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


def sparsest(evidence: Evidence) -> Statement:
    """theta^BP has X theta = y and the l1 norm max { <nu, y> : ||X^T nu||_inf <= 1 }.

    Weak duality bounds the l1 norm of every interpolator from below, so that equality certifies
    the smallest one.
    """
    problem = evidence.problem
    X, y = problem.X.numpy(), problem.y.numpy()
    theta = basis_pursuit(problem.X, problem.y)
    scale = np.abs(y).max()
    dual = linprog(
        -y / scale, A_ub=np.vstack([X.T, -X.T]), b_ub=np.ones(2 * problem.d), bounds=(None, None),
        method="highs-ipm",
    )  # fmt: skip
    bound = -dual.fun * scale if dual.status == 0 else float("nan")
    norm = float(theta.abs().sum())
    errors = torch.tensor([abs(norm / bound - 1), _misfit(evidence, theta)], dtype=torch.float64)
    return equal(
        "argmin ||theta||_1 over X theta = y: its norm is max <nu, y>, ||X^T nu||_inf <= 1",
        4,
        [Hypothesis("the dual linear program was solved", dual.status == 0, dual.message)],
        predicted=bound,
        measured=norm,
        error=errors.max(),
        tolerance=LINEAR_PROGRAM,
    )


def least_square(evidence: Evidence) -> Statement:
    """argmin sum theta^2/Delta_0 over S has X theta = y and theta/Delta_0 in span(x_1..x_n)."""
    name = "argmin sum theta^2/Delta_0 over X theta = y: theta/Delta_0 in span(x_1..x_n)"
    fine = start_in_range(evidence)
    if not fine.met:
        return Statement(name, 4, (fine,))
    problem, delta = evidence.problem, evidence.case.balancedness
    theta = least_norm(problem.X, problem.y, delta)
    scaled = theta / delta
    outside = torch.linalg.vector_norm(problem.row_space.reject(scaled))
    error = outside / torch.linalg.vector_norm(scaled)
    return equal(
        name, 4, [fine], measured=error,
        error=torch.stack([error, error.new_tensor(_misfit(evidence, theta))]).max(),
        # rounding of theta, over the smallest of the weights
        tolerance=1e-12 * float(delta.max() / delta.min()) ** 0.5 * problem.d,
    )  # fmt: skip


def _misfit(evidence: Evidence, theta: Tensor) -> float:
    residual = evidence.problem.X @ theta - evidence.problem.y
    return float(torch.linalg.vector_norm(residual) / torch.linalg.vector_norm(evidence.problem.y))


def _relative(measured: Tensor, expected: Tensor) -> Tensor:
    return (measured - expected).abs() / expected.abs()
