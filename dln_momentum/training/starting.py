"""How a run of `HeavyBallModule` starts: what is refused, and the initial speed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from dln_momentum.engine.problems import groups_of
from dln_momentum.method import Method
from dln_momentum.network import DiagonalLinearNet
from dln_momentum.optimizer import HeavyBall
from dln_momentum.problem import Problem
from dln_momentum.rates import eps_of
from dln_momentum.schedules import Constant
from dln_momentum.training.datamodule import BlockDataModule

Gradient = Literal["closed_form", "autograd"]


def module_problems(
    net: nn.Module, gradient: str, speed: float, method: Method, data: BlockDataModule
) -> Iterator[str]:
    """What keeps a network from being trained."""
    if gradient == "autograd" or not isinstance(net, DiagonalLinearNet):
        if not replace(method, schedule=Constant()).is_plain:
            yield (
                "method: autograd trains by HeavyBall, with a schedule or without; another method "
                "needs gradient = 'closed_form' and a diagonal network"
            )
        if data.problem.is_classification and data.label_noise is not None:
            yield f"label noise needs loss = 'squared', not {data.problem.loss_name!r}"
    if not math.isfinite(speed):
        yield f"speed = {speed:g} must be finite"
    kinds = {parameter.dtype for parameter in net.parameters()} - {torch.float64}
    if kinds:
        yield f"net has parameters of {', '.join(map(str, kinds))}: make them double, net.double()"
    if gradient not in get_args(Gradient):
        yield f"gradient = {gradient!r} must be one of {', '.join(get_args(Gradient))}"
    if gradient == "autograd" and isinstance(net, DiagonalLinearNet) and net.u[..., 0].numel() > 1:
        yield f"gradient = 'autograd' trains one network; u has shape {[*net.u.shape]}"


def set_initial_speed(
    net: nn.Module, optimizer: HeavyBall, data: BlockDataModule, speed: float
) -> None:
    """Give the optimizer w_1 - w_0 = eps w'(0), w'(0) = -speed grad F(w_1)."""
    group = optimizer.param_groups[0]
    eps = torch.as_tensor(eps_of(group["lr"], group["momentum"]), dtype=torch.float64)
    for part in groups_of(data.problems):
        runs = part.places
        gradients = _full_gradients(net, part.problem, runs)
        for parameter, gradient in zip(net.parameters(), gradients, strict=True):
            increment = optimizer.increment(parameter)
            if not isinstance(net, DiagonalLinearNet):
                increment.copy_(-speed * eps * gradient)
                continue
            rows = increment.view(-1, increment.shape[-1])
            step = eps.expand(len(rows))[runs].to(rows)[:, None]
            rows[runs] = -speed * step * gradient


def _full_gradients(net: nn.Module, problem: Problem, runs: slice | Tensor) -> list[Tensor]:
    """grad F of the full batch for each parameter; of a diagonal network, [R, d] of these runs."""
    if isinstance(net, DiagonalLinearNet):
        u, v = (w.detach().reshape(-1, w.shape[-1])[runs] for w in (net.u, net.v))
        if net.is_deep:
            D = net.depth.reshape(-1)[:, None].to(u)
            gradient = problem.gradient(u**D - v**D)
            return [D * u ** (D - 1) * gradient, -D * v ** (D - 1) * gradient]
        gradient = problem.gradient(u * v)
        return [gradient * v, gradient * u]
    loss = problem.loss_of_row.value(net(problem.X).reshape(problem.n), problem.y).mean()
    return list(torch.autograd.grad(loss, list(net.parameters())))
