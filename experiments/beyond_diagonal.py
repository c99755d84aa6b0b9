"""Does lambda name the path beyond the diagonal network?

(docs/theory.md#acceleration-rule; poster, section 2.)

    python -m experiments.beyond_diagonal

Two-layer ReLU students of a ReLU teacher and diagonal networks of depth 3, trained by `HeavyBall`
with autograd. Against a reference (lambda, eps) stand two runs of one and the same beta: the
acceleration rule's, equal in lambda with rho eps, and one equal in gamma/(1-beta) = eps, the
"effective learning rate", with lambda/rho. Distances are between outputs on test inputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from omegaconf import DictConfig

from dln_momentum import HeavyBall, Momentum
from experiments.beyond_diagonal_figure import draw
from experiments.claim import Outcome, main
from experiments.common import curve_distance, described, listed, spread
from experiments.figures import problem_size
from experiments.networks import Task, deep_diagonal_task, relu_task

SECTION = "2"
CLAIM = (
    "MGD(gamma, beta) on any loss F discretises MGF(lambda): the acceleration rule needs no "
    "diagonal network, and equal lambda is an equal path."
)
EQUAL = ("lambda", "effective rate")
CAPTION = (
    "(a), (b) One output on one test input: a slow reference and two runs with steps rho times as "
    "long, of equal lambda and of equal gamma/(1-beta). Below, a row for each network, over lambda "
    "of the reference: largest distance of the outputs at equal k eps, distance of the curves, and "
    "time to tolerance over the reference's. Medians and quartiles over data sets."
)


@dataclass(frozen=True)
class Paths:
    """Trained networks of one eps and several lambda, S seeds each."""

    outputs: dict[float, np.ndarray]
    """by lambda, on the test inputs at the common times, [S, times, rows]"""
    arrival: dict[float, np.ndarray]
    """by lambda, t at which the loss first was at tol, [S]; nan where it never was"""


def study(config: DictConfig) -> Outcome:
    """Train both kinds of network at every lambda and rho, in both families."""
    seeds = config.data_seeds
    tasks = [relu_task(config.relu, seeds), deep_diagonal_task(config.deep_diagonal, seeds)]
    parts = [_compare(task, config) for task in tasks]
    names = xr.IndexVariable("network", [task.name for task in tasks])
    return _judge(config, xr.concat(parts, names, join="outer"))


def _compare(task: Task, config: DictConfig) -> xr.Dataset:
    lams, rhos, eps = list(config.lams), list(config.rhos), config.eps
    cells = [(i, j) for i, j in np.ndindex(len(rhos), len(lams)) if rhos[i] * eps <= lams[j]]
    slowest = _train(task, sorted({*lams, *(lams[j] / rhos[i] for i, j in cells)}), eps, config)
    faster = [
        _train(task, [lam for lam in lams if rho * eps <= lam], rho * eps, config) for rho in rhos
    ]
    shape = (len(EQUAL), len(rhos), len(lams), len(task.x))
    distance, curve, time_ratio = np.full((3, *shape), np.nan)
    size = np.sqrt((task.y_test**2).mean(-1).numpy())
    root = task.x_test.shape[1] ** 0.5
    for i, j in cells:
        lam = lams[j]
        reference, reference_time = slowest.outputs[lam], slowest.arrival[lam]
        for family, paths, key in ((0, faster[i], lam), (1, slowest, lam / rhos[i])):
            gap = np.sqrt(((paths.outputs[key] - reference) ** 2).mean(-1)).max(-1)
            distance[family, i, j] = np.nan_to_num(gap / size, nan=np.inf, posinf=np.inf)
            # undefined where the reference never arrives, infinite where only the rival does not
            late = np.isnan(paths.arrival[key]) & ~np.isnan(reference_time)
            ratio = paths.arrival[key] / reference_time
            time_ratio[family, i, j] = np.where(late, np.inf, ratio)
            pairs = zip(paths.outputs[key][:, ::2], reference, strict=True)
            curve[family, i, j] = [curve_distance(*pair) / root for pair in pairs] / size
    dims = ("equal", "rho", "lam", "data_seed")
    shown = config.example
    example = _example(task, slowest, faster[rhos.index(shown.rho)], shown.lam, shown.rho)
    times = config.record_time * np.arange(1, example["example"][1].shape[1] + 1)
    return xr.Dataset(
        {
            "distance": (dims, distance),
            "curve_distance": (dims, curve),
            "time_ratio": (dims, time_ratio),
        }
        | example,
        coords={
            "equal": list(EQUAL),
            "rho": rhos,
            "lam": lams,
            "run": ["reference", *EQUAL],
            "record": times,
        },
    )


def _example(task: Task, reference: Paths, alike: Paths, lam: float, rho: float) -> dict[str, Any]:
    """One output of one network: the reference, equal in lambda, equal in the effective rate."""
    runs = (reference.outputs[lam], alike.outputs[lam], reference.outputs[lam / rho])
    farthest = np.abs(task.y_test[0].numpy()).argmax()
    return {
        "example": (("run", "record"), np.stack([run[0, :, farthest] for run in runs])),
        "example_lam": lam,
        "example_rho": rho,
    }


def _train(task: Task, lams: Sequence[float], eps: float, config: DictConfig) -> Paths:
    """Train all seeds at every lambda together, one run each."""
    rules = [Momentum.from_pair(lam=lam, eps=eps) for lam in lams for _ in task.x]
    x, y, x_test = (
        data.repeat(len(lams), *[1] * (data.ndim - 1)) for data in (task.x, task.y, task.x_test)
    )
    net = task.networks(len(lams))
    gamma = torch.tensor([rule.gamma for rule in rules], dtype=torch.float64)
    beta = torch.tensor([rule.beta for rule in rules], dtype=torch.float64)
    optimizer = HeavyBall(net.parameters(), gamma, beta)
    stride = round(config.record_time / eps)
    outputs, arrival, bar = [], torch.full_like(gamma, torch.nan), None
    # the parameters are w_1 at the start: w_k belongs to t = k eps
    for k in range(1, round(task.time / eps) + 1):
        loss = (net(x) - y).square().mean(-1) / 2
        bar = task.tol * loss.detach() if bar is None else bar
        arrival[arrival.isnan() & (loss.detach() <= bar)] = k * eps
        if k % stride == 0:
            with torch.no_grad():
                outputs.append(net(x_test))
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
    stacked = torch.stack(outputs, 1).unflatten(0, (len(lams), -1)).numpy()
    times = arrival.unflatten(0, (len(lams), -1)).numpy()
    return Paths(dict(zip(lams, stacked, strict=True)), dict(zip(lams, times, strict=True)))


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    results = described(
        results,
        distance="largest rms gap of outputs at equal t = k eps, over the rms of the teacher's",
        curve_distance="the same to the nearest point of the reference's curve, at any t",
        time_ratio="t to the tolerance over that of the reference",
        example="output on one test input, data set 0",
        record="t = k eps of the example",
    )
    alike, other = (results.sel(equal=equal, drop=True) for equal in EQUAL)
    run = alike["distance"].notnull().any("data_seed")
    closer = (alike["distance"] < other["distance"]).mean("data_seed") >= 0.75
    off = abs(alike["time_ratio"].median("data_seed") - 1)
    near = alike["distance"].fillna(np.inf).median("data_seed")
    holds = closer & (near < config.agreement) & (off < config.agreement)
    # a rho counts if every lambda that allows it holds, and all smaller rho count
    every = (holds | ~run).all("lam").cumprod("rho") > 0
    up_to = xr.where(every, results["rho"], 0).max("rho")
    parts = listed(f"{rho:g} on the {name} network" for name, rho in _pairs(up_to))
    verdict = "confirmed in part" if bool((up_to > 0).any()) else "not seen"
    verdict = "confirmed" if bool(every.all()) else verdict
    measured = {
        name: _numbers(results.sel(network=name), run.sel(network=name))
        for name, _ in _pairs(up_to)
    }
    for name, rho in _pairs(up_to):
        measured[name]["holds_up_to_rho"] = rho
    notes = [
        "Both rivals of a reference have the same beta = 1 - rho eps/lambda; one keeps lambda, the "
        "other gamma/(1-beta). The rule counts as holding where, at every lambda, equal lambda is "
        "the closer one in three data sets of four, and its median distance and its median change "
        f"of the time to tolerance are below {config.agreement:g}.",
        f"The references have eps = {config.eps:g}; rho eps = lambda is beta = 0.",
    ]
    relu, deep = config.relu, config.deep_diagonal
    return Outcome(
        verdict=verdict,
        finding=(
            f"At equal lambda, steps rho times as long keep outputs and time to the tolerance "
            f"within {config.agreement:.0%} of the reference's, and closer than equal "
            f"gamma/(1-beta) does on three data sets in four, up to rho = {parts} (0: at none)."
        ),
        sizes=(
            f"{config.data_seeds} data sets of each: two-layer ReLU, {relu.width} neurons, "
            f"n = {relu.n} in dimension {relu.dim}; depth-3 diagonal, (n, d, s, α) = "
            f"{problem_size(deep.n, deep.d, deep.s, deep.alpha)}"
        ),
        measured=measured,
        results=results.assign(holds_up_to_rho=up_to),
        figure=draw(results),
        caption=CAPTION,
        notes=notes,
    )


def _pairs(up_to: xr.DataArray) -> list[tuple[str, float]]:
    return [
        (str(name), float(rho))
        for name, rho in zip(up_to["network"].values, up_to.values, strict=True)
    ]


def _numbers(one: xr.Dataset, run: xr.DataArray) -> dict[str, Any]:
    """Quartiles over data sets and lambda for each rho, and how often equal lambda is closer."""
    keys = ("distance", "curve_distance", "time_ratio")
    found: dict[str, Any] = {
        f"{key}_at_equal_{equal.replace(' ', '_')}": {
            f"rho={rho:g}": spread(one[key].sel(equal=equal, rho=rho)) for rho in one["rho"].values
        }
        for key in keys
        for equal in EQUAL
    }
    for key in keys[:2]:
        won = (one[key].sel(equal=EQUAL[0]) < one[key].sel(equal=EQUAL[1])).where(run)
        found[f"share_of_runs_with_smaller_{key}_at_equal_lambda"] = {
            f"rho={rho:g}": float(won.sel(rho=rho).mean()) for rho in one["rho"].values
        }
    lost = (one["distance"].sel(equal=EQUAL[0]) == np.inf).sum("data_seed")
    found["diverged_at_equal_lambda"] = {
        f"rho={rho:g}": f"{int(lost.sel(rho=rho).sum())} of {_runs(one, run, rho)}"
        for rho in one["rho"].values
    }
    return found


def _runs(one: xr.Dataset, run: xr.DataArray, rho: float) -> int:
    return int(run.sel(rho=rho).sum()) * one.sizes["data_seed"]


if __name__ == "__main__":
    main("beyond_diagonal", SECTION, CLAIM, study)
