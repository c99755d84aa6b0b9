"""Small, medium and large lambda: three regimes of the same flow.

(docs/theory.md#momentum; poster, section 2.)

    python -m experiments.regimes

In the plane: the scalar network F(u, v) = (u v - 1)^2/2, posed with X = (1, 0), y = 1: the second
coordinate feels no force and stays where it starts, and (u_1, v_1) is the scalar network. On sparse
problems, and in the plane again, MGD of one step size gamma and every lambda: distance of the path
(as a curve) to gradient flow's, how much of the initial loss comes back while it oscillates, and
time and steps until the energy, which bounds every later loss, is at ``tol``.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import xarray as xr
from omegaconf import DictConfig
from torch import Tensor

from dln_momentum import (
    DiagonalLinearNet,
    Engine,
    EngineOptions,
    Momentum,
    Problem,
    Snapshot,
    gradient_flow,
    momentum_flow,
)
from dln_momentum.flows import FlowOptions
from experiments.claim import Outcome, main
from experiments.common import (
    curve_distance,
    described,
    engine_over_rules,
    snapshots,
    span,
    sparse_problems,
    spread,
    verdict_of,
    workers,
)
from experiments.figures import data_sets, problem_size
from experiments.regimes_figure import PLANE, draw

SECTION = "2"
CLAIM = (
    "lambda << 1 (small gamma): gradient flow's trajectory; lambda >> 1 (large beta): heavy "
    "oscillation and arbitrarily slow convergence; in between: the momentum regime."
)


CAPTION = (
    "(a) to (c) MGF(lambda) in the (u, v) plane of the scalar network, gradient flow dashed. (d) "
    "Loss of one data set. (e) Largest distance of (u, v) to gradient flow's curve, over how far "
    "that goes. (f) Sum of all increases of the loss over the initial loss. (g) Time k eps and (h) "
    "steps to converge. Medians and quartiles over data sets."
)


def study(config: DictConfig) -> Outcome:
    """Paths in the plane, then every lambda in the plane and on the sparse problems."""
    problem, net = _plane(config)
    parts = {PLANE: _sweep([problem], _plane_engine(problem, net, config), [net], config)}
    for case in config.cases:
        problems = sparse_problems(case.n, case.d, case.s, config.data_seeds)
        engine = engine_over_rules(
            problems, _rules(config), case.alpha, tol=0.0, num_workers=workers(config)
        )
        nets = [DiagonalLinearNet.uniform(case.d, case.alpha)] * len(problems)
        name = f"({case.n}, {case.d}, {case.s}, {case.alpha:g})"
        parts[name] = _sweep(problems, engine, nets, config)
    sweep = xr.concat(list(parts.values()), xr.IndexVariable("problem", list(parts)), join="outer")
    return _judge(config, sweep.assign(_plane_paths(problem, net, config)))


def _rules(config: DictConfig) -> list[Momentum]:
    return [Momentum.from_pair(lam=lam, gamma=config.gamma) for lam in config.lams]


def _plane(config: DictConfig) -> tuple[Problem, DiagonalLinearNet]:
    """The scalar network as the first of two coordinates; the second one never moves."""
    problem = Problem(X=torch.tensor([[1.0, 0.0]]), y=torch.tensor([1.0]))
    u, v = config.plane_start
    start = torch.tensor([[u, 1.0], [v, 0.0]], dtype=torch.float64)
    return problem, DiagonalLinearNet(start[0], start[1])


def _plane_engine(problem: Problem, net: DiagonalLinearNet, config: DictConfig) -> Engine:
    gamma, beta = (
        torch.tensor([getattr(rule, key) for rule in _rules(config)], dtype=torch.float64)
        for key in ("gamma", "beta")
    )
    w_plus, w_minus = (w.detach().expand(len(gamma), -1) for w in (net.w_plus, net.w_minus))
    return Engine(problem, gamma, beta, w_plus, w_minus, options=EngineOptions(tol=0.0))


def _plane_paths(problem: Problem, net: DiagonalLinearNet, config: DictConfig) -> dict[str, Any]:
    """(u_1, v_1) along gradient flow and the shown momentum flows, at equal fractions of them."""
    start, options = (net.w_plus, net.w_minus), FlowOptions(method="explicit", rtol=1e-9)
    flows = []
    for lam in (0.0, *config.shown):
        end = momentum_flow(problem, *start, lam, math.inf, tol=config.tol, options=options).t[-1]
        times = torch.linspace(0, 1, 2000, dtype=torch.float64) ** 2 * end
        path = momentum_flow(problem, *start, lam, float(end), times=times, options=options)
        flows.append(torch.stack([path.u[:, 0], path.v[:, 0]]))
    return {
        "plane_path": (("shown_lam", "layer", "point"), torch.stack(flows).numpy()),
        "shown_lam": [0.0, *config.shown],
        "layer": ["u", "v"],
    }


def _sweep(
    problems: list[Problem], engine: Engine, nets: list[DiagonalLinearNet], config: DictConfig
) -> xr.Dataset:
    """Everything that is measured of each lambda and data set."""
    dense = np.arange(0, config.dense_steps, config.dense_every)
    sparse = np.geomspace(config.dense_steps, config.max_steps, config.late_records)
    steps = np.concatenate([dense, sparse.round().astype(int)])
    kept = np.unique(np.geomspace(1, len(steps), config.curve_points).astype(int)) - 1
    shape = (len(config.lams), len(problems))
    loss, energy = np.full((2, len(steps), *shape), np.nan)
    path = {}
    for i, record in enumerate(snapshots(engine, steps)):
        loss[i], energy[i] = record.loss.reshape(shape), _energy(record).reshape(shape)
        if i in kept:
            path[i] = torch.cat([record.u, record.v], -1).reshape(*shape, -1).numpy()
        if (energy[i] <= config.tol).all():
            break
    eps = np.array([rule.eps for rule in _rules(config)])
    # the energy never grows along the flow: once it is below tol, the loss stays below
    ended = energy <= config.tol
    last = np.where(ended.any(0), ended.argmax(0), len(steps) - 1)
    taken = np.where(ended.any(0), steps[last], np.nan)
    rise = np.nansum(np.maximum(np.diff(loss, axis=0), 0), axis=0) / loss[0]
    curves = [_gradient_flow_curve(*pair, config) for pair in zip(problems, nets, strict=True)]
    distance = np.empty(shape)
    for i, j in np.ndindex(shape):
        points = np.stack([w[i, j] for record, w in path.items() if record <= last[i, j]])
        length = np.linalg.norm(curves[j][-1] - curves[j][0])
        distance[i, j] = curve_distance(points, curves[j]) / length
    dims = ("lam", "data_seed")
    return xr.Dataset(
        {
            "steps": (dims, taken),
            "time": (dims, taken * eps[:, None]),
            "rise": (dims, rise),
            "distance": (dims, distance),
            "beta": ("lam", [rule.beta for rule in _rules(config)]),
            "eps": ("lam", eps),
            "example_loss": (("lam", "step"), loss[:, :, 0].T),
        },
        coords={"lam": list(config.lams), "data_seed": range(len(problems)), "step": steps},
    )


def _energy(record: Snapshot) -> Tensor:
    """F + lambda/2 (||u'||^2 + ||v'||^2) with differences over eps for the derivatives, [R]."""
    speed = (record.w - record.previous) / record.eps
    lam = (record.gamma / (1 - record.beta) ** 2)[:, 0]
    return record.loss + lam / 4 * speed.square().sum((0, 2))


def _gradient_flow_curve(
    problem: Problem, net: DiagonalLinearNet, config: DictConfig
) -> np.ndarray:
    """(u, v) along gradient flow, dense in every part of it, [points, 2d]."""
    end = config.flow_time
    times = torch.linspace(0, 1, 500, dtype=torch.float64) ** 4 * end
    path = gradient_flow(
        problem, net.w_plus, net.w_minus, end, times=times, options=FlowOptions(rtol=1e-8)
    )
    return torch.cat([path.u, path.v], -1).numpy()


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    results = described(
        results,
        steps="steps of MGD until the energy is at tol",
        time="the same in t = k eps",
        rise="sum of all increases of the loss over the initial loss",
        distance="largest distance of (u, v) to gradient flow's curve, over how far that goes",
        plane_path="(u, v) of the scalar network, at equal steps of sqrt(t)",
        example_loss="training loss of data set 0",
    )
    typical = results[["steps", "time", "rise", "distance"]].median("data_seed")
    lams = np.array(config.lams)
    parts = {
        name: _regimes(typical.sel(problem=name), lams, config)
        for name in results["problem"].values
    }
    good = [name for name, part in parts.items() if all(part["seen"].values())]
    measured = {
        name: part | _numbers(results.sel(problem=name), config) for name, part in parts.items()
    }
    notes = [
        f"MGD with gamma = {config.gamma:g} for every lambda: beta = 1 - sqrt(gamma/lambda); the "
        "plane's paths are those of the flows.",
        "The scalar network is the first coordinate of a problem with X = (1, 0), y = 1.",
    ]
    sizes = [problem_size(c.n, c.d, c.s, c.alpha) for c in config.cases]
    return Outcome(
        verdict=verdict_of(len(good), len(parts)),
        finding=_finding(config, parts, good),
        sizes=f"The scalar network, and {data_sets(config.data_seeds, *sizes)}",
        measured=measured,
        results=results,
        figure=draw(results, config),
        caption=CAPTION,
        notes=notes,
    )


def _finding(config: DictConfig, parts: dict[str, Any], good: list[str]) -> str:
    curve = span(part["gradient_flow_curve_up_to_lambda"] for part in parts.values())
    growth = span((part["exponent_of_time_in_lambda"] for part in parts.values()), 2)
    fewest = span(part["lambda_of_fewest_steps"] for part in parts.values())
    return (
        f"On {len(good)} of {len(parts)} problems all of it is seen: gradient flow's curve to "
        f"{config.same_curve:.0%} up to lambda = {curve}, a time to converge that grows like "
        f"lambda^{growth} from lambda = {config.slow_from:g}, increases of the loss that exceed "
        f"its initial value at lambda = {config.lams[-1]:g} only, and fewest steps at lambda = "
        f"{fewest}."
    )


def _regimes(typical: xr.Dataset, lams: np.ndarray, config: DictConfig) -> dict[str, Any]:
    """What the poster says of each regime, on one problem, and where it begins."""
    follows = typical["distance"].values < config.same_curve
    time, steps = typical["time"].values, typical["steps"].values
    tail = (lams >= config.slow_from) & np.isfinite(time)
    # nan, and so not seen, where too few converged
    growth = np.polyfit(np.log(lams[tail]), np.log(time[tail]), 1)[0] if tail.sum() > 1 else np.nan
    fewest = int(np.where(np.isfinite(steps), steps, np.inf).argmin())
    rise = typical["rise"].values
    return {
        "seen": {
            "gradient flow's curve at the smallest lambda": bool(follows[0]),
            "time grows like lambda": bool(abs(growth - 1) < config.growth_agreement),
            "heavy oscillation at the largest lambda only": bool(rise[-1] > 1 > 100 * rise[0]),
            "fewest steps in between": 0 < fewest < len(lams) - 1,
        },
        "gradient_flow_curve_up_to_lambda": float(lams[np.cumprod(follows) > 0].max(initial=0)),
        "exponent_of_time_in_lambda": float(growth),
        "lambda_of_fewest_steps": float(lams[fewest]),
    }


def _numbers(one: xr.Dataset, config: DictConfig) -> dict[str, Any]:
    keys = ("distance", "rise", "time", "steps")
    return {
        key: {f"lambda={lam:g}": spread(one[key].sel(lam=lam)) for lam in config.lams}
        for key in keys
    }


if __name__ == "__main__":
    main("regimes", SECTION, CLAIM, study)
