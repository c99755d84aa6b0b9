"""The Hessian of F in closed form, and the sharpness of a run that has converged.

(docs/theory.md#curvature; not on the poster.)
"""

from __future__ import annotations

import torch

from dln_momentum.theory.curvature import hessian_product, sharpness, sharpness_threshold
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import full_batch
from dln_momentum.verification.statement import Hypothesis, Statement, at_most, equal


def second_derivative(m: Measurements) -> Statement:
    """The Hessian times a direction is the derivative of grad F, at w_0 and at the end of the run.

    For a gradient of degree three in w, ``(8 [g(x) - g(-x)] - [g(2x) - g(-2x)])/12`` is exact.
    """
    ends = [m.setting.w, m.snapshots[-1].w[:, 0]]
    generator = torch.Generator().manual_seed(0)
    wrong, sizes = [], []
    for w in ends:
        pair = torch.stack([(w[0] + w[1]) / 2, (w[0] - w[1]) / 2])
        x = torch.randn(pair.shape, generator=generator, dtype=torch.float64)
        x = x / torch.linalg.vector_norm(x) * torch.linalg.vector_norm(pair)
        steps = {k: _gradient(m, pair + k * x) - _gradient(m, pair - k * x) for k in (1, 2)}
        written = (8 * steps[1] - steps[2]) / 12
        found = hessian_product(m.problem, w, x)
        wrong.append((found - written).abs().max())
        # the gradients at twice the distance are the largest numbers that cancel
        sizes.append(steps[2].abs().max() + found.abs().max())
    error = torch.stack(wrong) / torch.stack(sizes)
    ended = "it diverged" if m.run_diverged else "it ended"
    return equal(
        "Hessian of F in closed form = derivative of grad F, at w_0 and at the end",
        6,
        [Hypothesis("the run has not diverged", not m.run_diverged, ended)],
        measured=error[-1],
        error=error,
        # sums of n d products
        tolerance=1e-15 * (m.problem.n + m.problem.d),
    )


def stable_end(m: Measurements) -> Statement:
    """A full-batch run that has converged ends where heavy ball is stable."""
    end = m.snapshots[-1]
    loss = float(end.loss[0])
    momentum = m.momentum
    found = f"loss {loss:.1e}, the tolerance is {m.setting.tol:.1e}"
    needs = (
        full_batch(m),
        Hypothesis("converged", loss <= m.setting.tol and not m.run_diverged, found),
    )
    return at_most(
        "MGD: the sharpness at the limit is at most 2 (1 + beta)/gamma",
        6,
        needs,
        predicted=sharpness_threshold(momentum.gamma, momentum.beta),
        measured=sharpness(m.problem, end.w)[0],
        tolerance=1e-6,
    )


def _gradient(m: Measurements, layers: torch.Tensor) -> torch.Tensor:
    """grad F = (grad L v, grad L u) as it is written."""
    u, v = layers
    X, y = m.problem.X, m.problem.y
    g = X.T @ (X @ (u * v) - y) / m.problem.n
    return torch.stack([g * v, g * u])
