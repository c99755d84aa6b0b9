"""Implicit bias under step sizes and momenta that change at every step, from any initial speed.

    w_{+-,k+1} = w_{+-,k} -+ gamma_k g_k w_{+-,k} + beta_k (w_{+-,k} - w_{+-,k-1}),   k = 1, ..., K,

with any g_k in span(x_1..x_n). With the weights p_K = 1, p_k = 1 + beta_{k+1} p_{k+1} and
a_k = w_{k+1}/w_k (docs/theory.md#schedules; not on the poster),

    S_+- = sum_k [ p_k r(a_k) + (p_k - 1) r(1/a_k) ] - p_1 beta_1 (1 - w_0/w_1),
    Delta_{K+1} = |w_{+,1} w_{-,1}| exp(-(S_+ + S_-)),   c = ln|w_{+,1}/w_{-,1}| - S_+ + S_-,
    arcsinh(2 theta_{K+1}/Delta_{K+1}) = c - 2 sum_k p_k gamma_k g_k.

p_k depends on the horizon K. The functions here take the forward form, which gives the sums at
every horizon in one pass: with T_0 = -(1 - w_0/w_1) and

    T_k = A_k + beta_k T_{k-1},   A_k = r(a_k) + r(1/a_k) = (w_{k+1} - w_k)^2/(w_k w_{k+1}),

S_+- is sum_k T_k - sum_k r(1/a_k).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from dln_momentum.theory.discrete_bias import log_abs_ratio


@dataclass
class RunningSum:
    """sum_k p_k x_k at the present horizon, from one term a step.

    With T_k = x_k + beta_k T_{k-1}, the sum of the T_j up to K is sum_k p_k x_k, because p_k is the
    sum over j = k..K of beta_{k+1} ... beta_j (docs/theory.md#forward-form).

    Attributes:
        running: T_k; at the start T_0, which enters as p_1 beta_1 T_0.
        total: the sum of T_1, ..., T_k.

    >>> sums = RunningSum(running=torch.zeros(()), total=torch.zeros(()))
    >>> for _ in range(3):
    ...     sums.add(torch.ones(()), beta=0.5)
    >>> float(sums.total)  # p = 1.75, 1.5, 1
    4.25
    """

    running: Tensor
    total: Tensor

    @classmethod
    def of(cls, start: Tensor) -> RunningSum:
        """The sum before the first step, with T_0 = start."""
        return cls(start.clone(), torch.zeros_like(start))

    def add(self, term: Tensor, beta: Tensor | float) -> None:
        """Go on to the next horizon."""
        self.running = term + beta * self.running
        self.total = self.total + self.running


def weighted_sums(terms: Tensor, beta: Tensor, start: Tensor | float = 0.0) -> Tensor:
    """sum_k p_k x_k + p_1 beta_1 T_0 for every horizon K = 1, ..., [K, ...].

    Of the terms gamma_k g_k it is the exponent that the gradients add to ln|w_-| and take from
    ln|w_+|.

    Args:
        terms: x_1, ..., x_K, [K, ...].
        beta: beta_1, ..., beta_K, [K, ...], broadcastable step by step.
        start: T_0.

    >>> weighted_sums(torch.ones(3), torch.full((3,), 0.5)).tolist()
    [1.0, 2.5, 4.25]
    """
    sums = RunningSum.of(torch.as_tensor(start, dtype=terms.dtype).expand_as(terms[0]))
    totals = []
    for term, b in zip(terms, beta, strict=True):
        sums.add(term, b)
        totals.append(sums.total)
    return torch.stack(totals)


def speed_term(w_before: Tensor, w: Tensor) -> Tensor:
    """T_0 = -(1 - w_0/w_1), what the initial speed starts the sums with; 0 at rest."""
    return (w_before - w) / w


def backward_remainder(w: Tensor, w_next: Tensor) -> Tensor:
    """r(1/a) = (w_k/w_{k+1} - 1) + ln|w_{k+1}/w_k|, accurate for a small step."""
    return log_abs_ratio(w, w_next) - (w_next - w) / w_next


def path_sums(w: Tensor, beta: Tensor, w_before: Tensor | None = None) -> Tensor:
    """S_+- at every horizon, from the iterates and the momenta alone.

    It takes no gradient and no step size, so that the theorem can fail.

    Args:
        w: w_1, ..., w_{K+1} of w_+ or w_- (or both), [K+1, ...], nowhere zero.
        beta: beta_1, ..., beta_K, [K] or broadcastable step by step.
        w_before: w_0; None from rest.

    Returns:
        S after steps 1, ..., K, [K, ...].

    >>> w = torch.tensor([1.0, 1.25, 1.0, -0.5], dtype=torch.float64)
    >>> [f"{s:.6f}" for s in path_sums(w, torch.tensor([0.5, 0.5, 0.5], dtype=w.dtype))]
    ['0.026856', '0.075000', '-0.694353']
    """
    step = w[1:] - w[:-1]
    start = torch.zeros_like(w[0]) if w_before is None else speed_term(w_before, w[0])
    weighted = weighted_sums(step / w[:-1] * (step / w[1:]), beta, start)
    return weighted - backward_remainder(w[:-1], w[1:]).cumsum(0)


def torch_momentum(lr: ArrayLike, momentum: ArrayLike) -> Tensor:
    """beta_k of `torch.optim.SGD` whose learning rate changes, [K].

    Its buffer m_k = mu_k m_{k-1} + g_k is multiplied by the present rate, w_{k+1} = w_k - lr_k m_k,
    so that the increment before is carried on with beta_k = mu_k lr_k/lr_{k-1}; beta_1 = 0, as the
    buffer is empty at first.

    Args:
        lr: the rates of steps 1..K, positive.
        momentum: mu, a number or [K].

    Returns:
        float64 [K].

    >>> torch_momentum([0.1, 0.1, 0.05], 0.9).tolist()
    [0.0, 0.9, 0.45]
    """
    lr, momentum = (torch.as_tensor(x, dtype=torch.float64) for x in (lr, momentum))
    beta = momentum * lr / torch.cat([lr[:1], lr[:-1]])
    return torch.cat([torch.zeros_like(beta[:1]), beta[1:]])
