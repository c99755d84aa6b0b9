"""Separable classification: directions against those of max l1 and l2 margin, under momentum.

(docs/theory.md#other-losses, docs/theory.md#max-margin.)

    python -m experiments.max_margin

theta grows without bound, and its direction is compared with those of largest margin
min_i y_i <x_i, theta> / ||theta|| in the l1 and in the l2 norm. The rates of a run are constant
first, which ends at a time t = sum_k eps_k whose logarithm is about 8. Then gamma grows by the same
factor at every step, as the loss falls like 1/t: a schedule of step sizes, for which the theorem
holds as well, and which reaches times no constant step size does. lambda matters in the first part
only: later the path changes over times of order t, long against any lambda of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from omegaconf import DictConfig
from scipy.optimize import linprog
from torch import Tensor

from dln_momentum import Problem
from dln_momentum.method import Method
from dln_momentum.problem import stack
from dln_momentum.rates import gamma_beta
from dln_momentum.schedules import Arrays
from dln_momentum.theory.classification import margin_certificate, margins
from dln_momentum.theory.max_margin import max_margin
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
from experiments.limits import curvature
from experiments.max_margin_figure import draw

SECTION = ""
CLAIM = (
    "On separable data the direction of theta tends to that of max l1 margin from every start and "
    "with every momentum, like a power of ln t, after it has been nearer that of max l2 margin "
    "where alpha is large; momentum leaves the distance at a given t as it is."
)
CAPTION = (
    "(a), (b) One minus the l1 margin over the largest one, over ln t, with the exponential loss, "
    "without momentum and at the largest lambda, by alpha; dotted where the constant step size "
    "ends. (c) Distances of directions to those of max l1 (solid) and l2 margin (dashed), without "
    "momentum. (d) Deficit at the largest lambda over that without momentum at the same ln t. (e) "
    "Exponent p of deficit ~ (ln t)^-p while gamma grows, every run, by alpha (colour) and lambda. "
    "(f) Deficits of the logistic loss (or of the only one) at the last record against those where "
    "the constant step size ends. Medians and quartiles over data sets."
)
LONG_NAMES = {
    "log_time": "ln t, t = sum_k gamma_k/(1-beta)",
    "deficit_l1": "1 - (min_i y_i <x_i, theta>/||theta||_1) / the largest such margin",
    "deficit_l2": "the same in the l2 norm",
    "to_l1": "||theta/||theta||_2 - direction of max l1 margin||_2",
    "to_l2": "the same of the max l2 margin",
    "least_slack": "least slack of the l1 solution's dual off its support",
    "margin": "min_i y_i <x_i, theta>",
    "identity": "largest of KKT residual, |predicted Delta/Delta - 1| and violation of signs",
}
PARTS = ("exact", "towards the l1 margin", "l2 first at large alpha", "power of ln t", "momentum")


def study(config: DictConfig) -> Outcome:
    """Every loss, alpha, lambda and data set."""
    rows: list[xr.Dataset] = []
    slack: list[float] = []
    for loss in config.losses:
        plain = sparse_problems(config.n, config.d, config.s, config.data_seeds)
        problems = [problem.with_loss(loss) for problem in plain]
        # the rows and labels of every loss are the same
        slack = [least_slack(problem) for problem in problems]
        best = {
            norm: torch.stack([max_margin(p.X, p.y, norm) for p in problems])
            for norm in ("l1", "l2")
        }
        cells = [
            along(
                "lam",
                config.lams,
                [_follow(plain, problems, best, alpha, lam, config) for lam in config.lams],
            )
            for alpha in config.alphas
        ]
        rows.append(along("alpha", config.alphas, cells))
    results = along("loss", config.losses, rows)
    results = results.assign(least_slack=("data_seed", slack))
    return _judge(config, described(results, **LONG_NAMES))


def _follow(
    plain: Sequence[Problem],
    problems: Sequence[Problem],
    best: dict[str, Tensor],
    alpha: float,
    lam: float,
    config: DictConfig,
) -> xr.Dataset:
    """The records of one alpha and lambda on all data sets, dims (record, data_seed)."""
    # predictors of order 1, at which the loss of a row curves as the squared one or less
    largest = max(float(curvature(problem)[0]) for problem in plain) * (2 + 2 * alpha**2)
    gamma, beta = (
        (config.resolution / largest, 0.0)
        if lam == 0
        else gamma_beta(lam=lam, eps=config.resolution * min(lam, 2 * math.sqrt(lam / largest)))
    )
    total = config.steps + config.growth_steps
    k = np.arange(1, total + 1)
    steps = gamma * np.exp(config.growth * np.maximum(k - config.steps, 0))
    log_time = np.log(np.cumsum(steps / (1 - beta)))
    each = stack(problems)
    engine = engine_over(
        problems, gamma, beta, alpha,
        method=Method(schedule=Arrays(gamma=steps)), tol=0.0, num_workers=workers(config),
    )  # fmt: skip
    chosen = record_steps(log_time, config.steps, config.records)
    found = [_measure(snapshot, each, best) for snapshot in snapshots(engine, chosen)]
    data = {key: np.stack([one[key].numpy() for one in found]) for key in found[0]}
    return xr.Dataset(
        {key: (("record", "data_seed"), value) for key, value in data.items()}
        | {
            "log_time": ("record", log_time[chosen - 1]),
            "growing": ("record", (chosen > config.steps).astype(float)),
        }
    )


def record_steps(log_time: np.ndarray, constant: int, records: int) -> np.ndarray:
    """Steps at which ln t is evenly spaced in its logarithm, from 1 on, in both parts.

    The last step of the constant part is the last of the first ``records``.
    """
    start = int(np.searchsorted(log_time, 1.0)) + 1
    ends = ((min(start, constant), constant), (constant + 1, len(log_time)))
    parts = []
    for first, last in ends:
        low, high = np.log(np.maximum(log_time[[first - 1, last - 1]], 1.0))
        times = np.exp(np.linspace(low, high, records))
        found = np.searchsorted(log_time, times).clip(first - 1, last - 1) + 1
        parts.append(np.concatenate([found[:-1], [last]]))
    return np.concatenate(parts)


def _measure(snapshot: Any, problem: Problem, best: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the runs are at one record, [R]."""
    theta = snapshot.theta
    least = margins(problem, theta).amin(-1)
    found = margin_certificate(problem, theta, snapshot.predicted_balancedness, snapshot.log_init)
    identity = (snapshot.predicted_balancedness / snapshot.balancedness - 1).abs().amax(-1)
    values = {
        "margin": least,
        "identity": torch.stack([identity, found.residual, found.sign_violation]).amax(0),
    }
    for order, norm in enumerate(("l1", "l2"), 1):
        # `best` has margins of 1
        own = least / torch.linalg.vector_norm(theta, ord=order, dim=-1)
        largest = 1 / torch.linalg.vector_norm(best[norm], ord=order, dim=-1)
        values[f"deficit_{norm}"] = 1 - own / largest
        values[f"to_{norm}"] = torch.linalg.vector_norm(_unit(theta) - _unit(best[norm]), dim=-1)
    return values


