"""The largest step at which leapfrog is stable."""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.problem import Problem
from dln_momentum.theory.trajectory import theta_of

ITERATIONS = 12
SAFETY = 0.9
"""The power iteration ends slightly below the eigenvalue, and the eigenvalue changes with w."""


def stable_step(problem: Problem, w: Tensor, lam: Tensor) -> Tensor:
    """The step below which leapfrog for lambda w'' + w' + J w = 0 is stable, [R].

    That is 2 sqrt(lambda/mu), where mu is the largest eigenvalue of the derivative J of
    +-grad L w_+- by w_+-,

        J = diag(+-grad L) + D (X^T X/n) D^T/2,    D = (diag(w_+), -diag(w_-)),

    by a power iteration, times a safety factor.

    Args:
        problem: the data of these runs.
        w: (w_+, w_-), [2, R, d].
        lam: [R].

    >>> problem = Problem(X=[[1.0, 0.0]], y=[1.0])
    >>> w = torch.tensor([[[2.0, 0.1]], [[0.0, 0.1]]], dtype=torch.float64)
    >>> stable_step(problem, w, torch.tensor([4.0])).tolist()  # mu = 2
    [2.54...]
    """
    theta = theta_of(w)
    gradient = problem.gradient(theta)
    force, D = torch.stack([gradient, -gradient]), torch.stack([w[0], -w[1]])
    # the shift makes the largest eigenvalue the largest in size
    shift = gradient.abs().amax(-1, keepdim=True)
    x, size = D, torch.ones_like(shift)
    for _ in range(ITERATIONS):
        x = x / torch.linalg.vector_norm(x, dim=(0, 2))[:, None].clamp_min(1e-300)
        # the loss is quadratic in theta: this is X^T X/n times the sum
        pushed = problem.gradient(theta + (D * x).sum(0)) - gradient
        x = (force + shift) * x + D * pushed / 2
        size = torch.linalg.vector_norm(x, dim=(0, 2))[:, None]
    mu = (size - shift).squeeze(-1).clamp_min(1e-300)
    return SAFETY * 2 * (lam / mu).sqrt()
