"""From tiny starts, which saddles are visited, in which order and when; with momentum too.

(docs/theory.md#saddles.)

    python -m experiments.saddles

The start has scale alpha = 1e-5 to 1e-60. Time is tau = t/ln(1/alpha), and ln|w_+-|/ln(1/alpha) the
exponent of a coordinate. Both are compared with the jump process of `experiments.saddle_process`,
whose rate of growth is that of heavy ball's linear recursion at the very gamma and beta of the run;
and with the same process at the rate of gradient flow, which knows nothing of momentum. The process
says where the run ends, too: with momentum that is the minimiser of a weighted l1 norm, with
weights of their own for either sign, and not always that of least l1 norm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from omegaconf import DictConfig
from scipy.optimize import linprog

from dln_momentum import Problem, sparse
from dln_momentum.rates import gamma_beta
from dln_momentum.theory.interpolators import basis_pursuit
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
from experiments.saddle_process import Array, SaddleProcess, momentum_rate, saddle_process
from experiments.saddles_figure import draw

SECTION = ""
CLAIM = (
    "From tiny starts gradient flow goes from saddle to saddle as an algorithm predicts (Pesme and "
    "Flammarion 2023); so does momentum, once that algorithm lets coordinates grow at the rate of "
    "heavy ball's linear recursion."
)
CAPTION = (
    "(a), (b) theta of one data set over tau = t/ln(1/alpha) at the smallest alpha, without "
    "momentum and at a large lambda; dashed where the process of that lambda predicts its saddles. "
    "(c) The exponents ln|w_+-|/ln(1/alpha) of that run, larger of the two signs, and predicted. "
    "(d) Largest error of the exponents over 1/ln(1/alpha): filled by the process of the run's own "
    "rate, hollow by gradient flow's; medians and quartiles over data sets. (e) On how many data "
    "sets the last saddle is not of least l1 norm. (f) Distance of each run's end at the smallest "
    "alpha to its last saddle against that of the saddle to the least l1 norm, relative."
)
LONG_NAMES = {
    "exponent_error": "largest error of max(ln|w_+|, ln|w_-|)/ln(1/alpha) over time, by predictor",
    "plateaus": "predicted plateaus that last long enough to be judged",
    "plateaus_seen": "those with theta at their middle at the predicted saddle",
    "end_to_saddle": "||theta - saddle||/||saddle|| at the last record; nan if still under way",
    "end_to_l1": "||theta - theta_l1||/||theta_l1|| at the last record; nan if still under way",
    "saddle_to_l1": "the same distance of the last saddle",
    "saddle_to_weighted_l1": "distance of the last saddle to the least weighted l1 norm, relative",
}
PREDICTORS = ("its own rate", "gradient flow's")


def study(config: DictConfig) -> Outcome:
    """Every setting, lambda and alpha on all data sets."""
    parts = [_setting(setting, config) for setting in config.settings]
    names = [_name(setting) for setting in config.settings]
    results = along("setting", names, parts)
    results = results.assign(_example(config)).assign_coords(data_seed=range(config.data_seeds))
    return _judge(config, described(results, **LONG_NAMES))


def _name(setting: Any) -> str:
    return problem_size(setting.n, setting.d, setting.s)


def _setting(setting: Any, config: DictConfig) -> xr.Dataset:
    problems = sparse_problems(setting.n, setting.d, setting.s, config.data_seeds)
    rows = []
    for lam in config.lams:
        gamma, beta = _rates(problems, lam, config)
        own, flow = _processes(problems, gamma, beta), _processes(problems, 0.0, 0.0)
        ends = [_ends(*pair) for pair in zip(problems, own, strict=True)]
        columns = [
            _compare(problems, gamma, beta, alpha, setting.tau, (own, flow), config)
            for alpha in config.alphas
        ]
        last = xr.Dataset({key: ("data_seed", [end[key] for end in ends]) for key in ends[0]})
        rows.append(along("alpha", config.alphas, columns).merge(last))
    return along("lam", config.lams, rows)


def _rates(problems: Sequence[Problem], lam: float, config: DictConfig) -> tuple[float, float]:
    """(gamma, beta) at a share of the largest stable step; lambda = 0 is gradient descent."""
    sizes = [curvature(problem) for problem in problems]
    largest = max(float(2 * top * size) for top, size in sizes)
    if lam == 0:
        return config.resolution / largest, 0.0
    eps = config.resolution * min(lam, 2 * math.sqrt(lam / largest))
    return gamma_beta(lam=lam, eps=eps)


def _processes(problems: Sequence[Problem], gamma: float, beta: float) -> list[SaddleProcess]:
    """The process of each problem; gamma = 0 is gradient flow."""
    rate = momentum_rate(gamma, beta) if gamma else lambda h: h
    return [saddle_process(problem.X.numpy(), problem.y.numpy(), rate) for problem in problems]


def _path(
    problems: Sequence[Problem],
    gamma: float,
    beta: float,
    alpha: float,
    until: float,
    config: DictConfig,
) -> tuple[Array, Array, Array]:
    """tau [T], theta [T, R, d] and the exponents [T, R, 2, d] of runs of one (gamma, beta, alpha).

    The exponent is that of the oscillation's amplitude, sqrt(w^2 + lambda w'^2), since w itself
    crosses 0 where it decays in oscillations.
    """
    eps, lam, log = gamma / (1 - beta), gamma / (1 - beta) ** 2, -math.log(alpha)
    steps = np.linspace(0, until * log / eps, config.records + 1)[1:].round().astype(int)
    engine = engine_over(
        problems, gamma, beta, alpha,
        tol=0.0, path_sums="gradient_sum", num_workers=workers(config),
    )  # fmt: skip
    theta, exponents = [], []
    for record in snapshots(engine, steps):
        speed = (record.w - record.previous) / eps
        size = (record.w**2 + lam * speed**2).sqrt()
        exponents.append((size.log() / log).transpose(0, 1).numpy())
        theta.append(record.theta.numpy())
    return steps * eps / log, np.stack(theta), np.stack(exponents)


def _compare(
    problems: Sequence[Problem],
    gamma: float,
    beta: float,
    alpha: float,
    until: float,
    predictors: Sequence[Sequence[SaddleProcess]],
    config: DictConfig,
) -> xr.Dataset:
    """Runs against both predictors, dims (predictor, data_seed) and (data_seed,)."""
    tau, theta, exponents = _path(problems, gamma, beta, alpha, until, config)
    own, _ = predictors
    errors = [
        [
            np.abs(exponents[:, r].max(1) - process.at(tau)[1].max(1)).max()
            for r, process in enumerate(processes)
        ]
        for processes in predictors
    ]
    rest = config.rest_time * (1 + gamma / (1 - beta) ** 2) / -math.log(alpha)
    seen = [
        plateaus_seen(process, tau, theta[:, r], rest, config.same) for r, process in enumerate(own)
    ]
    least = [_l1(problem) for problem in problems]
    last = [process.theta[-1] for process in own]
    ended = [process.start[-1] + rest < tau[-1] for process in own]
    return xr.Dataset(
        {
            "exponent_error": (("predictor", "data_seed"), errors),
            "plateaus": ("data_seed", [float(len(s)) for s in seen]),
            "plateaus_seen": ("data_seed", [float(sum(s)) for s in seen]),
            "end_to_saddle": ("data_seed", _distances(theta[-1], last, ended)),
            "end_to_l1": ("data_seed", _distances(theta[-1], least, ended)),
        },
        coords={"predictor": list(PREDICTORS)},
    )


def plateaus_seen(
    process: SaddleProcess, tau: Array, theta: Array, rest: float, same: float
) -> list[bool]:
    """For each plateau that lasts at least ``rest``, whether theta is at its saddle half-way.

    Args:
        process: the prediction.
        tau, theta: the records, [T] and [T, d]; a plateau that outlasts them ends with them.
        rest: in units of tau.
        same: largest distance to the saddle, relative to the last saddle.
    """
    ends = np.minimum(np.append(process.start[1:], np.inf), tau[-1])
    size = np.linalg.norm(process.theta[-1])
    found = []
    for start, end, saddle in zip(process.start, ends, process.theta, strict=True):
        if end - start >= rest:
            middle = theta[np.abs(tau - (start + end) / 2).argmin()]
            found.append(bool(np.linalg.norm(middle - saddle) <= same * size))
    return found


def _ends(problem: Problem, process: SaddleProcess) -> dict[str, float]:
    """How far the last saddle is from the least l1 norm, and from the least weighted one."""
    end = process.theta[-1]
    weighted = least_weighted(problem, process.weights)
    return {
        "saddle_to_l1": _distance(end, _l1(problem)),
        "saddle_to_weighted_l1": _distance(end, weighted),
    }


def least_weighted(problem: Problem, weights: Array) -> Array:
    """The interpolator of least sum_i weights_{+,i} theta_i^+ + weights_{-,i} theta_i^-, [d]."""
    X = problem.X.numpy()
    found = linprog(
        weights.reshape(-1), A_eq=np.hstack([X, -X]), b_eq=problem.y.numpy(), method="highs"
    )
    parts = found.x if found.status == 0 else np.full(2 * problem.d, np.nan)
    return parts[: problem.d] - parts[problem.d :]


def _l1(problem: Problem) -> Array:
    return basis_pursuit(problem.X, problem.y).numpy()


def _distance(theta: Array, other: Array) -> float:
    return float(np.linalg.norm(theta - other) / np.linalg.norm(other))


def _distances(theta: Array, others: Sequence[Array], valid: Sequence[bool]) -> list[float]:
    return [
        _distance(one, other) if ok else math.nan
        for one, other, ok in zip(theta, others, valid, strict=True)
    ]


def _example(config: DictConfig) -> dict[str, Any]:
    """Records and predictions of one data set at the smallest alpha, at the shown lambdas."""
    setting = config.settings[0]
    problem = sparse(setting.n, setting.d, setting.s, seed=config.shown_seed)
    drawn: dict[str, list[Array]] = {"tau": [], "theta": [], "exponent": []}
    drawn |= {"theta_predicted": [], "exponent_predicted": []}
    for lam in config.shown_lams:
        gamma, beta = _rates([problem], lam, config)
        tau, theta, exponents = _path(
            [problem], gamma, beta, config.alphas[-1], setting.tau, config
        )
        (process,) = _processes([problem], gamma, beta)
        saddle, predicted = process.at(tau)
        drawn["tau"].append(tau)
        drawn["theta"].append(theta[:, 0])
        drawn["exponent"].append(exponents[:, 0].max(1))
        drawn["theta_predicted"].append(saddle)
        drawn["exponent_predicted"].append(predicted.max(1))
    dims = ("shown_lam", "record", "coordinate")
    return {
        f"example_{key}": (dims[: np.ndim(values)], np.stack(values))
        for key, values in drawn.items()
    } | {"shown_lam": list(config.shown_lams)}


def orders(results: xr.Dataset) -> xr.DataArray:
    """Exponent p of error ~ ln(1/alpha)^-p, fitted over alpha, by setting, lambda and data set."""
    error = results["exponent_error"].sel(predictor=PREDICTORS[0], drop=True)
    log = np.log(-np.log(results["alpha"]))
    centred = log - log.mean()
    return -(centred * np.log(error)).sum("alpha") / (centred**2).sum()


def cells(results: xr.Dataset, config: DictConfig) -> xr.Dataset:
    """What holds in each (setting, lambda) at the smallest alpha."""
    smallest = results.isel(alpha=-1, drop=True)
    error = smallest["exponent_error"].quantile(0.75, "data_seed")
    share = smallest["plateaus_seen"].sum("data_seed") / smallest["plateaus"].sum("data_seed")
    order = orders(results).median("data_seed")
    return xr.Dataset(
        {
            "exponents": error.sel(predictor=PREDICTORS[0], drop=True) <= config.exponent_tol,
            "saddles": share >= config.share,
            "order": abs(order - 1) <= config.order_tol,
        }
    )


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    holds = cells(results, config)
    passed = holds["exponents"] & holds["saddles"] & holds["order"]
    smallest = results.isel(alpha=-1)
    by_lam = smallest.sum("data_seed")
    error = smallest["exponent_error"]
    measured = {
        "what_holds": {
            str(key): spreads(value.astype(float)) for key, value in holds.data_vars.items()
        },
        "largest_error_of_the_exponents": spreads(
            results["exponent_error"].transpose("predictor", "setting", "lam", "alpha", ...)
        ),
        "order_in_1_over_ln": spreads(orders(results)),
        "plateaus_judged": spreads(by_lam["plateaus"]),
        "plateaus_seen": spreads(by_lam["plateaus_seen"]),
        "distance_of_the_last_saddle_to_least_l1": spreads(smallest["saddle_to_l1"]),
        "distance_of_the_last_saddle_to_least_weighted_l1": spreads(
            smallest["saddle_to_weighted_l1"]
        ),
        "distance_of_the_end_to_the_last_saddle": spreads(smallest["end_to_saddle"]),
        "distance_of_the_end_to_least_l1": spreads(smallest["end_to_l1"]),
        "ends_that_are_not_of_least_l1_norm": _elsewhere(smallest, config),
    }
    return Outcome(
        verdict=verdict_of(int(passed.sum()), passed.size),
        finding=_finding(config, smallest, passed, error),
        sizes=data_sets(config.data_seeds, *results["setting"].values),
        measured=measured,
        results=results,
        figure=draw(results, config),
        caption=CAPTION,
        notes=_notes(config),
    )


def _elsewhere(smallest: xr.Dataset, config: DictConfig) -> dict[str, Any]:
    """How many data sets end elsewhere than at the least l1 norm, and do so in a run."""
    predicted = (smallest["saddle_to_l1"] > config.same).sum("data_seed")
    ended = smallest["end_to_l1"].notnull().sum("data_seed")
    off = (smallest["end_to_l1"] > config.same) & (smallest["end_to_saddle"] <= config.same)
    return {
        "predicted": spreads(predicted),
        "runs_that_ended": spreads(ended),
        "of_these_elsewhere_as_predicted": spreads(off.sum("data_seed")),
    }


def _notes(config: DictConfig) -> list[str]:
    return [
        "Plateaus are judged that last at least "
        f"{config.rest_time:g} (1 + lambda) in t; half-way, theta must be within "
        f"{config.same:.0%} of the predicted saddle, relative to the last one.",
        "Momentum's rates are below the gradient, so that a coordinate pushed to and fro ends "
        "below where it started: Delta falls by a power of alpha, and the last saddle minimises an "
        "l1 norm whose weights, 1 + the exponents lost, differ by coordinate and sign. A linear "
        "program checks that. At fixed lambda, alpha -> 0 need not give the least l1 norm.",
        "Runs are followed to a fixed tau; those whose last saddle comes later have no end here.",
    ]


def _finding(
    config: DictConfig, smallest: xr.Dataset, passed: xr.DataArray, error: xr.DataArray
) -> str:
    typical = error.median("data_seed")
    own, flow = (typical.sel(predictor=name) for name in PREDICTORS)
    moved = flow.sel(lam=[lam for lam in config.lams if lam >= 1])
    share = smallest["plateaus_seen"].sum() / smallest["plateaus"].sum()
    last = smallest.isel(lam=-1, setting=-1)
    off = int((last["saddle_to_l1"] > config.same).sum())
    return (
        f"In {int(passed.sum())} of {passed.size} cells (size, lambda) saddles and exponents "
        f"ln|w|/ln(1/alpha) are as predicted, the latter at alpha = {config.alphas[-1]:g} to "
        f"{span(own.values.ravel(), 2)} (by gradient flow's rate, from lambda = 1 on: "
        f"{span(moved.values.ravel(), 2)}); {float(share):.0%} of plateaus are seen; at lambda = "
        f"{config.lams[-1]:g} the last saddle is not of least l1 norm on {off} of "
        f"{config.data_seeds} data sets of {last['setting'].item()}."
    )


if __name__ == "__main__":
    main("saddles", SECTION, CLAIM, study)
