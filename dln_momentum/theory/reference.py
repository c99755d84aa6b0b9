"""The oracle: the poster's update, written as the poster writes it.

Slow and plain on purpose. Every backend of the engine is tested against it.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from dln_momentum.problem import Problem


def reference_iterates(
    problem: Problem,
    u: Tensor,
    v: Tensor,
    gamma: Tensor | float,
    beta: Tensor | float,
    weights: Tensor | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate SMGD(gamma, beta) from rest; endless.

    (docs/theory.md#diagonal-network; poster, section 3.)

        u_{k+1} = u_k - gamma g_k * v_k + beta (u_k - u_{k-1}),    v likewise with u_k

    Args:
        problem: the data.
        u, v: u_0 = u_1 and v_0 = v_1, [*runs, d].
        gamma, beta: numbers, or tensors [*runs, 1].
        weights: how often each row is in batch k, times n / batch size, [steps, *runs or 1, n];
            the full batch without it.

    Yields:
        (u_{k+1}, v_{k+1}) for k = 1, 2, ...

    >>> import torch
    >>> problem = Problem(X=[[1.0, 2.0]], y=[2.0])
    >>> u, v = torch.tensor([1.0, 1.0]), torch.tensor([0.0, 0.5])
    >>> u, v = next(reference_iterates(problem, u, v, gamma=0.1, beta=0.9))
    >>> u.tolist(), [round(x, 3) for x in v.tolist()]
    ([1.0, 1.1], [0.1, 0.7])
    """
    u_before, v_before = u, v
    step = 0
    while True:
        residual = problem.residual(u * v)
        if weights is not None:
            residual = residual * weights[step]
        gradient = (residual.unsqueeze(-2) @ problem.X).squeeze(-2) / problem.n
        u_next = u - gamma * gradient * v + beta * (u - u_before)
        v_next = v - gamma * gradient * u + beta * (v - v_before)
        u_before, v_before, u, v = u, v, u_next, v_next
        step += 1
        yield u, v
