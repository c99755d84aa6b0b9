"""Small lambda: when the balancedness cannot vanish, and what it tends to.

(docs/theory.md#small-lambda; poster, section 4.)

    python -m experiments.small_lambda

For each data set the first lambda at which some w_+- changes sign is found by a scan and
bisections, and set against the threshold that the theory guarantees; a flow at the threshold
itself is followed too. A zero of w_+- is simple, so it can enter a path only from t = infinity: at
the first lambda some Delta_inf is zero. A flow counts as free of sign changes only if the energy
that is left cannot bring another one. The formula is compared with the flow in its exponent.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
import torch
import xarray as xr
from omegaconf import DictConfig
from torch import Tensor

from dln_momentum import (
    EngineOptions,
    FlowPath,
    Flows,
    Problem,
    gradient_flow,
    momentum_flow,
    momentum_flows,
)
from dln_momentum.flows import FlowOptions
from dln_momentum.problem import stack
from dln_momentum.theory.continuous_bias import limit_bias
from dln_momentum.theory.small_lambda import (
    balance_drift,
    balance_drift_bound,
    lambda_threshold,
    small_lambda_balancedness,
)
from experiments.claim import Outcome, main
from experiments.common import described, span, sparse_problems, spread, verdict_of, workers
from experiments.flows import by_setting, of_settings, over, over_grid, uniform_start
from experiments.small_lambda_figure import draw

SECTION = "4"
CLAIM = (
    "For lambda <= n/||y||^2 min_i Delta_{0,i} the balancedness never vanishes; and "
    "Delta_inf ~ Delta_0 exp(-2 lambda int (grad L(theta_t))^2 dt) as lambda -> 0."
)

LONG_NAMES = {
    "threshold": "min_i Delta_{0,i} / (2 F(w_0)), guaranteed",
    "no_crossing_at": "largest lambda seen without a sign change of w_+-",
    "crossing_at": "smallest lambda seen with a sign change",
    "min_ratio_at_threshold": "min over t and i of q_t/q_0, q = u^2 - v^2, at the threshold",
    "drift_over_bound": "max over t and i of |q_t - q_0|, over 2 lambda F(w_0)",
    "drift_over_bound_at_threshold": "max over t and i of |q_t - q_0|, over 2 lambda F(w_0)",
    "exponent_error": "||ln(Delta_0/Delta_inf) - formula||_2 over ||formula||_2",
    "order": "slope of ln(exponent_error) on ln(lambda)",
}


CAPTION = (
    "(a) The smallest lambda with a sign change of w_+- against the guaranteed threshold, a mark "
    "for each data set, with lines of equal ratio. (b) Largest drift of u^2 - v^2 over its bound "
    "2 lambda F(w_0). (c) Relative error of the formula for ln(Delta_0/Delta_inf). Medians and "
    "quartiles over data sets."
)


def study(config: DictConfig) -> Outcome:
    """Find the first sign change of every data set, and the error of the formula."""
    return _judge(config, by_setting(_setting, config))


def _setting(setting: Any, config: DictConfig) -> xr.Dataset:
    problems = sparse_problems(setting.n, setting.d, setting.s, config.data_seeds)
    keys = {"alpha": setting.alpha, "rtol": config.rtol, "tol": config.tol}
    starts = [uniform_start(problem, setting.alpha) for problem in problems]
    threshold = torch.stack(
        [lambda_threshold(problem, w, w) for problem, w in zip(problems, starts, strict=True)]
    )
    task = partial(_flow, **keys)
    at = over(task, list(zip(problems, threshold.tolist(), strict=True)), config)
    below, above, sure = _first_crossing(problems, setting.alpha, threshold, config)
    small = over_grid(task, problems, config.small_lams, config)
    exponents = over(partial(_formula, **keys), [(problem,) for problem in problems], config)
    lams = torch.tensor(list(config.small_lams), dtype=torch.float64)[:, None, None]
    predicted = exponents["per_lambda"] * lams
    error = torch.linalg.vector_norm(small["exponent"] - predicted, dim=-1)
    by_lam, by_data = ("lam", "data_seed"), ("data_seed",)
    data = {
        "threshold": (by_data, threshold),
        "no_crossing_at": (by_data, below),
        "crossing_at": (by_data, above),
        "min_ratio_at_threshold": (by_data, at["min_ratio"]),
        "drift_over_bound_at_threshold": (by_data, at["drift_over_bound"]),
        "crossed_at_threshold": (by_data, at["crossed"]),
        "certified_at_threshold": (by_data, at["certified"]),
        "certified_without_crossing": (by_data, sure),
        "exponent_error": (by_lam, error / torch.linalg.vector_norm(predicted, dim=-1)),
        "drift_over_bound": (by_lam, small["drift_over_bound"]),
    }
    coords = {"lam": list(config.small_lams), "data_seed": range(config.data_seeds)}
    return xr.Dataset({key: (dims, value.numpy()) for key, (dims, value) in data.items()}, coords)


def _flow(problem: Problem, lam: float, alpha: float, rtol: float, tol: float) -> dict[str, Any]:
    """One flow to convergence: did Delta vanish, how far did it drift, where did it end."""
    w = uniform_start(problem, alpha)
    options = FlowOptions(rtol=rtol)
    path = momentum_flow(problem, w, w, lam, math.inf, tol=tol, options=options)
    drift = float(balance_drift(path).max())
    ratio = path.w_plus * path.w_minus / path.balancedness[0]
    return {
        "crossed": bool(path.sign_changes.any()),
        "certified": bool(certified(path)),
        "min_ratio": float(ratio.min()),
        "drift_over_bound": drift / float(balance_drift_bound(lam, path.loss[0])),
        "exponent": (path.balancedness[0] / limit_bias(path).balancedness).log(),
    }


def certified(path: FlowPath | Flows) -> Tensor:
    """Whether no w_+- can vanish after the path's end; one answer for each flow.

    From lambda q'' + q' = 2 lambda (u'^2 - v'^2), q = w_+ w_-, and what is left of the energy,
    |q_t - q_T| <= lambda |q'_T| + 2 lambda E_T for every later t.
    """
    w_plus, w_minus, dw_plus, dw_minus = (
        getattr(path, key)[-1] for key in ("w_plus", "w_minus", "dw_plus", "dw_minus")
    )
    rate = dw_plus * w_minus + w_plus * dw_minus
    left = path.lam * (rate.abs() + 2 * path.energy[-1].unsqueeze(-1))
    return ((w_plus * w_minus).abs() > left).all(-1)


def _first_crossing(
    problems: list[Problem], alpha: float, threshold: Tensor, config: DictConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """The largest lambda without and the smallest with a sign change, and if that is certain."""
    below, above = threshold.clone(), torch.full_like(threshold, torch.inf)
    sure = torch.ones_like(threshold, dtype=torch.bool)
    options = EngineOptions(num_workers=workers(config))

    def look(lams: Tensor, data: Tensor) -> None:
        w = uniform_start(problems[0], alpha)
        flows = momentum_flows(
            stack([problems[i] for i in data.tolist()]),
            *(w, w, lams[data], math.inf),
            tol=config.search_tol,
            rtol=config.search_rtol,
            options=options,
        )
        crossed = flows.sign_changes > 0
        above[data[crossed]] = lams[data[crossed]]
        below[data[~crossed]] = lams[data[~crossed]]
        sure[data] &= flows.converged & (crossed | certified(flows))

    for lam in config.scan:
        pending = above.isinf().nonzero().squeeze(-1)
        if len(pending):
            look(torch.full_like(threshold, lam), pending)
    for _ in range(config.bisections):
        bracketed = above.isfinite().nonzero().squeeze(-1)
        if len(bracketed):
            look((below * above).sqrt(), bracketed)
    return below, above, sure


def _formula(problem: Problem, alpha: float, rtol: float, tol: float) -> dict[str, Any]:
    """The exponent of the formula for each unit of lambda, 2 int (grad L)^2 dt, [d]."""
    w = uniform_start(problem, alpha)
    path = gradient_flow(problem, w, w, math.inf, tol=tol, options=FlowOptions(rtol=rtol))
    return {"per_lambda": (w * w / small_lambda_balancedness(path, 1.0)).log()}


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    free = (results["crossed_at_threshold"] == 0) & (results["certified_at_threshold"] == 1)
    order = _order(config, results)
    results = described(results.assign(order=order), **LONG_NAMES)
    first_order = bool((np.abs(order.median("data_seed") - 1) < config.order_tolerance).all())
    guarantee = bool(free.all())
    measured = {
        "flows_at_the_threshold": int(free.size),
        "flows_at_the_threshold_without_sign_change": int(free.sum()),
        "flows_below_the_first_sign_change_not_certified": int(
            (results["certified_without_crossing"] == 0).sum()
        ),
        "data_sets_without_any_sign_change": int(np.isinf(results["crossing_at"]).sum()),
        "threshold": _by_setting(results["threshold"]),
        "first_sign_change": _by_setting(results["crossing_at"]),
        "first_sign_change_over_threshold": _by_setting(
            results["crossing_at"] / results["threshold"]
        ),
        "min_balancedness_over_initial_at_threshold": _by_setting(
            results["min_ratio_at_threshold"]
        ),
        "drift_of_balancedness_over_its_bound": _by_setting(
            results["drift_over_bound_at_threshold"]
        ),
        "fitted_order_of_the_formula": _by_setting(order),
        "relative_error_of_the_exponent": {
            f"lambda={lam:g}": _by_setting(results["exponent_error"].sel(lam=lam))
            for lam in config.small_lams
        },
    }
    first = (results["crossing_at"] / results["threshold"]).median("data_seed").to_numpy()
    slopes = order.median("data_seed").to_numpy()
    lam = config.small_lams[0]
    error = results["exponent_error"].sel(lam=lam).median("data_seed").to_numpy()
    return Outcome(
        verdict=verdict_of(guarantee + first_order, 2),
        finding=(
            f"At the threshold n min Delta_0/||y||^2 the balancedness vanishes on "
            f"{int((~free).sum())} of {free.size} data sets, a sign changes first at {span(first)} "
            "times that lambda, and the relative error of ln(Delta_0/Delta_inf) by the formula is "
            f"{span(error, 1)} at lambda = {lam:g} and falls like lambda^{span(slopes)}."
        ),
        sizes=of_settings(config),
        measured=measured,
        results=results,
        figure=draw(config, results),
        caption=CAPTION,
        notes=[
            "The first sign change is between two lambda of a bisection; the larger one is given.",
            "A flow counts as free of sign changes if none was seen and a bound on what is left of "
            "the motion rules out a later one.",
        ],
    )


def _order(config: DictConfig, results: xr.Dataset) -> xr.DataArray:
    """Slope of ln(error) on ln(lambda) over the smallest lambdas, for each data set."""
    error = np.log(results["exponent_error"].isel(lam=slice(config.order_from)))
    x = np.log(error["lam"]) - np.log(error["lam"]).mean()
    return (error * x).sum("lam") / (x * x).sum()


def _by_setting(values: xr.DataArray) -> dict[str, list[float]]:
    return {str(name): spread(values.sel(setting=name)) for name in values["setting"].to_numpy()}


if __name__ == "__main__":
    main("small_lambda", SECTION, CLAIM, study)
