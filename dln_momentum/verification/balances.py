"""The log-free identity of balances on small networks with weight decay, on the setting's data.

(docs/theory.md#balances; not on the poster.) The steps are normalised, gamma_k = SIZE/||gradient||,
so that no data make them diverge.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dln_momentum.theory.balances import (
    Form,
    RunningBalance,
    linear_form,
    neuron_form,
    product_form,
)
from dln_momentum.verification.measurements import Measurements
from dln_momentum.verification.recorded import ULP
from dln_momentum.verification.statement import Statement, equal

STEPS, SIZE, OMEGA = 60, 0.02, 1e-3
WIDTH = 3

Network = Callable[[list[Tensor], Tensor], Tensor]


def of_unequal_layers(m: Measurements) -> Statement:
    """u_(l+1)^2 - u_l^2 of theta = u_1 u_2 u_3."""
    d = m.problem.d
    return _judged(
        m,
        "Balances: u_2^2 - u_1^2 of theta = u_1 u_2 u_3",
        [(d,), (d,), (d,)],
        lambda w, X: X @ (w[0] * w[1] * w[2]),
        product_form,
        2,
    )


def of_neurons(m: Measurements) -> Statement:
    """||a_j||^2 - ||w_j||^2 - b_j^2 of each neuron of a two-layer ReLU network."""
    d = m.problem.d
    return _judged(
        m,
        "Balances: a_j^2 - ||w_j||^2 - b_j^2 of ReLU neurons",
        [(WIDTH, d), (1, WIDTH), (WIDTH,)],
        lambda w, X: (torch.relu(X @ w[0].mT + w[2]) @ w[1].mT)[:, 0],
        neuron_form,
        3,
    )


def of_linear_layers(m: Measurements) -> Statement:
    """W_2^T W_2 - W_1 W_1^T of a deep linear network."""
    d = m.problem.d
    return _judged(
        m,
        "Balances: W_2^T W_2 - W_1 W_1^T of linear layers",
        [(WIDTH, d), (2, WIDTH), (1, 2)],
        lambda w, X: (X @ w[0].mT @ w[1].mT @ w[2].mT)[:, 0],
        linear_form,
        2,
    )


def _judged(
    m: Measurements,
    name: str,
    shapes: list[tuple[int, ...]],
    network: Network,
    form: Form,
    count: int,
) -> Statement:
    """Train the network by heavy ball, and compare the balance of its first `count` parameters."""
    generator = torch.Generator().manual_seed(0)
    X, y, beta = m.problem.X, m.problem.y, m.momentum.beta
    now = [
        (torch.randn(shape, generator=generator, dtype=X.dtype) / 4).requires_grad_()
        for shape in shapes
    ]
    last = [torch.zeros_like(w) for w in now]
    balance = RunningBalance.of(form, [w.detach() for w in now[:count]])
    start, total = balance.measured, 0.0
    for _ in range(STEPS):
        loss = (network(now, X) - y).square().mean() / 2
        gradients = torch.autograd.grad(loss, now)
        norm = torch.sqrt(sum((g.square().sum() for g in gradients), torch.zeros(()).to(X)))
        gamma = SIZE / float(norm) if float(norm) > 0 else 0.0
        last = [
            beta * b - gamma * (g + OMEGA * w.detach())
            for w, b, g in zip(now, last, gradients, strict=True)
        ]
        now = [(w.detach() + b).requires_grad_() for w, b in zip(now, last, strict=True)]
        balance.add([w.detach() for w in now[:count]], beta, gamma * OMEGA)
        total += max(float(w.detach().abs().max()) ** 2 for w in now)
    measured = balance.measured
    return equal(
        name,
        6,
        predicted=(balance.predicted - start).abs().max(),
        measured=(measured - start).abs().max(),
        error=(balance.predicted - measured).abs().max(),
        # roundings of squares, of sums over d entries, each carried on 1/(1-beta) times
        tolerance=4 * ULP * m.problem.d**0.5 * total / (1 - beta),
    )
