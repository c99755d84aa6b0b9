"""Nesterov's method against heavy ball: at equal lambda, and at Nesterov's own label.

(docs/theory.md#nesterov-label.)

    python -m experiments.nesterov

Nesterov at (gamma, beta) is compared with heavy ball of the same eps = gamma/(1-beta) and of two
lambdas: the same lambda, which is the same (gamma, beta), and the one whose lambda_KS is Nesterov's
own label lambda_N = gamma (1 - beta + 2 beta^2)/(2 (1-beta)^2). At fixed beta both lambda and eps
fall with gamma, and the orders in gamma of what differs are fitted: the path theta_k, at the same k
and with heavy ball delayed by beta steps, ln Delta_inf and the limit. At fixed lambda only eps
falls. At large lambda, the signs that change and the error of the limit are those of the two
methods at equal rates.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from omegaconf import DictConfig
from torch import Tensor

from dln_momentum import Problem, Snapshot
from dln_momentum.method import Method
from dln_momentum.problem import stack
from dln_momentum.rates import gamma_beta
from experiments.claim import Outcome, main
from experiments.common import (
    along,
    described,
    engine_over,
    snapshots,
    span,
    sparse_problems,
    spreads,
    verdict_of,
    workers,
)
from experiments.figures import data_sets, problem_size
from experiments.limits import curvature, limits, recovery_error
from experiments.nesterov_figure import draw

SECTION = ""
CLAIM = (
    "Nesterov's method is heavy ball of another label: at equal lambda they differ by first order "
    "in gamma, and to second order Nesterov has the limit, and with a delay of beta steps the "
    "path, of heavy ball with lambda_KS = gamma (1 - beta + 2 beta^2)/(2 (1-beta)^2)."
)
CAPTION = (
    "(a) Largest distance of Nesterov's path to heavy ball's over the largest |theta|, over "
    "lambda at beta = {beta:g}: at equal lambda, at its own label, and with the delay of beta "
    "steps. (b) Difference of ln(Delta_0/Delta_inf) and (c) of the limits, relative, likewise. "
    "(d) Fitted orders in gamma over beta. (e) Difference of the limits at fixed lambda over 1 - "
    "beta = eps/lambda. (f) Share of the data sets with sign changes, and recovery error, over "
    "lambda at equal rates. Medians and quartiles over data sets."
)
LONG_NAMES = {
    "path": "largest |theta_k - theta_k of heavy ball| over the largest |theta_k|, t <= until",
    "gain": "largest difference of ln(Delta_0/Delta_inf) over its largest entry",
    "limit": "distance of the limits over the norm of heavy ball's",
    "fixed_limit": "limit, at fixed lambda",
    "signs_changed": "1 if some w_+- changed sign",
    "error": "||theta_inf - theta*||/||theta*||",
}
RIVALS = ("equal lambda", "own label", "own label, delayed")


def study(config: DictConfig) -> Outcome:
    """Small lambda at fixed beta, fixed lambda with eps falling, and large lambda."""
    problems = sparse_problems(config.n, config.d, config.s, config.data_seeds)
    parts = [_falling(problems, config), _fixed(problems, config), _large(problems, config)]
    results = xr.merge(parts).assign_coords(data_seed=range(config.data_seeds))
    return _judge(config, described(results, **LONG_NAMES))


def label(gamma: Any, beta: Any) -> Any:
    """lambda_N = gamma (1 - beta + 2 beta^2)/(2 (1-beta)^2) of numbers or arrays.

    >>> label(0.5, 0.0), round(label(0.01, 0.9), 12)
    (0.25, 0.86)
    """
    return gamma * (1 - beta + 2 * beta**2) / (2 * (1 - beta) ** 2)


def heavy_ball_of(gamma: float, beta: float) -> tuple[float, float]:
    """(gamma, beta) of heavy ball with Nesterov's eps, whose lambda_KS is Nesterov's label.

    >>> from dln_momentum import Momentum
    >>> rule = Momentum(*heavy_ball_of(0.01, 0.9))
    >>> round(rule.eps, 12), round(rule.lam_ks, 12)
    (0.1, 0.86)
    """
    eps = gamma / (1 - beta)
    # lambda = lambda_KS + eps/2
    return gamma_beta(lam=label(gamma, beta) + eps / 2, eps=eps)


def _run(
    problems: Sequence[Problem], rates: tuple[float, float], name: str, config: DictConfig
) -> tuple[Tensor, Snapshot]:
    """Records (theta_k, theta_{k-1}), [T, 2, R, d], up to t = until; and the end."""
    gamma, beta = rates
    engine = engine_over(
        problems, gamma, beta, config.alpha,
        tol=config.tol, num_workers=workers(config), method=Method(name),
    )  # fmt: skip
    steps = np.linspace(1, config.until * (1 - beta) / gamma, config.records).round().astype(int)
    path = []
    for record in snapshots(engine, steps):
        plus, minus = record.previous
        path.append(torch.stack([record.theta, (plus**2 - minus**2) / 4]))
    return torch.stack(path), engine.run(round(config.time * (1 - beta) / gamma))


def _pair(problems: Sequence[Problem], gamma: float, beta: float, config: DictConfig) -> xr.Dataset:
    """What differs between Nesterov and its rivals, dims (rival, data_seed)."""
    problem = stack(list(problems))
    path, end = _run(problems, (gamma, beta), "nesterov", config)
    limit, gain = limits(end, problem), _gain(end)
    found: dict[str, list[Tensor]] = {"path": [], "gain": [], "limit": []}
    own = heavy_ball_of(gamma, beta)
    runs = [_run(problems, rates, "heavy_ball", config) for rates in ((gamma, beta), own)]
    norm = torch.linalg.vector_norm
    for (other, ended), delay in ((runs[0], 0.0), (runs[1], 0.0), (runs[1], beta)):
        delayed = (1 - delay) * other[:, 0] + delay * other[:, 1]
        largest = other[:, 0].abs().amax((0, 2))
        found["path"].append((path[:, 0] - delayed).abs().amax((0, 2)) / largest)
        theirs, goal = _gain(ended), limits(ended, problem)
        found["gain"].append((gain - theirs).abs().amax(-1) / theirs.abs().amax(-1))
        found["limit"].append(norm(limit - goal, dim=-1) / norm(goal, dim=-1))
    dims = ("rival", "data_seed")
    values = {key: (dims, torch.stack(value).numpy()) for key, value in found.items()}
    return xr.Dataset(values, coords={"rival": list(RIVALS)})


def _gain(end: Snapshot) -> Tensor:
    """ln(Delta_0/Delta_inf), [R, d]."""
    return (end.balancedness_start / end.limit_balancedness).log()


def _falling(problems: Sequence[Problem], config: DictConfig) -> xr.Dataset:
    """Fixed beta; gamma, lambda and eps fall together."""
    rows = []
    for beta in config.betas:
        pairs = [_pair(problems, lam * (1 - beta) ** 2, beta, config) for lam in config.small_lams]
        rows.append(along("small_lam", config.small_lams, pairs))
    return along("beta", config.betas, rows)


def _fixed(problems: Sequence[Problem], config: DictConfig) -> xr.Dataset:
    """Fixed lambda; 1 - beta = eps/lambda falls."""
    rows = []
    for lam in config.fixed_lams:
        pairs = [_pair(problems, lam * drag**2, 1 - drag, config) for drag in config.drags]
        rows.append(along("drag", config.drags, pairs))
    table = along("fixed_lam", config.fixed_lams, rows)
    return table.rename({key: f"fixed_{key}" for key in ("path", "gain", "limit")})


def _large(problems: Sequence[Problem], config: DictConfig) -> xr.Dataset:
    """Both methods at the same rates, at a share of the largest stable eps of Nesterov."""
    sizes = [curvature(problem) for problem in problems]
    largest = max(float(2 * top * size) for top, size in sizes)
    problem = stack(list(problems))
    assert problem.theta_star is not None
    rows = []
    for lam in config.large_lams:
        # Nesterov is stable for gamma H < 2 (1+beta)/(1+2 beta), which is at least 4/3
        eps = config.resolution * min(lam, (4 * lam / (3 * largest)) ** 0.5)
        gamma, beta = gamma_beta(lam=lam, eps=eps)
        both = []
        for name in ("heavy_ball", "nesterov"):
            engine = engine_over(
                problems, gamma, beta, config.alpha,
                tol=config.tol, num_workers=workers(config), method=Method(name),
            )  # fmt: skip
            end = engine.run(config.max_steps)
            theta = limits(end, problem)
            known = ~theta.isnan().any(-1)
            size = torch.linalg.vector_norm(problem.theta_star, dim=-1)
            signs = torch.where(known, (end.sign_changes > 0).double(), torch.nan)
            both.append((signs.numpy(), (recovery_error(theta, problem) / size).numpy()))
        rows.append(both)
    values = np.array(rows)
    dims = ("large_lam", "algorithm", "data_seed")
    return xr.Dataset(
        {"signs_changed": (dims, values[:, :, 0]), "error": (dims, values[:, :, 1])},
        coords={"large_lam": list(config.large_lams), "algorithm": ["heavy ball", "Nesterov"]},
    )


def orders(values: xr.DataArray, over: str) -> xr.DataArray:
    """Exponent p of value ~ x^p, fitted over one dimension; nan where one value is not known."""
    x = np.log(values[over])
    x = x - x.mean()
    return (x * np.log(values)).sum(over, skipna=False) / (x**2).sum()


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    found = {key: orders(results[key], "small_lam") for key in ("path", "gain", "limit")}
    typical = {key: order.median("data_seed") for key, order in found.items()}
    holds = {
        "first order at equal lambda": [
            abs(typical[key].sel(rival=RIVALS[0]) - 1) <= config.order_tol for key in found
        ],
        "second order at its own label": [
            typical["path"].sel(rival=RIVALS[2]) >= 2 - config.order_tol,
            typical["gain"].sel(rival=RIVALS[1]) >= 2 - config.order_tol,
            typical["limit"].sel(rival=RIVALS[1]) >= 2 - config.order_tol,
        ],
    }
    passed = [bool(cell) for parts in holds.values() for part in parts for cell in part]
    fixed = results["fixed_limit"]
    closer = fixed.sel(rival=RIVALS[1], drop=True) < fixed.sel(rival=RIVALS[0], drop=True)
    measured = {
        "orders_in_gamma": {
            key: spreads(order.transpose("rival", "beta", ...)) for key, order in found.items()
        },
        "difference_of_the_limits": spreads(
            results["limit"].transpose("rival", "beta", "small_lam", ...)
        ),
        "difference_of_the_gains": spreads(
            results["gain"].transpose("rival", "beta", "small_lam", ...)
        ),
        "difference_of_the_paths": spreads(
            results["path"].transpose("rival", "beta", "small_lam", ...)
        ),
        "orders_in_eps_at_fixed_lambda": spreads(
            orders(fixed, "drag").transpose("rival", "fixed_lam", ...)
        ),
        "share_of_sets_closer_at_its_own_label_at_fixed_lambda": spreads(
            closer.mean("data_seed").transpose("fixed_lam", "drag")
        ),
        "share_with_sign_changes": spreads(results["signs_changed"].mean("data_seed")),
        "error_of_the_limit": spreads(results["error"]),
    }
    return Outcome(
        verdict=verdict_of(sum(passed), len(passed)),
        finding=_finding(config, results, typical, closer),
        sizes=data_sets(
            config.data_seeds, problem_size(config.n, config.d, config.s, config.alpha)
        ),
        measured=measured,
        results=results,
        figure=draw(results, found, config),
        caption=CAPTION.format(beta=config.betas[-1]),
        notes=[
            "The label follows from 2 lambda int (grad L)^2 dt, the leading order of "
            "ln(Delta_0/Delta_inf), and from the modified equation, where Nesterov's damping by "
            "the Hessian acts like a smaller lambda; the delay is that of the start from rest.",
            "At fixed lambda and eps -> 0 a term of the order lambda eps w''' is left, and the "
            "label gains no order; both rivals then are of first order in eps.",
            "Limits are minimisers at Delta_inf and theta~_0 of runs that have converged to "
            f"{config.tol:g}.",
        ],
    )


def _finding(
    config: DictConfig, results: xr.Dataset, typical: dict[str, xr.DataArray], closer: xr.DataArray
) -> str:
    equal = span((typical["limit"].sel(rival=RIVALS[0])).values, 3)
    own = span((typical["limit"].sel(rival=RIVALS[1])).values, 3)
    plain = span((typical["path"].sel(rival=RIVALS[1])).values, 3)
    delayed = span((typical["path"].sel(rival=RIVALS[2])).values, 3)
    last = results["error"].isel(large_lam=-1).median("data_seed")
    heavy, nesterov = (float(last.sel(algorithm=name)) for name in ("heavy ball", "Nesterov"))
    return (
        f"The limits differ by gamma^{equal} at equal lambda and by gamma^{own} at Nesterov's "
        f"label, paths at the label by gamma^{plain} and, delayed by beta steps, gamma^{delayed} "
        f"(medians at each beta); at fixed lambda {span(config.fixed_lams)} the label is closer on "
        f"{float(closer.mean()):.0%} of runs; at lambda = {config.large_lams[-1]:g} Nesterov's "
        f"limit has an error of {nesterov:.2g}, heavy ball's of {heavy:.2g}."
    )


if __name__ == "__main__":
    main("nesterov", SECTION, CLAIM, study)
