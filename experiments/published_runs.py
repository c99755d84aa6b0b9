"""The runs of the published settings: large steps, label noise, biased initialisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from omegaconf import DictConfig
from torch import Tensor

from dln_momentum import DiagonalLinearNet, Engine, EngineOptions, Problem, Snapshot, Status
from dln_momentum.data import BatchStream, LabelNoise
from dln_momentum.problem import stack
from dln_momentum.theory.discrete_bias import log_init
from dln_momentum.theory.minimizers import bregman_minimizer
from experiments.common import engine_over, snapshots, sparse_problems, workers
from experiments.limits import limits

ONE_ROW = {"batch_size": 1, "sampling": "with_replacement", "seeds": 0}


def large_steps(config: DictConfig) -> xr.Dataset:
    """Even et al.: GD and SGD of one row over the step size, centred and not, at every beta.

    The step is gamma for GD and eps for SGD, which is what bounds the stability of either.
    """
    parts = [
        xr.concat(
            [_sweep(design, method, ends, config) for method, ends in grid.items()], "algorithm"
        )
        for design, grid in config.even.steps.items()
    ]
    return xr.concat(parts, "design").assign_coords(
        design=list(config.even.steps), algorithm=["GD", "SGD"], beta=list(config.betas)
    )


def _sweep(design: str, method: str, ends: Sequence[float], config: DictConfig) -> xr.Dataset:
    n, d, s, alpha = config.even.setting
    problems = sparse_problems(n, d, s, config.data_seeds, design=design, mu=config.even.mu)
    ratios = np.geomspace(ends[0], ends[1], config.even.points)
    shape = (len(config.betas), len(ratios), len(problems))
    edges = np.array([2 / _sharpness(problem) for problem in problems])
    beta, step, edge = np.meshgrid(list(config.betas), ratios, edges, indexing="ij")
    gamma = step * edge * (1 - beta if method == "SGD" else 1)
    repeated = problems * (shape[0] * shape[1])
    end = engine_over(
        repeated,
        gamma.ravel(),
        beta.ravel(),
        alpha,
        batches=BatchStream(n, **ONE_ROW) if method == "SGD" else None,
        tol=config.tol,
        num_workers=workers(config),
    ).run(config.even.max_steps)
    values = _outcome(end, repeated)
    return xr.Dataset(
        {k: (("beta", "step", "data_seed"), v.reshape(shape).numpy()) for k, v in values.items()}
        | {"relative_step": ("step", ratios)}
    )


def _sharpness(problem: Problem) -> float:
    """The largest eigenvalue of the Hessian of F at the balanced network of theta*."""
    assert problem.theta_star is not None
    root = (2 * problem.theta_star.abs()).sqrt()
    return float(torch.linalg.matrix_norm(problem.X * root, 2) ** 2 / problem.n)


def _outcome(end: Snapshot, problems: Sequence[Problem]) -> dict[str, Tensor]:
    """Recovery error and mean gain ln(Delta_0/Delta_inf) on and off the support, [R]."""
    problem = stack(problems)
    theta, star = limits(end, problem), problem.theta_star
    assert star is not None
    gain = (end.balancedness_start / end.limit_balancedness).log()
    gain = torch.where(theta.isnan(), torch.nan, gain)
    support = star != 0
    return {
        "error": _error(theta, problem),
        "gain_on": torch.where(support, gain, 0.0).sum(-1) / support.sum(-1),
        "gain_off": torch.where(support, 0.0, gain).sum(-1) / (~support).sum(-1),
    }


def q_sums(config: DictConfig) -> xr.Dataset:
    """At beta = 0, the error of Delta_k = Delta_0 exp(-sum_j q(gamma g_j)) at every step.

    q(x) = -ln|1 - x^2|. The gradients are computed here, from theta_k and the rows drawn, and not
    by the engine. Half of the runs have a step near the edge of stability, half a tenth of it.
    """
    n, d, s, alpha = config.even.setting
    problems = sparse_problems(n, d, s, min(config.data_seeds, 4))
    edges = torch.tensor([2 / _sharpness(problem) for problem in problems], dtype=torch.float64)
    rows: list[xr.Dataset] = []
    for batches, share in ((None, 0.9), (BatchStream(n, **ONE_ROW), 0.05)):
        gamma = share * torch.cat([edges, edges / 10])
        engine = engine_over(
            problems * 2, gamma.numpy(), 0.0, alpha, batches=batches, tol=0.0, path_sums="direct"
        )
        rows.append(
            _q_errors(engine, stack(problems * 2), batches, gamma[:, None], config.identity_steps)
        )
    return xr.concat(rows, "algorithm")


def _q_errors(
    engine: Engine, problem: Problem, batches: BatchStream | None, gamma: Tensor, steps: int
) -> xr.Dataset:
    total, error = torch.zeros_like(engine.snapshot().theta), 0.0
    for k in range(steps):
        residual = problem.residual(engine.snapshot().theta)
        weights = 1.0 if batches is None else batches.weights(k, k + 1)
        residual = residual if weights is None else residual * weights
        gradient = (residual.reshape(-1, 1, problem.n) @ problem.X).squeeze(1) / problem.n
        total -= torch.log((1 - (gamma * gradient) ** 2).abs())
        engine.advance(1)
        now = engine.snapshot()
        ratio = now.balancedness / (now.balancedness_start * torch.exp(-total))
        error = max(error, float((ratio - 1).abs().max()))
    sums = engine.snapshot().path_sums.sum(0)
    return xr.Dataset(
        {
            "q_sum_error": error,
            "q_sum_to_path_sums": float((total - sums).abs().max()),
            "largest_q_sum": float(total.max()),
        }
    )


def label_noise(config: DictConfig) -> xr.Dataset:
    """Pesme et al.: SGD of one row, with label noise for a while and without, over eps."""
    n, d, s, alpha = config.pesme.setting
    problems = sparse_problems(n, d, s, config.data_seeds)
    scales = _grid(config.pesme.eps)
    shape = (len(config.betas), len(scales), len(problems))
    beta, eps, _ = np.meshgrid(list(config.betas), scales, np.zeros(len(problems)), indexing="ij")
    repeated = problems * (shape[0] * shape[1])
    parts = []
    for amplitude in (0.0, 2 * config.pesme.delta):
        noise = LabelNoise(n, amplitude, config.pesme.until, seeds=0) if amplitude else None
        # judged only every `until` steps: while the noise lasts a small loss is no convergence
        end = engine_over(
            repeated,
            (eps * (1 - beta)).ravel(),
            beta.ravel(),
            alpha,
            batches=BatchStream(n, **ONE_ROW),
            label_noise=noise,
            tol=config.tol,
            num_workers=workers(config),
        ).run(config.pesme.max_steps, block_size=config.pesme.until)
        values = _outcome(end, repeated)
        parts.append(
            xr.Dataset(
                {f"noise_{k}": (("beta", "eps", "data_seed"), v.reshape(shape).numpy())
                 for k, v in values.items()}
            )
        )  # fmt: skip
    coords = {"amplitude": [0.0, 2 * config.pesme.delta], "beta": list(config.betas)}
    return xr.concat(parts, "amplitude").assign_coords(coords | {"eps": scales})


def _grid(ends: Sequence[float]) -> np.ndarray:
    """From [first, last, number], evenly spaced in the logarithm."""
    return np.geomspace(ends[0], ends[1], int(ends[2]))


def biased_start(config: DictConfig) -> xr.Dataset:
    """Lyu et al.: heavy ball and GD of theta = a^2 - b^2 from a_0 = phi c, b_0 = c/phi.

    Their ||xi||_1 is sum_i c_i^2, so that c = sqrt(||xi||_1/d); phi = 1 is their unbiased start.
    Errors are told apart by when the two are compared: after as many steps, at equal time
    t = k eps, and at their limits. Gradient flow's limit is the minimiser of
    D_{psi_{Delta_0}}(., theta_0).
    """
    n, d, s = config.lyu.setting
    problems = sparse_problems(n, d, s, config.data_seeds)
    betas = (0.0, config.lyu.beta)
    cells = [(xi, phi) for xi in config.lyu.xi for phi in config.lyu.phi]
    w = torch.stack([_start(d, xi, phi) for xi, phi in cells], 1)
    w = w.repeat_interleave(len(problems), 1)
    repeated = problems * len(cells)
    shape = (len(config.lyu.xi), len(config.lyu.phi), len(problems))
    parts = [
        xr.concat([_from_start(b, gamma, w, repeated, shape, config) for b in betas], "rival")
        for gamma in config.lyu.gamma
    ]
    results = xr.concat(parts, "gamma").assign_coords(
        gamma=list(config.lyu.gamma),
        rival=["GD", "heavy ball"],
        xi=list(config.lyu.xi),
        phi=list(config.lyu.phi),
        compared_step=list(config.lyu.steps),
    )
    flow = _flow_error(w, repeated).reshape(shape).numpy()
    results["start_flow_error"] = (("xi", "phi", "data_seed"), flow)
    return results


def _from_start(
    beta: float,
    gamma: float,
    w: Tensor,
    problems: list[Problem],
    shape: tuple[int, ...],
    config: DictConfig,
) -> xr.Dataset:
    """Errors of one method over the steps, over the time of heavy ball's steps, and at the end.

    Gradient descent takes 1/(1-beta) steps, beta heavy ball's, in the time of one of heavy ball's.
    """
    slower = round((1 - beta) / (1 - config.lyu.beta))
    by_step = list(config.lyu.steps)
    by_time = [slower * k for k in by_step]
    engine = Engine(
        problem := stack(problems),
        rate := torch.full((len(problems),), gamma, dtype=torch.float64),
        torch.full_like(rate, beta),
        *w,
        options=EngineOptions(tol=config.tol, num_workers=workers(config)),
    )
    wanted = sorted({*by_step, *by_time})
    path = {
        k: _error(now.theta, problem)
        for k, now in zip(wanted, snapshots(engine, wanted), strict=True)
    }
    end = engine.run(max(config.lyu.max_steps, wanted[-1]))
    diverged = end.status == int(Status.DIVERGED)
    errors = {
        f"start_error_at_equal_{name}": torch.stack(
            [torch.where(diverged, torch.nan, path[k]) for k in steps]
        ).reshape(-1, *shape)
        for name, steps in (("steps", by_step), ("time", by_time))
    }
    values = {k: (("compared_step", "xi", "phi", "data_seed"), v) for k, v in errors.items()}
    limit = _outcome(end, problems)["error"].reshape(shape)
    return xr.Dataset(values | {"start_error": (("xi", "phi", "data_seed"), limit)})


def _start(d: int, xi: float, phi: float) -> Tensor:
    """(w_+, w_-) of a_0 = phi c, b_0 = c/phi with sum c^2 = xi, [2, d]."""
    net = DiagonalLinearNet.biased(d, (xi / d) ** 0.5, phi, parametrisation="squares")
    return torch.stack([net.w_plus, net.w_minus]).detach()


def _flow_error(w: Tensor, problems: Sequence[Problem]) -> Tensor:
    problem, zero = stack(problems), torch.zeros_like(w[0])
    target = problem.row_space.target(problem.y)
    c = log_init(w[0], w[1], zero, zero)
    found: Any = bregman_minimizer(problem.row_space, target, (w[0] * w[1]).abs(), c)
    return _error(found.theta, problem)


def _error(theta: Tensor, problem: Problem) -> Tensor:
    """||theta - theta*|| / ||theta*||, [R]."""
    assert problem.theta_star is not None
    norm = torch.linalg.vector_norm
    return norm(theta - problem.theta_star, dim=-1) / norm(problem.theta_star, dim=-1)
