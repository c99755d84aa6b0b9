"""Sharpness of every loss and depth, and where the last step of each method is unstable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import dln_momentum as dln
from dln_momentum.theory import curvature
from dln_momentum.theory.curvature import batch_sharpness, sharpness, sharpness_threshold

X = dln.sparse(6, 9, 2).X
LABELS = dln.sparse(6, 9, 2).y.sign()
ROWS = torch.tensor([[0.0, 3, 0, 0, 3, 0], [2, 0, 2, 0, 2, 0]]).double()


def written_loss(name: str, p: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if name == "squared":
        return (p - y).square() / 2
    return torch.log1p(torch.exp(-y * p)) if name == "logistic" else torch.exp(-y * p)


def by_autograd(problem: dln.Problem, depth: float, x: torch.Tensor, rows: torch.Tensor) -> Any:
    """Gradient and Hessian of F in x = (u, v), by the definition of F."""

    def loss(x: torch.Tensor) -> torch.Tensor:
        u, v = x.chunk(2)
        theta = u * v if depth == 2 else u**depth - v**depth
        of_rows = written_loss(problem.loss_name, problem.X @ theta, problem.y)
        return (rows * of_rows).sum() / problem.n

    return torch.func.grad(loss)(x), torch.autograd.functional.hessian(loss, x)


@pytest.mark.parametrize("loss", ["squared", "logistic", "exponential"])
@pytest.mark.parametrize("depth", [2.0, 3.0, 2.5])
def test_curvatures_are_those_of_autograd(
    loss: str, depth: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    problem = dln.Problem(X, LABELS, loss=loss)
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(2, 9, generator=generator, dtype=torch.float64) + 0.2
    w = torch.stack([x[0] + x[1], x[0] - x[1]]) if depth == 2 else x
    found = []
    for row in (torch.ones(6, dtype=torch.float64), *ROWS):
        g, H = by_autograd(problem, depth, x.flatten(), row)
        found.append((torch.linalg.eigvalsh(H)[-1], g @ H @ g / (g @ g)))
    # sums of some hundred terms of the size of the result
    close: Any = {"rtol": 1e-12, "atol": 0.0}
    torch.testing.assert_close(sharpness(problem, w, depth), found[0][0], **close)
    per_batch = torch.stack([along for _, along in found[1:]]).mean()[None]
    measured = batch_sharpness(problem, w[:, None], ROWS[:, None], depth)
    torch.testing.assert_close(measured, per_batch, **close)
    monkeypatch.setattr(curvature, "DENSE", 1)
    torch.testing.assert_close(sharpness(problem, w, depth), found[0][0], rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    "method",
    [
        {},
        {"method": "nesterov"},
        {"dampening": 0.5},
        {"weight_decay": 1.0},
        {"weight_decay": 1.0, "decoupled": True},
        {"weight_decay": 1.0, "method": "nesterov"},
    ],
)
def test_a_step_is_unstable_just_above_its_threshold(method: dict[str, Any]) -> None:
    """The spectral radius of the step on h x^2/2, by the definition of the method.

    (docs/theory.md#sharpness.)
    """
    gamma, beta = 0.05, 0.8
    run = dln.train(dln.Problem([[1.0, 0.5]], [1.0]), gamma=gamma, beta=beta, max_steps=7, **method)
    h = float(run.sharpness_threshold)
    assert radius(h * 0.999, gamma, beta, **method) < 1 < radius(h * 1.001, gamma, beta, **method)


def radius(
    h: float, gamma: float, beta: float, *, method: str = "heavy_ball", dampening: float = 0.0,
    weight_decay: float = 0.0, decoupled: bool = False,
) -> float:  # fmt: skip
    """Of the map (x, m) -> (x', m'), m the momentum of torch.optim.SGD without its step size."""

    def step(x: float, m: float) -> tuple[float, float]:
        omega = 0.0 if decoupled else weight_decay
        if method == "nesterov":
            z = x - gamma * beta * m
            m = beta * m + (h + omega) * z
            return x - gamma * m, m
        m = beta * m + (1 - dampening) * (h + omega) * x
        return (1 - gamma * weight_decay * decoupled) * x - gamma * m, m

    columns = np.array([step(1.0, 0.0), step(0.0, 1.0)]).T
    return float(np.abs(np.linalg.eigvals(columns)).max())


def test_rates_that_change_have_the_threshold_of_the_last_step() -> None:
    schedule = dln.schedules.StepDecay(every=3, factor=0.5)
    run = dln.train(dln.sparse(6, 9, 2), gamma=0.02, beta=0.5, schedule=schedule, max_steps=8)
    # steps 7 and 8 have a quarter of the step size
    assert float(run.sharpness_threshold) == pytest.approx(sharpness_threshold(0.005, 0.5))


@pytest.mark.parametrize("decay", [0.0, 1e-3])
def test_a_step_of_size_0_has_no_threshold(decay: float) -> None:
    """The last steps of a cosine move by momentum alone."""
    schedule = dln.schedules.Cosine(steps=4)
    problem = dln.sparse(6, 9, 2)
    run = dln.train(
        problem, gamma=0.02, beta=0.5, schedule=schedule, weight_decay=decay, max_steps=8
    )
    assert float(run.sharpness_threshold) == np.inf


def test_a_coordinate_rate_scales_its_rows_and_columns_of_the_hessian() -> None:
    kappa = torch.linspace(0.5, 2.0, 9, dtype=torch.float64)
    problem = dln.sparse(6, 9, 2)
    run = dln.train(problem, gamma=0.01, beta=0.9, kappa=kappa, max_steps=20)
    w = torch.stack([torch.as_tensor(run.w_plus), torch.as_tensor(run.w_minus)])
    H = curvature.hessian(problem, w)
    scale = torch.cat([kappa, kappa]).sqrt()
    expected = torch.linalg.eigvalsh(scale[:, None] * H * scale)[-1]
    assert float(run.sharpness) == pytest.approx(float(expected), rel=1e-12)