def _unit(theta: Tensor) -> Tensor:
    return theta / torch.linalg.vector_norm(theta, dim=-1, keepdim=True)


def least_slack(problem: Problem) -> float:
    """The least slack 1 - |<nu, column>| off the support of the l1 solution's dual program.

    The dual of min ||theta||_1, y_i <x_i, theta> >= 1, has nu >= 0 and |sum_i nu_i y_i x_i| <= 1.

    >>> columns = Problem(X=[[2.0, 1.0, 0.5]], y=[1], loss="logistic")  # nu = 1/2
    >>> least_slack(columns)
    0.5
    """
    Z = (problem.y[:, None] * problem.X).numpy()
    n, d = Z.shape
    found = linprog(np.ones(2 * d), A_ub=-np.hstack([Z, -Z]), b_ub=-np.ones(n), method="highs")
    slack = 1 - np.abs(found.ineqlin.marginals @ Z)
    off = np.abs(found.x[:d] - found.x[d:]) == 0
    return float(slack[off].min())


def exponents(results: xr.Dataset, part: slice = slice(None)) -> xr.DataArray:
    """p of deficit ~ (ln t)^-p, fitted to the records at which gamma grows, or some of them."""
    growing = int(results["growing"].isel(loss=0, alpha=0, lam=0).sum())
    one = results.isel(record=slice(-growing, None)).isel(record=part)
    x: xr.DataArray = one["log_time"].pipe(np.log)
    x = x - x.mean("record")
    y = one["deficit_l1"].where(one["deficit_l1"] > 0).pipe(np.log)
    return -(x * y).sum("record") / (x**2).sum("record")


