"""The log-free identity of balances, for networks whose layers are homogeneous in pairs.

Take heavy ball on any parameters, w_{k+1} = w_k + D_k, D_k = beta_k D_{k-1} - gamma_k (G_k +
omega_k w_k), and a quadratic form Q(w) = B(w, w), B symmetric, with B(w, G(w)) = 0 for every
gradient. For q_k = Q(w_k) and d_k = Q(D_k) (docs/theory.md#balances; not on the poster),

    m_k = beta_k m_{k-1} + 2 d_k - 2 gamma_k omega_k q_k,   q_{k+1} = q_k + m_k - d_k,
    m_0 = q_1 - q_0 + d_0 = 2 B(w_1, D_0), which is 0 at rest:

the balance is a function of the increments alone. No logarithm appears, and w may vanish. Without
decay, q_{K+1} - q_1 = sum_k (2 p_k - 1) d_k + p_1 beta_1 m_0. Of Nesterov's method it holds with

    q_{k+1} = (1 - 2 gamma_k omega_k) (q_k + beta_k m_{k-1} + beta_k^2 d_{k-1}) + Q(x_{k+1} - z_k),
    m_k = q_{k+1} - q_k + d_k.

Such balances: u_{l+1}^2 - u_l^2 of a product u_1 * ... * u_L of vectors; per hidden neuron of a
ReLU network ||a_j||^2 - ||w_j||^2 - b_j^2 (outgoing less incoming weights and bias); and the matrix
W_{l+1}^T W_{l+1} - W_l W_l^T - b_l b_l^T of linear layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Weights = Sequence[Tensor]
Form = Callable[[Weights, Weights], Tensor]
"""B(x, y): symmetric and bilinear, of two lists of the same parameters."""


def product_form(x: Weights, y: Weights) -> Tensor:
    """Two factors of a product of vectors: u_{l+1} u'_{l+1} - u_l u'_l, entry by entry.

    >>> u = [torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0])]
    >>> product_form(u, u).tolist()
    [8.0, -3.0]
    """
    return x[1] * y[1] - x[0] * y[0]


def neuron_form(x: Weights, y: Weights) -> Tensor:
    """Hidden neurons of a homogeneous activation (ReLU, leaky ReLU): [..., m].

    Of the weights W_l [..., m, in], W_{l+1} [..., out, m] and, if there is one, the bias b_l
    [..., m]: the diagonal of `linear_form`.

    >>> w = [torch.tensor([[3.0, 4.0]]), torch.tensor([[1.0], [2.0]]), torch.tensor([1.0])]
    >>> neuron_form(w, w).tolist()
    [-21.0]
    """
    inner = (x[0] * y[0]).sum(-1)
    if len(x) > 2:
        inner = inner + x[2] * y[2]
    return (x[1] * y[1]).sum(-2) - inner


def linear_form(x: Weights, y: Weights) -> Tensor:
    """Two linear layers: the symmetric part of W_{l+1}^T W'_{l+1} - W_l W'_l^T - b_l b'_l^T.

    Of the weights W_l [..., m, in], W_{l+1} [..., out, m] and, if there is one, the bias b_l.
    """
    found = x[1].mT @ y[1] - x[0] @ y[0].mT
    if len(x) > 2:
        found = found - x[2].unsqueeze(-1) * y[2].unsqueeze(-2)
    return (found + found.mT) / 2


@dataclass
class Recursion:
    """q_k by the recursion, from the products of increments.

    Attributes:
        predicted: q_k.
        carried: m_{k-1}.
        product: d_{k-1}.
    """

    predicted: Tensor
    carried: Tensor
    product: Tensor

    def advance(
        self,
        product: Tensor,
        beta: Tensor | float,
        decay_step: Tensor | float = 0.0,
        short_product: Tensor | None = None,
    ) -> None:
        """Go on to q_{k+1}.

        Args:
            product: d_k = Q(w_{k+1} - w_k).
            beta: beta_k.
            decay_step: gamma_k omega_k of coupled decay.
            short_product: Q(x_{k+1} - z_k) of Nesterov's method; None for heavy ball.
        """
        q = self.predicted
        if short_product is None:
            self.carried = beta * self.carried + 2 * product - 2 * decay_step * q
            self.predicted = q + self.carried - product
        else:
            at_ahead = q + beta * self.carried + beta * beta * self.product
            self.predicted = (1 - 2 * decay_step) * at_ahead + short_product
            self.carried = self.predicted - q + product
        self.product = product


@dataclass
class RunningBalance(Recursion):
    """The balance that the increments predict, with the weights that it is of.

    Attributes:
        form: B.
        weights: w_k.

    >>> w = [torch.tensor([1.0]), torch.tensor([0.5])]
    >>> balance = RunningBalance.of(product_form, w)
    >>> g = 2.0  # a step of gamma = 0.1: each factor moves by -gamma g times the other
    >>> moved = [w[0] - 0.1 * g * w[1], w[1] - 0.1 * g * w[0]]
    >>> balance.add(moved, beta=0.9)
    >>> round(balance.predicted.item(), 6) == round(product_form(moved, moved).item(), 6)
    True
    """

    form: Form
    weights: list[Tensor]

    @classmethod
    def of(cls, form: Form, weights: Weights, before: Weights | None = None) -> RunningBalance:
        """The balance at w_1, before the first step.

        Args:
            form: B.
            weights: w_1.
            before: w_0; None from rest.
        """
        now = [w.clone() for w in weights]
        q = form(now, now)
        if before is None:
            zero = torch.zeros_like(q)
            return cls(q, zero, zero, form, now)
        last = [w - b for w, b in zip(now, before, strict=True)]
        return cls(q, 2 * form(now, last), form(last, last), form, now)

    @property
    def measured(self) -> Tensor:
        """Q(w_k)."""
        return self.form(self.weights, self.weights)

    def add(
        self,
        weights: Weights,
        beta: Tensor | float,
        decay_step: Tensor | float = 0.0,
        step_from: Weights | None = None,
    ) -> None:
        """Go on to w_{k+1}.

        Args:
            weights: w_{k+1}.
            beta: beta_k.
            decay_step: gamma_k omega_k of coupled decay.
            step_from: z_k, the point ahead of Nesterov's method; None for heavy ball.
        """
        now = [w.clone() for w in weights]
        increment = [a - b for a, b in zip(now, self.weights, strict=True)]
        short_product = None
        if step_from is not None:
            short = [a - b for a, b in zip(now, step_from, strict=True)]
            short_product = self.form(short, short)
        self.weights = now
        self.advance(self.form(increment, increment), beta, decay_step, short_product)
