"""Textbook batched torch: u and v of all runs, the gradient written out, S summed directly."""

from __future__ import annotations

import torch
from torch import Tensor

from benchmarks.setup import Advance, Task


def textbook(task: Task) -> Advance:
    """SMGD(gamma, beta) as the paper writes it, for all runs at once."""
    X, y = task.problem.X, task.problem.y
    u, v = task.start()
    u_before, v_before = u, v
    s_plus, s_minus = torch.zeros_like(u), torch.zeros_like(u)

    def advance(steps: int) -> Tensor:
        nonlocal u, v, u_before, v_before
        loss = torch.zeros(task.runs)
        for _ in range(steps):
            residual = (u * v) @ X.T - y
            loss = residual.square().sum(-1) / (2 * task.n)
            gradient = residual @ X / task.n
            u_next = u - task.gamma * gradient * v + task.beta * (u - u_before)
            v_next = v - task.gamma * gradient * u + task.beta * (v - v_before)
            s_plus.add_(_increment(u + v, u_next + v_next, task.beta))
            s_minus.add_(_increment(u - v, u_next - v_next, task.beta))
            u_before, v_before, u, v = u, v, u_next, v_next
        return loss

    return advance


def _increment(w: Tensor, w_next: Tensor, beta: float) -> Tensor:
    forward, backward = w_next / w, w / w_next
    return ((forward - 1 - forward.abs().log()) + beta * (backward - 1 - backward.abs().log())) / (
        1 - beta
    )
