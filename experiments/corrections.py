"""Where the poster's text as extracted is wrong, with the numbers that show it.

(docs/theory.md#corrections.)

    python -m experiments.corrections

Each row evaluates the formula as it stands in the text and the corrected one on the same run, and
prints their errors. The README's table is this output.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from dln_momentum import DiagonalLinearNet, Problem, gradient_flow, momentum_flow, sparse
from dln_momentum.flows import quadrature_path_integrals
from dln_momentum.theory.continuous_bias import limit_bias, path_integrals
from dln_momentum.theory.entropy import hyperbolic_entropy, mirror_map
from dln_momentum.theory.minimizers import bregman_minimizer
from experiments.common import engine_over

Row = tuple[str, str, str, str]


def rows() -> Iterator[Row]:
    """(text, corrected, error of the text, error of the correction)."""
    problem = sparse(20, 30, 3, seed=0)
    net = DiagonalLinearNet.uniform(30, alpha=0.1)
    w = net.w_plus.detach(), net.w_minus.detach()
    yield _path_sum_sign(problem)
    yield _integral_sign(problem, w)
    yield _small_lambda(problem, w)
    yield _quadratic_limit()
    yield _gradient_flow_limit(problem, w)
    yield _mirror_change(problem, w)


def _path_sum_sign(problem: Problem) -> Row:
    end = engine_over([problem], 0.01, 0.9, path_sums="direct").run(200_000)
    (s_plus, s_minus), start = end.path_sums[:, 0], end.balancedness_start[0]
    return (
        "Delta_inf = Delta_0 exp(-S_+ + S_-)",
        "exp(-(S_+ + S_-))",
        _worst(start * torch.exp(-s_plus + s_minus), end.balancedness[0]),
        _worst(start * torch.exp(-s_plus - s_minus), end.balancedness[0]),
    )


def _integral_sign(problem: Problem, w: tuple[Tensor, Tensor]) -> Row:
    path = momentum_flow(problem, *w, lam=0.05, time=50.0)
    measured = torch.cat([i[-1] for i in path_integrals(path)])
    positive = torch.cat([i[-1] for i in quadrature_path_integrals(problem, path)])
    return (
        "I_+- = -lambda int (w'/w)^2",
        "+lambda int (w'/w)^2",
        _worst(-positive, measured),
        _worst(positive, measured),
    )


def _small_lambda(problem: Problem, w: tuple[Tensor, Tensor]) -> Row:
    lam = 1e-3
    end = momentum_flow(problem, *w, lam=lam, time=math.inf, tol=1e-20).balancedness[-1]
    flow = gradient_flow(problem, *w, time=math.inf, tol=1e-20)
    assert flow.gradient_square is not None
    start = flow.balancedness[0]
    return (
        "Delta_inf ~ Delta_0^2 exp(-2 lambda int grad L)",
        "Delta_0 exp(-2 lambda int (grad L)^2)",
        _worst(start**2 * torch.exp(-2 * lam * flow.G[-1]), end),
        _worst(start * torch.exp(-2 * lam * flow.gradient_square[-1]), end),
    )


def _quadratic_limit() -> Row:
    theta = torch.linspace(-2, 3, 7, dtype=torch.float64)
    delta = torch.full_like(theta, 1e6)
    psi = hyperbolic_entropy(theta, delta)
    norm = torch.linalg.vector_norm(theta)
    return (
        "psi_Delta ~ ||theta||_2 / (2 Delta)",
        "||theta||_2^2 / (2 Delta)",
        _worst(norm / 2e6, psi),
        _worst(norm**2 / 2e6, psi),
    )


def _gradient_flow_limit(problem: Problem, w: tuple[Tensor, Tensor]) -> Row:
    """The text's D(theta*, theta) is smallest, namely zero, at theta = theta*."""
    path = gradient_flow(problem, *w, time=math.inf, tol=1e-26)
    limit, start = path.theta[-1], path.theta[0]
    c = 2 * mirror_map(start, path.balancedness[0])
    target = problem.row_space.target(problem.y)
    right = bregman_minimizer(problem.row_space, target, path.balancedness[0], c).theta
    assert problem.theta_star is not None
    return (
        "theta^GF = argmin D(theta*, theta)",
        "argmin D(theta, theta_0)",
        f"{torch.linalg.vector_norm(problem.theta_star - limit):.1e}",
        f"{torch.linalg.vector_norm(right - limit):.1e}",
    )


def _mirror_change(problem: Problem, w: tuple[Tensor, Tensor]) -> Row:
    """grad Phi is 1/2 (arcsinh(2 theta/Delta) - c), of which theta_0 has none."""
    path = momentum_flow(problem, *w, lam=0.1, time=math.inf, tol=1e-20)
    end = limit_bias(path)
    change = mirror_map(path.theta[-1], end.balancedness) - end.log_init / 2
    norm, rows = torch.linalg.vector_norm, problem.row_space
    return (
        "grad Phi_inf(theta_inf) - grad Phi_0(theta_0) in span^perp",
        "in span(x_1..x_n)",
        f"{norm(rows.project(change)) / norm(change):.1e}",
        f"{norm(rows.reject(change)) / norm(change):.1e}",
    )


def _worst(formula: Tensor, measured: Tensor) -> str:
    """Largest relative error over coordinates."""
    return f"{float((formula / measured - 1).abs().max()):.1e}"


def main() -> None:
    """Print the table."""
    table = Table("poster's text", "corrected", "error of the text", "error corrected")
    for row in rows():
        table.add_row(*row)
    Console(width=130).print(table)


if __name__ == "__main__":
    main()
