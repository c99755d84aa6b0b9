"""One run of any member of the family, written out: (u, v), one step after the other, plain torch.

It shares no code with the engine: the parameters are the layers themselves, schedules are lists,
and S is summed by its definition, backward from the horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class WrittenRun:
    """The iterates of both layers, [K + 2, d] each from step 0 on, and what S needs."""

    u: Tensor
    v: Tensor
    ahead: list[Tensor]
    gamma: list[float]
    beta: list[float]


def written_run(
    X: Tensor,
    y: Tensor,
    u: Tensor,
    v: Tensor,
    gamma: list[float],
    beta: list[float],
    *,
    nesterov: bool = False,
    loss: str = "squared",
    omega: float = 0.0,
    decoupled: bool = False,
    until: int = 10**9,
    tau: float = 0.0,
    kappa: Tensor | float = 1.0,
    ratio: float = 1.0,
    depth: float = 2.0,
    before: tuple[Tensor, Tensor] | None = None,
    weights: Tensor | None = None,
    noise: Tensor | None = None,
) -> WrittenRun:
    """The run; gamma and beta hold those of steps 1, ..., K; batch weights and noise are [K, n]."""
    n, previous = len(y), before or (u, v)
    path = [(previous[0], previous[1]), (u, v)]
    momentum = [u - previous[0], v - previous[1]]
    points = []
    for k in range(1, len(gamma) + 1):
        at = [u, v]
        if nesterov:
            at = [w + beta[k - 1] * m for w, m in zip(at, momentum, strict=True)]
        points.append(torch.cat(at))
        theta = at[0] * at[1] if depth == 2 else at[0] ** depth - at[1] ** depth
        prediction = X @ theta
        if loss == "squared":
            r = prediction - (y if noise is None else y + noise[k - 1])
        elif loss == "logistic":
            r = -y / (1 + torch.exp(y * prediction))
        else:
            r = -y * torch.exp(-y * prediction)
        if weights is not None:
            r = r * weights[k - 1]
        g = kappa * (X.T @ r) / n
        if depth == 2:
            gradients = [g * at[1] / ratio**0.5, g * at[0] * ratio**0.5]
        else:
            gradients = [g * depth * at[0] ** (depth - 1), -g * depth * at[1] ** (depth - 1)]
        decay = omega if k <= until else 0.0
        damped = 1.0 if k == 1 else 1 - tau
        new = []
        for i in range(2):
            pull = gradients[i] + (0.0 if decoupled else decay * at[i])
            if nesterov:
                new.append(at[i] - gamma[k - 1] * pull)
                momentum[i] = new[i] - (u, v)[i]
            else:
                momentum[i] = beta[k - 1] * momentum[i] - damped * gamma[k - 1] * pull
                keep = 1 - gamma[k - 1] * decay if decoupled else 1.0
                new.append(keep * at[i] + momentum[i])
        u, v = new
        path.append((u, v))
    return WrittenRun(
        torch.stack([p[0] for p in path]), torch.stack([p[1] for p in path]), points, gamma, beta
    )


def r(z: Tensor) -> Tensor:
    return (z - 1) - torch.log(z.abs())


def weights_of(beta: list[float]) -> list[float]:
    """p_1, ..., p_K, backward from the horizon."""
    p = [1.0]
    for b in reversed(beta[1:]):
        p.append(1 + b * p[-1])
    return p[::-1]


def path_sums(w: Tensor, beta: list[float], ahead: list[Tensor] | None = None) -> Tensor:
    """S by its definition, of w_0, ..., w_{K+1}, [K + 2, d], and z_1, ..., z_K of Nesterov."""
    p = weights_of(beta)
    total = -p[0] * beta[0] * (1 - w[0] / w[1])
    for k in range(1, len(w) - 1):
        a = w[k + 1] / w[k]
        if ahead is None:
            first: Any = r(a)
        else:
            first = r(w[k + 1] / ahead[k - 1]) + r(ahead[k - 1] / w[k])
        total = total + p[k - 1] * first + (p[k - 1] - 1) * r(1 / a)
    return total
