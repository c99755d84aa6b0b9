"""What the iterates of a run of the family show at each step, whatever the method.

A step of heavy ball or Nesterov's method, with or without coupled weight decay, is

    e_{+-,k} = x_{+-,k+1} - x_{+-,k} - beta_k (x_{+-,k} - x_{+-,k-1})
             = (-+ gamma_k g_k - gamma_k omega_k) b_{+-,k},

with b_k = x_k of heavy ball and b_k = z_k, the point ahead, of Nesterov's method. The iterates and
beta_k give e_+-, and with it (docs/theory.md#what-is-tested; not on the poster)

- the asymmetry b_- e_+ + b_+ e_- + 2 gamma_k omega_k b_+ b_-, which is 0 for any g_k;
- gamma_k g_k = -(b_+ e_+ - b_- e_- + gamma_k omega_k (b_+^2 - b_-^2))/(b_+^2 + b_-^2), which lies
  in span(x_1..x_n).

No logarithm is taken, so that a fault of one step is found to rounding.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from dln_momentum.theory.nesterov import weighted_remainder
from dln_momentum.theory.schedules import backward_remainder

SAFETY = 4.0
"""Roundings of w_+- in a step: in the gradient and in the increment too, not in storage alone."""


class StepTerms(NamedTuple):
    """The terms of one step or of many; `...` is [] or [K]."""

    weighted: Tensor
    """the term of S_+- whose weight is p_k, [..., 2, d]"""
    backward: Tensor
    """r(x_k/x_{k+1}), which S_+- takes off once, [..., 2, d]"""
    rounding: Tensor
    """error of S_+- from the rounding of x_{k+1}, [..., 2, d]"""
    weighted_rounding: Tensor
    """the same, of that part whose weight is p_k, [..., 2, d]"""
    asymmetry: Tensor
    """the asymmetry over b_+^2 + b_-^2, [..., d]"""
    step: Tensor
    """gamma_k g_k by the iterates, [..., d]"""
    product: Tensor
    """d_k = (increment of x_+) (increment of x_-), [..., d]"""
    short_product: Tensor
    """the same of x_{k+1} - b_k, [..., d]"""
    base: Tensor
    """b_k, [..., 2, d]"""


def step_terms(
    x_before: Tensor,
    x: Tensor,
    x_next: Tensor,
    beta: Tensor | float,
    decay_step: Tensor | float = 0.0,
    *,
    nesterov: bool = False,
    ulp: float = torch.finfo(torch.float64).eps,
) -> StepTerms:
    """Evaluate the terms of step k from x_{k-1}, x_k and x_{k+1}.

    Args:
        x_before, x, x_next: (w_+, w_-) stacked, [..., 2, d], nowhere zero.
        beta: beta_k, broadcastable to [..., 2, d].
        decay_step: gamma_k omega_k of coupled decay, broadcastable to [..., d].
        nesterov: whether gradients are taken at the point ahead.
        ulp: relative rounding of the arithmetic that computed the iterates.

    >>> x = torch.tensor([[2.0], [1.0]], dtype=torch.float64)
    >>> terms = step_terms(x, x, x * torch.tensor([[0.9], [1.1]]), beta=0.5)
    >>> f"{terms.step.item():.6f} {abs(terms.asymmetry.item()) < 1e-7}"
    '0.100000 True'
    """
    carried = beta * (x - x_before)
    base = x + carried if nesterov else x
    increment = x_next - x
    e = increment - carried
    plus, minus = base[..., 0, :], base[..., 1, :]
    e_plus, e_minus = e[..., 0, :], e[..., 1, :]
    size, squares = plus.square() + minus.square(), plus.square() - minus.square()
    asymmetry = minus * e_plus + plus * e_minus + 2 * decay_step * plus * minus
    short = x_next - base
    # half an ulp of u and of v, whose |.| add to the larger |w_+-|, and as much of u +- v
    one_ulp = SAFETY * ulp * x_next.abs().amax(-2, keepdim=True)
    weighted_rounding = one_ulp * (increment / x / x_next).abs()
    if nesterov:
        # r(x_{k+1}/z) + r(z/x_k) moves by 1/x_k - x_{k+1}/z^2 with z
        moves = (1 / x - x_next / base / base).abs()
        weighted_rounding += SAFETY * ulp * base.abs().amax(-2, keepdim=True) * moves
    return StepTerms(
        weighted=weighted_remainder(x, base, x_next),
        backward=backward_remainder(x, x_next),
        rounding=one_ulp / x_next.abs(),
        weighted_rounding=weighted_rounding,
        asymmetry=asymmetry / size,
        step=-(plus * e_plus - minus * e_minus + decay_step * squares) / size,
        product=increment[..., 0, :] * increment[..., 1, :],
        short_product=short[..., 0, :] * short[..., 1, :],
        base=base,
    )
