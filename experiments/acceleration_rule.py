"""The acceleration rule: rho times the speed along the same path.

(docs/theory.md#acceleration-rule; poster, section 2.)

    python -m experiments.acceleration_rule

At fixed lambda, ``gamma -> rho^2 gamma, beta -> 1 - rho (1 - beta)`` multiplies eps by rho. Paths
are compared in t = k eps with the slowest one, and the steps to a loss of ``tol`` are counted. A
linearised run at curvature L is stable for gamma L < 2 (1 + beta), which at fixed lambda reads
eps < (sqrt(1 + 4 lambda L) - 1)/L: there the discretisation must break.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from omegaconf import DictConfig

from dln_momentum import Momentum, Problem, Snapshot, Status
from dln_momentum.problem import stack
from experiments.acceleration_rule_figure import draw
from experiments.claim import Outcome, main
from experiments.common import (
    described,
    engine_over_rules,
    listed,
    snapshots,
    sparse_problems,
    spread,
    workers,
)
from experiments.figures import data_sets, problem_size

SECTION = "2"
CLAIM = (
    "gamma -> rho^2 gamma and beta -> 1 - rho (1 - beta), approximately beta^rho, keeps lambda "
    "and multiplies the discretisation step by rho: the same path, rho times as fast."
)


CAPTION = (
    "(a) The largest coordinate of theta at several rho, on the data set that is first to leave "
    "the slowest path. (b) Time k eps to the tolerance over that of the slowest run, which the "
    "rule keeps at 1. (c) Largest distance to the slowest path at equal k eps. (d) The same for "
    "every run, against eps over its largest stable value at the limit point. (e) The beta of the "
    "rule beside beta^rho. Medians and quartiles over data sets."
)


def study(config: DictConfig) -> Outcome:
    """Run every rho on every data set of every case, and compare paths and step counts."""
    parts = [_case(case, config) for case in config.cases]
    names = [
        f"({case.n}, {case.d}, {case.s}, {case.alpha:g}), lambda = {case.lam:g}"
        for case in config.cases
    ]
    return _judge(config, xr.concat(parts, xr.IndexVariable("case", names)))


def _case(case: DictConfig, config: DictConfig) -> xr.Dataset:
    problems = sparse_problems(case.n, case.d, case.s, config.data_seeds)
    base = Momentum.from_pair(lam=case.lam, beta=config.beta)
    rules = [base.accelerated(rho) for rho in config.rhos]
    paths = _paths(problems, rules, case, config)
    steps, sharpness = _steps_to_tol(problems, rules, case, config)
    return xr.Dataset(
        {
            "steps_to_tol": (("rho", "data_seed"), steps),
            "sharpness": ("data_seed", sharpness),
            "largest_stable_eps": ("data_seed", largest_stable_eps(case.lam, sharpness)),
            "eps": ("rho", [rule.eps for rule in rules]),
            "beta": ("rho", [rule.beta for rule in rules]),
            "beta_to_the_rho": ("rho", [config.beta**rho for rho in config.rhos]),
            "lam": case.lam,
        }
        | paths,
        coords={"rho": list(config.rhos), "data_seed": range(config.data_seeds)},
    )


def largest_stable_eps(lam: float, curvature: np.ndarray) -> np.ndarray:
    """The eps at which MGD of that lambda loses stability on a quadratic of that curvature."""
    return (np.sqrt(1 + 4 * lam * curvature) - 1) / curvature


def _paths(
    problems: list[Problem], rules: list[Momentum], case: DictConfig, config: DictConfig
) -> dict[str, Any]:
    """Distances to the slowest path, infinite where diverged, and one path.

    All runs go through the same steps; after i records the rho-run is where the slowest run is
    after i rho/rho_0 of them. Fast runs go on beyond the slowest path's end, which is not used.
    """
    stride = max(1, round(case.path_time / rules[0].eps / config.records))
    # w_k belongs to t = k eps and the engine starts at w_1: k comes after k - 1 steps
    k = stride * np.arange(1, config.records + 1)
    engine = engine_over_rules(problems, rules, case.alpha, tol=0.0, num_workers=workers(config))
    found = list(snapshots(engine, k - 1))
    theta = torch.stack([snapshot.theta for snapshot in found]).numpy()
    theta = theta.reshape(len(k), len(rules), len(problems), -1)
    diverged = (found[-1].status == Status.DIVERGED).reshape(len(rules), -1).numpy()
    slowest = theta[:, 0]
    scale = np.abs(slowest).max(axis=(0, 2))
    distance = np.empty((len(rules), len(problems)))
    for i, rho in enumerate(config.rhos):
        ratio = round(rho / config.rhos[0])
        along = slowest[ratio - 1 :: ratio]
        distance[i] = np.abs(theta[: len(along), i] - along).max(axis=(0, 2)) / scale
    # the data set that is first to leave shows the break; its largest coordinate is drawn
    shown = np.where(diverged, np.inf, distance).sum(axis=0).argmax()
    largest = np.abs(slowest[-1, shown]).argmax()
    return {
        "path_distance": (("rho", "data_seed"), np.where(diverged, np.inf, distance)),
        "example_theta": (("rho", "record"), theta[:, :, shown, largest].T),
        "example_time": (("rho", "record"), np.outer([rule.eps for rule in rules], k)),
    }


def _steps_to_tol(
    problems: list[Problem], rules: list[Momentum], case: DictConfig, config: DictConfig
) -> tuple[np.ndarray, np.ndarray]:
    """Steps to a loss of tol, nan where it is never seen [rho, data]; the sharpness [data]."""
    engine = engine_over_rules(
        problems, rules, case.alpha, tol=config.tol, num_workers=workers(config)
    )
    end = engine.run(round(config.max_time / rules[0].eps))
    steps = torch.where(end.steps_to_tol >= 0, end.steps_to_tol.double(), torch.nan)
    return steps.reshape(len(rules), -1).numpy(), _sharpness(stack(problems), end)


def _sharpness(problem: Problem, end: Snapshot) -> np.ndarray:
    """||Hess F||_2 at the end of the first (slowest) runs, where the residual has vanished."""
    count = len(problem.X)
    # Hess F = J^T X^T X J / n with J J^T = diag(u^2 + v^2)
    weight = (end.u[:count] ** 2 + end.v[:count] ** 2).unsqueeze(-2)
    X = problem.X
    return torch.linalg.eigvalsh((X * weight) @ X.mT / problem.n)[:, -1].numpy()


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    # steps x eps is the time to tol; under the rule it does not depend on rho
    time = results["steps_to_tol"] * results["eps"]
    ratio = (time / time.isel(rho=0)).fillna(np.inf)
    off = abs(ratio.median("data_seed") - 1)
    up_to_time = speed_up(off < config.agreement)
    up_to_path = speed_up(results["path_distance"].median("data_seed") < config.agreement)
    up_to = xr.where(up_to_time < up_to_path, up_to_time, up_to_path)
    stable = results["largest_stable_eps"] / results["eps"].sel(rho=1)
    results = described(
        results.assign(
            time_ratio=ratio,
            time_speed_up=up_to_time,
            path_speed_up=up_to_path,
            speed_up=up_to,
            largest_stable_rho=stable,
        ),
        steps_to_tol="steps to a training loss of tol",
        sharpness="||Hess F||_2 at the end of the slowest run",
        largest_stable_eps="eps at which the linearised iteration turns unstable",
        path_distance="largest gap of theta to the slowest run at equal t, over its largest entry",
        example_theta="largest coordinate of theta, data set that leaves the path first",
        example_time="t = k eps",
        time_ratio="steps x eps to tol over that of the slowest run",
        time_speed_up="largest speed-up to which the median time_ratio agrees; 1 for none",
        path_speed_up="largest speed-up to which the median path_distance does; 1 for none",
        speed_up="the smaller of the two",
        largest_stable_rho="rho at which the linearised iteration turns unstable",
    )
    largest = config.rhos[-1] / config.rhos[0]
    verdict = "confirmed in part" if bool((up_to > 1).any()) else "not seen"
    verdict = "confirmed" if bool((up_to == largest).all()) else verdict
    measured = {str(case): _numbers(results.sel(case=case)) for case in results["case"].values}
    gap = abs(results["beta"] - results["beta_to_the_rho"]).max("case")
    measured["gap_between_beta_to_the_rho_and_the_rule"] = _by_rho(gap)
    notes = [
        "A speed-up is rho over that of the slowest run, which everything is compared with. The "
        "rule holds up to the largest at which, as at all smaller ones, the median path distance "
        f"and the median change of the time to tolerance are below {config.agreement:g}; runs that "
        "diverge count as infinite. Quartiles are over the runs that did not diverge; times are "
        "drawn where three data sets in four reach the tolerance.",
        "Where eps is above the linearised limit at the limit point of the slowest run, MGD of the "
        "same lambda cannot converge there: the rule ends with the discretisation's stability.",
    ]
    sizes = dict.fromkeys(problem_size(c.n, c.d, c.s, c.alpha) for c in config.cases)
    return Outcome(
        verdict=verdict,
        finding=_finding(config, up_to),
        sizes=data_sets(config.data_seeds, *sizes),
        measured=measured,
        results=results,
        figure=draw(results),
        caption=CAPTION,
        notes=notes,
    )


def speed_up(holds: xr.DataArray) -> xr.DataArray:
    """The largest rho, over the first, that holds together with all between; 1 where none does.

    The first rho is what the others are compared with: that it agrees with itself says nothing.
    """
    first, others = float(holds["rho"][0]), holds.isel(rho=slice(1, None))
    return xr.where(others.cumprod("rho") > 0, others["rho"] / first, 1.0).max("rho")


def _finding(config: DictConfig, up_to: xr.DataArray) -> str:
    sizes = [problem_size(c.n, c.d, c.s, c.alpha) for c in config.cases]
    parts = []
    for size in dict.fromkeys(sizes):
        mine = [i for i, other in enumerate(sizes) if other == size]
        factors = listed(up_to.values[i] for i in mine)
        parts.append(f"{factors} at lambda = {listed(config.cases[i].lam for i in mine)} on {size}")
    slowest = 1 - config.rhos[0] * (1 - config.beta)
    return (
        f"Path and time k eps to the tolerance stay within {config.agreement:.0%} up to a speed-up "
        f"(over beta = {slowest:g}; 1 is none) of {'; '.join(parts)}."
    )


def _numbers(case: xr.Dataset) -> dict[str, Any]:
    limit = case["eps"] > case["largest_stable_eps"]
    left = ~np.isfinite(case["path_distance"])
    return {
        "time_to_tol_over_the_slowest": _by_rho(case["time_ratio"]),
        "path_distance": _by_rho(case["path_distance"]),
        "runs_that_diverge_below_and_above_the_limit": [
            f"{int((left & side).sum())} of {int(side.sum())}" for side in (~limit, limit)
        ],
        "speed_up_of_the_time": float(case["time_speed_up"]),
        "speed_up_of_the_path": float(case["path_speed_up"]),
        "linearised_stability_limit_of_rho": spread(case["largest_stable_rho"]),
    }


def _by_rho(values: xr.DataArray) -> dict[str, Any]:
    """By rho: quartiles over the data sets where there are any."""
    each = {f"rho={rho:g}": values.sel(rho=rho) for rho in values["rho"].values}
    return {key: spread(one) if one.ndim else float(one) for key, one in each.items()}


if __name__ == "__main__":
    main("acceleration_rule", SECTION, CLAIM, study)
