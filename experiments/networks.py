"""Networks beyond the diagonal one, many at once, and what they are trained on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor, nn

from dln_momentum.problem import stack
from experiments.common import sparse_problems


class ReluNetworks(nn.Module):
    """x -> sum_j a_j relu(<w_j, x>)/sqrt(m) for R networks of m neurons.

    Args:
        inner: w, [R, m, dim].
        outer: a, [R, m].
    """

    def __init__(self, inner: Tensor, outer: Tensor) -> None:
        super().__init__()
        self.inner, self.outer = nn.Parameter(inner.clone()), nn.Parameter(outer.clone())

    def forward(self, x: Tensor) -> Tensor:
        """[R, rows, dim] inputs to [R, rows] outputs."""
        hidden = torch.relu(x @ self.inner.mT)
        return (hidden @ self.outer.unsqueeze(-1)).squeeze(-1) / self.outer.shape[-1] ** 0.5


class DeepDiagonalNetworks(nn.Module):
    """x -> <u_1 * u_2 * u_3, x> for R networks.

    Args:
        layers: u_1, u_2, u_3, [3, R, d].
    """

    def __init__(self, layers: Tensor) -> None:
        super().__init__()
        self.layers = nn.ParameterList(layer.clone() for layer in layers)

    def forward(self, x: Tensor) -> Tensor:
        """[R, rows, d] inputs to [R, rows] outputs."""
        first, second, third = self.layers
        return (x @ (first * second * third).unsqueeze(-1)).squeeze(-1)


@dataclass(frozen=True)
class Task:
    """One data set and one initialisation for each of S seeds."""

    name: str
    time: float
    """how long paths are followed, in t = k eps"""
    tol: float
    """the training loss, over that at the start, whose first step is counted"""
    x: Tensor
    """[S, n, dim]"""
    y: Tensor
    """[S, n]"""
    x_test: Tensor
    """[S, rows, dim]"""
    y_test: Tensor
    """[S, rows]"""
    networks: Callable[[int], nn.Module]
    """as many copies of the S networks as asked for, copies slowest"""


def relu_task(config: DictConfig, seeds: int) -> Task:
    """A wide two-layer ReLU student of a narrow teacher, Gaussian inputs."""
    parts = [_teacher_and_student(config, seed) for seed in range(seeds)]
    x, y, inner, outer = (torch.stack(tensors) for tensors in zip(*parts, strict=True))
    n = config.n
    return Task(
        name="two-layer ReLU",
        time=config.time,
        tol=config.tol,
        x=x[:, :n],
        y=y[:, :n],
        x_test=x[:, n:],
        y_test=y[:, n:],
        networks=lambda copies: ReluNetworks(inner.repeat(copies, 1, 1), outer.repeat(copies, 1)),
    )


def deep_diagonal_task(config: DictConfig, seeds: int) -> Task:
    """Sparse recovery by u_1 u_2 u_3 from u_1 = u_2 = alpha, u_3 = 0, so that theta_0 = 0."""
    problem = stack(sparse_problems(config.n, config.d, config.s, seeds))
    assert problem.X_test is not None
    assert problem.y_test is not None
    start = config.alpha * torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)
    return Task(
        name="depth-3 diagonal",
        time=config.time,
        tol=config.tol,
        x=problem.X,
        y=problem.y,
        x_test=problem.X_test,
        y_test=problem.y_test,
        networks=lambda copies: DeepDiagonalNetworks(
            start[:, None, None].expand(3, copies * seeds, config.d)
        ),
    )


def _teacher_and_student(config: DictConfig, seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Inputs, the teacher's outputs, and the student's layers."""
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.standard_normal(shape))

    x = normal(config.n + config.n_test, config.dim)
    teacher = normal(config.teacher, config.dim) / config.dim**0.5
    y = torch.relu(x @ teacher.T).sum(-1)
    return (
        x,
        y,
        config.scale * normal(config.width, config.dim),
        config.scale * normal(config.width),
    )
