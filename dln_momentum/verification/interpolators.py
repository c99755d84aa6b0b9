"""The interpolators of least l1 and of least weighted l2 norm, the limits of the minimisers.

(docs/theory.md#potentials; poster, section 3.)
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linprog
from torch import Tensor

from dln_momentum.theory.interpolators import basis_pursuit, least_norm
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import delta_in_range
from dln_momentum.verification.statement import Hypothesis, Statement, equal

LINEAR_PROGRAM = 1e-6
"""The relative error of a linear program's value at tolerances of 1e-7."""


def sparsest(m: Measurements) -> Statement:
    """theta^BP has X theta = y and the l1 norm max { <nu, y> : ||X^T nu||_inf <= 1 }.

    Weak duality bounds the l1 norm of every interpolator from below, so that equality certifies
    the smallest one.
    """
    problem = m.problem
    X, y = problem.X.numpy(), problem.y.numpy()
    theta = basis_pursuit(problem.X, problem.y)
    scale = np.abs(y).max()
    dual = linprog(
        -y / scale, A_ub=np.vstack([X.T, -X.T]), b_ub=np.ones(2 * problem.d), bounds=(None, None),
        method="highs-ipm",
    )  # fmt: skip
    bound = -dual.fun * scale if dual.status == 0 else float("nan")
    norm = float(theta.abs().sum())
    errors = torch.tensor([abs(norm / bound - 1), _misfit(m, theta)], dtype=torch.float64)
    return equal(
        "argmin ||theta||_1 over X theta = y: its norm is max <nu, y>, ||X^T nu||_inf <= 1",
        4,
        [Hypothesis("the dual linear program was solved", dual.status == 0, dual.message)],
        predicted=bound,
        measured=norm,
        error=errors.max(),
        tolerance=LINEAR_PROGRAM,
    )


def least_square(m: Measurements) -> Statement:
    """argmin sum theta^2/Delta_0 over S has X theta = y and theta/Delta_0 in span(x_1..x_n)."""
    name = "argmin sum theta^2/Delta_0 over X theta = y: theta/Delta_0 in span(x_1..x_n)"
    problem, delta = m.problem, m.setting.balancedness
    fine = delta_in_range(delta, "Delta_0")
    if not fine.met:
        return Statement(name, 4, (fine,))
    theta = least_norm(problem.X, problem.y, delta)
    scaled = theta / (delta / delta.max())
    outside = torch.linalg.vector_norm(problem.row_space.reject(scaled))
    error = outside / torch.linalg.vector_norm(scaled)
    # rounding of theta, over the smallest of the weights
    allowed = 1e-12 * float(delta.max() / delta.min()) ** 0.5 * problem.d
    # a y that was rounded is a little outside the range of X: no theta fits the rest
    unfit = allowed + float(problem.row_space.range_residual(problem.y))
    return equal(
        name, 4, [fine], measured=error,
        error=torch.stack([error, error.new_tensor(_misfit(m, theta))]),
        tolerance=torch.tensor([allowed, unfit], dtype=torch.float64),
    )  # fmt: skip


def _misfit(m: Measurements, theta: Tensor) -> float:
    residual = m.problem.X @ theta - m.problem.y
    return float(torch.linalg.vector_norm(residual) / torch.linalg.vector_norm(m.problem.y))
