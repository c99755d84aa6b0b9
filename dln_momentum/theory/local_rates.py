r"""How fast heavy ball converges near a minimiser, from the Hessian there.

(docs/theory.md#local-rates; not on the poster.) Kassing and Weissmann (arXiv 2410.16849) show that
under a local Polyak-Lojasiewicz inequality heavy ball has the rate that it has on a quadratic with
the non-zero eigenvalues of the Hessian at the limit: for each of them

.. math:: \rho(h) = \text{spectral radius of}
          \begin{pmatrix} 1 + \beta - \gamma h & -\beta \\ 1 & 0 \end{pmatrix},

and the distance to the set of minimisers contracts by the largest of them a step, the loss by its
square. At an interpolator grad L = 0, so that the non-zero eigenvalues of the Hessian of F are
those of X diag(u^2 + v^2) X^T/n.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.problem import Problem

NONZERO = 1e-12
"""Eigenvalues below this share of the largest are the zeros of a rank-deficient X."""


def step_contraction(curvature: Tensor, gamma: Tensor | float, beta: Tensor | float) -> Tensor:
    """rho(h), the spectral radius of a step of heavy ball at curvature h, entry by entry.

    The eigenvalues solve ``z^2 - (1 + beta - gamma h) z + beta = 0``: complex ones have modulus
    sqrt(beta), real ones ``(|t| + sqrt(t^2 - 4 beta))/2`` at most, t = 1 + beta - gamma h.

    >>> h = torch.tensor([0.0, 1.0, 400.0], dtype=torch.float64)
    >>> [round(x, 4) for x in step_contraction(h, 0.01, 0.9).tolist()]
    [1.0, 0.9487, 1.5]
    """
    trace = 1 + beta - gamma * curvature
    beta = torch.as_tensor(beta, dtype=curvature.dtype)
    square = trace.square() - 4 * beta
    real = (trace.abs() + square.clamp(min=0).sqrt()) / 2
    return torch.where(square < 0, beta.sqrt(), real)


def curvatures_at_minimum(problem: Problem, w: Tensor) -> Tensor:
    """The non-zero eigenvalues of the Hessian of F at an interpolator, increasing, [rank].

    Args:
        problem: the data, without run dimensions.
        w: (w_+, w_-), [2, d]; u^2 + v^2 = (w_+^2 + w_-^2)/2.

    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> curvatures_at_minimum(problem, torch.ones(2, 2, dtype=torch.float64))
    tensor([5.0000], dtype=torch.float64)
    """
    square = (w[0].square() + w[1].square()) / 2
    scaled = problem.X * square.sqrt()
    found = torch.linalg.svdvals(scaled).square() / problem.n
    return found[found > NONZERO * found.max()].flip(0)


def predicted_contraction(problem: Problem, w: Tensor, gamma: float, beta: float) -> float:
    """rho, by which the distance to the interpolators contracts a step near w; the loss by rho^2.

    Args:
        problem: the data, without run dimensions.
        w: w_+- of the limit, [2, d].
        gamma, beta: of heavy ball.
    """
    return float(step_contraction(curvatures_at_minimum(problem, w), gamma, beta).max())
