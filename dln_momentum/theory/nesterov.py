"""Implicit bias of Nesterov's method, whose gradients are taken at the point ahead.

    z_{+-,k} = x_{+-,k} + beta_k (x_{+-,k} - x_{+-,k-1}),
    x_{+-,k+1} = z_{+-,k} -+ gamma_k g_k z_{+-,k},

with g_k in span(x_1..x_n), the gradient at theta = (z_+^2 - z_-^2)/4. With the weights p_k of
`dln_momentum.theory.schedules` (docs/theory.md#nesterov; not on the poster),

    S_+- = sum_k { p_k [ r(x_{k+1}/z_k) + r(z_k/x_k) ] + (p_k - 1) r(x_k/x_{k+1}) }
           - p_1 beta_1 (1 - x_0/x_1),

and Delta, c and the minimiser of the x_k follow from S_+- as they do for heavy ball. Heavy ball is
z_k = x_k in the sum, and the functions here serve both.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.theory.schedules import backward_remainder, speed_term, weighted_sums


def ahead(x: Tensor, beta: Tensor, x_before: Tensor | None = None) -> Tensor:
    """z_1, ..., z_K, where the gradients are taken, [K, ...].

    Args:
        x: x_1, ..., x_K (what follows is not needed), [K, ...].
        beta: beta_1, ..., beta_K, broadcastable step by step.
        x_before: x_0; None from rest.
    """
    first = x[:1] if x_before is None else x_before[None]
    return x + _by_step(beta, x) * (x - torch.cat([first, x[:-1]]))


def from_ahead(z: Tensor, beta: Tensor) -> Tensor:
    """x_1, ..., x_{K+1} from z_1, ..., z_{K+1}, of a run from rest, where x_1 = z_1.

        x_{k+1} = (z_{k+1} + beta_{k+1} x_k)/(1 + beta_{k+1})

    ``torch.optim.SGD(nesterov=True)`` at a constant learning rate stores z_k. An error of x_k is
    multiplied by beta/(1 + beta) < 1/2 a step.

    Args:
        z: [K+1, ...].
        beta: beta_1, ..., beta_{K+1}, broadcastable step by step.
    """
    x = [z[0]]
    for point, b in zip(z[1:], beta[1:], strict=True):
        x.append((point + b * x[-1]) / (1 + b))
    return torch.stack(x)


def weighted_remainder(x: Tensor, z: Tensor, x_next: Tensor) -> Tensor:
    """r(x_{k+1}/z_k) + r(z_k/x_k) + r(x_k/x_{k+1}), the term whose weight is p_k.

    The logarithms cancel. With s = x_{k+1}/z_k - 1 and t = z_k/x_k - 1 it is
    (s^2 + s t + t^2 + s t (s + t))/((1 + s)(1 + t)), of second order in the step and without
    cancellation; for heavy ball, t = 0, it is (x_{k+1} - x_k)^2/(x_k x_{k+1}).

    >>> x, z, x_next = torch.tensor([[1.0], [1.1], [0.9]], dtype=torch.float64)
    >>> r = lambda q: q - 1 - torch.log(q)
    >>> torch.allclose(weighted_remainder(x, z, x_next), r(x_next / z) + r(z / x) + r(x / x_next))
    True
    """
    s, t = (x_next - z) / z, (z - x) / x
    return (s * s + s * t + t * t + s * t * (s + t)) * (x / x_next)


def path_sums(x: Tensor, beta: Tensor, x_before: Tensor | None = None) -> Tensor:
    """S_+- at every horizon, from the iterates and the momenta alone.

    Args:
        x: x_1, ..., x_{K+1} of w_+ or w_- (or both), [K+1, ...], nowhere zero.
        beta: beta_1, ..., beta_K, broadcastable step by step.
        x_before: x_0; None from rest.

    Returns:
        S after steps 1, ..., K, [K, ...].
    """
    terms = weighted_remainder(x[:-1], ahead(x[:-1], beta, x_before), x[1:])
    start = torch.zeros_like(x[0]) if x_before is None else speed_term(x_before, x[0])
    weighted = weighted_sums(terms, beta, start)
    return weighted - backward_remainder(x[:-1], x[1:]).cumsum(0)


def _by_step(beta: Tensor, like: Tensor) -> Tensor:
    """[K] as [K, 1, ...]; other shapes as they are."""
    return beta.reshape(-1, *[1] * (like.ndim - 1)) if beta.ndim == 1 else beta