def at_same_time(results: xr.Dataset) -> xr.DataArray:
    """Deficits of every lambda over gradient descent's at the same ln t, at the last record.

    Gradient descent's deficit is interpolated in the logarithm of ln t.
    """
    descent = results.sel(lam=0)
    found = results["deficit_l1"].isel(record=-1, drop=True).copy()
    for loss in results["loss"].values:
        for alpha in results["alpha"].values:
            at = {"loss": loss, "alpha": alpha}
            x, y = descent["log_time"].sel(at).values, descent["deficit_l1"].sel(at)
            for lam in results["lam"].values:
                when = float(results["log_time"].sel(at | {"lam": lam}).isel(record=-1))
                for seed in range(results.sizes["data_seed"]):
                    own = np.interp(when, x, y.isel(data_seed=seed).values)
                    found.loc[at | {"lam": lam, "data_seed": seed}] /= own
    return found


def parts_of(results: xr.Dataset, config: DictConfig) -> dict[str, xr.DataArray]:
    """What holds, each part in every cell that it is about."""
    constant = int((results["growing"].isel(loss=0, alpha=0, lam=0) == 0).sum())
    middle, last = results.isel(record=constant - 1), results.isel(record=-1)
    rises = (last["deficit_l1"] < middle["deficit_l1"]).mean("data_seed") >= config.share
    nearer = (last["to_l1"] < last["to_l2"]).mean("data_seed") >= 0.5
    large = middle.isel(alpha=-1)
    first = exponents(results, slice(None, config.records // 2)).median("data_seed")
    second = exponents(results, slice(config.records // 2, None)).median("data_seed")
    ratio = at_same_time(results).median("data_seed")
    ratio = ratio.sel(lam=ratio["lam"] > 0)
    return dict(
        zip(
            PARTS,
            (
                results["identity"].max(("record", "data_seed")) <= config.exact,
                rises & nearer,
                (large["to_l2"] < large["to_l1"]).mean("data_seed") >= 0.5,
                (first > 0) & (abs(second - first) <= config.straight * first),
                (ratio <= config.same) & (ratio >= 1 / config.same),
            ),
            strict=True,
        )
    )


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    parts = parts_of(results, config)
    counts = {key: (int(holds.sum()), holds.size) for key, holds in parts.items()}
    passed = [holds == total for holds, total in counts.values()]
    constant = int((results["growing"].isel(loss=0, alpha=0, lam=0) == 0).sum())
    middle, last = results.isel(record=constant - 1), results.isel(record=-1)
    shape = ("loss", "alpha", "lam", "data_seed")
    power = exponents(results)
    measured: dict[str, Any] = {
        "cells_in_which_it_holds": {
            key: {"cells": total, "holds": holds} for key, (holds, total) in counts.items()
        },
        "largest_error_of_the_identity": float(results["identity"].max()),
        "least_slack_of_the_l1_dual": spreads(results["least_slack"]),
        "ln_t": {
            "end of the constant step size": spreads(middle["log_time"].transpose(*shape[:3])),
            "last": spreads(last["log_time"].transpose(*shape[:3])),
        },
        "exponent_in_ln_t": spreads(power.transpose(*shape)),
        "deficit_over_gradient_descents_at_the_same_t": spreads(
            at_same_time(results).transpose(*shape)
        ),
        "ln_t_at_which_the_deficit_would_be_near": spreads(
            _needed(last, power, config.near).transpose(*shape)
        ),
    }
    for key in ("deficit_l1", "deficit_l2", "to_l1", "to_l2", "margin"):
        measured[key] = {
            "end of the constant step size": spreads(middle[key].transpose(*shape)),
            "last": spreads(last[key].transpose(*shape)),
        }
    return Outcome(
        verdict=verdict_of(sum(passed) if passed[0] else 0, len(passed)),
        finding=_finding(config, results, counts, (middle, last), power),
        sizes=data_sets(config.data_seeds, problem_size(config.n, config.d, config.s)),
        measured=measured,
        results=results,
        figure=draw(results, power, config),
        caption=CAPTION,
        notes=_notes(config),
    )


def _needed(last: xr.Dataset, power: xr.DataArray, near: float) -> xr.DataArray:
    """The ln t at which the fitted power law, from the last record on, has this deficit."""
    return last["log_time"] * (last["deficit_l1"] / near) ** (1 / power)


def _notes(config: DictConfig) -> list[str]:
    return [
        "At every record theta is the minimiser of D_{psi_Delta}(., theta~) over all predictors of "
        "margins at least its own: arcsinh(2 theta/Delta) - c = 2 X^T nu with y_i nu_i >= 0, to "
        "rounding.",
        "Towards the l1 margin: the deficit falls while gamma grows, on at least "
        f"{config.share:.0%} of data sets, and half of the directions end nearer the l1 one than "
        "the l2 one. Momentum: the median deficit over gradient descent's at the same t is within "
        f"a factor {config.same:g}.",
        f"The ln t for a deficit of {config.near:.0%} is extrapolated from the last record with "
        "the exponent fitted to all of the second part. Where the exponent is not steady it is no "
        "forecast, only a scale.",
        "Why it is slow is not tested here. From the leading order of psi_Delta one expects "
        "coordinates off the support of the l1 solution to decay like M^-g against those on it, M "
        "the margin and g their slack in the dual linear program. Measured of the data is only "
        "that the least g is small (table below).",
    ]


def _finding(
    config: DictConfig,
    results: xr.Dataset,
    counts: dict[str, tuple[int, int]],
    ends: tuple[xr.Dataset, xr.Dataset],
    power: xr.DataArray,
) -> str:
    last = ends[1]
    early, late = (end["deficit_l1"].median("data_seed").values.ravel() for end in ends)
    rates = power.median("data_seed").values.ravel()
    needed = _needed(last, power, config.near).median("data_seed").values.ravel()
    when = [end["log_time"].values.ravel() for end in ends]
    far = last["to_l1"].median("data_seed").values.ravel()
    reached, cells = counts[PARTS[1]]
    same, others = counts[PARTS[4]]
    straight, _ = counts[PARTS[3]]
    return (
        f"Towards the max l1 margin in {reached} of {cells} cells: missed by {span(early, 2)} at "
        f"ln t = {span(when[0], 2)}, {span(late, 2)} at {span(when[1], 3)} (directions "
        f"{span(far, 2)} apart); exponents in ln t: {span(rates, 2)}, steady in {straight} cells; "
        f"{config.near:.0%} extrapolates to ln t = {span(needed, 2)}; momentum keeps it within "
        f"{config.same:g} times in {same} of {others}."
    )


if __name__ == "__main__":
    main("max_margin", SECTION, CLAIM, study)
