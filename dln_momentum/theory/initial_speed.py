"""The initial speed of a run or a flow, as a multiple of gradient flow's."""

from __future__ import annotations

from torch import Tensor

from dln_momentum.problem import Problem
from dln_momentum.theory.trajectory import theta_of


def gradient_velocity(
    problem: Problem,
    w_plus: Tensor,
    w_minus: Tensor,
    speed: float,
    depth: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """w_+-'(0) = -speed grad F(w_0) = -+ speed grad L(theta_0) w_+-, [*runs, d] each.

    (docs/theory.md#initial-speed; not on the poster.)

    speed = 0 is rest, where the poster starts, and speed = 1 the velocity of gradient
    flow. A discrete run of time step eps has w_1 - w_0 = eps w'(0). With ``depth`` D > 2, a number
    or one for each run, the pair is (u, v) of theta = u^D - v^D (docs/theory.md#depth).

    >>> import torch
    >>> problem, one = Problem(X=[[1.0, 2.0]], y=[2.0]), torch.ones(2, dtype=torch.float64)
    >>> gradient_velocity(problem, one, one, speed=1.0)[0].tolist()
    [2.0, 4.0]
    """
    if depth is not None and bool((depth != 2).any()):
        D = depth[..., None].to(w_plus)
        gradient = problem.gradient(w_plus**D - w_minus**D)
        return (
            -speed * D * w_plus ** (D - 1) * gradient,
            speed * D * w_minus ** (D - 1) * gradient,
        )
    gradient = problem.gradient(theta_of((w_plus, w_minus)))
    return -speed * gradient * w_plus, speed * gradient * w_minus
