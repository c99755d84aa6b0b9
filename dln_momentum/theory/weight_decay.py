"""Implicit bias under weight decay, coupled to the gradient or decoupled from it.

Coupled, gradient + omega_k w (docs/theory.md#weight-decay; not on the poster): with the weights
p_k and the sums S_+- of `dln_momentum.theory.schedules` or of `dln_momentum.theory.nesterov`,

    Delta_{K+1} = |w_{+,1} w_{-,1}| exp(-(S_+ + S_-)) exp(-2 sum_k p_k gamma_k omega_k),

and c is unchanged. Decoupled (SGDW), with m_k the momentum's own increment,

    w_{k+1} = (1 - eta_k) w_k + m_k,   m_k = beta_k m_{k-1} - gamma_k grad F(w_k):

the rescaled iterates w_k/prod_{j<k} (1 - eta_j) are those of gamma_k/(1 - eta_k) and
beta_k/(1 - eta_k) without decay.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dln_momentum.theory.schedules import weighted_sums


def balancedness_factor(decay_step: Tensor, beta: Tensor) -> Tensor:
    """exp(-2 sum_k p_k gamma_k omega_k) at every horizon, [K, ...]: coupled decay's part of Delta.

    Args:
        decay_step: gamma_k omega_k of steps 1..K, [K, ...]; 0 where the decay is off.
        beta: beta_1, ..., beta_K.

    >>> half = torch.full((2,), 0.5)
    >>> [f"{x:.4f}" for x in balancedness_factor(torch.tensor([0.1, 0.0]), half).log()]
    ['-0.2000', '-0.3000']
    """
    return torch.exp(-2 * weighted_sums(decay_step, beta))


def shrinkage(shrink: Tensor) -> Tensor:
    """prod_{j<k} (1 - eta_j) for k = 1, ..., K+1, [K+1, ...], from eta_1, ..., eta_K.

    >>> shrinkage(torch.tensor([0.5, 0.5])).tolist()
    [1.0, 0.5, 0.25]
    """
    return torch.cat([torch.ones_like(shrink[:1]), (1 - shrink).cumprod(0)])


def rescaled(w: Tensor, shrink: Tensor) -> Tensor:
    """The iterates without their decoupled decay, w_k/prod_{j<k} (1 - eta_j), [K+1, ...].

    theta and Delta of the iterates are those of the rescaled ones times the square of the product;
    c, the exponents and the row-space condition are the same.

    Args:
        w: w_1, ..., w_{K+1}, [K+1, ...].
        shrink: eta_1, ..., eta_K in [0, 1), [K].
    """
    return w / shrinkage(shrink).reshape(-1, *[1] * (w.ndim - 1))
