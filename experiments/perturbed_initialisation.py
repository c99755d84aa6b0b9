"""Of which order in lambda is the perturbed initialisation?

(docs/theory.md#order-of-theta; poster, section 4, and the paper named below.)

    python -m experiments.perturbed_initialisation

Lyu, Wang, Wang and Zhu (AAAI 2025, Theorem 3) have theta~_0 - theta_0 of first order in lambda. By
the theory that depends on how the flow starts. Along MGF(lambda) from theta_0 = 0, with
c = arcsinh(2 theta~_0/Delta_inf) and g_t = grad L(theta_t) along gradient flow,

    from rest:                   c = I_- - I_+             = -4 lambda^2 int g_t^3 dt + ...,
    from w'(0) = -grad F(w_0):   c = -2 lambda g_0 + the same + ...,

because a flow that does not start at rest has -lambda w'_0/w_0 in I_+-. Both orders are fitted,
and both leading coefficients are compared with their formulas.
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

from dln_momentum import EngineOptions, Problem, gradient_flow, momentum_flows
from dln_momentum.flows import FlowOptions
from dln_momentum.problem import stack
from dln_momentum.theory.continuous_bias import limit_bias
from dln_momentum.theory.discrete_bias import log_perturbed_init_norm
from experiments.claim import Outcome, main
from experiments.common import described, span, sparse_problems, spreads, verdict_of, workers
from experiments.flows import by_setting, of_settings, over, uniform_start
from experiments.perturbed_initialisation_figure import draw

SECTION = "4"
CLAIM = (
    "The perturbed initialisation theta~_0 of momentum gradient flow is of second order in lambda "
    "from rest, and of first order (Lyu et al. 2025, Theorem 3) only from an initial speed such as "
    "w'(0) = -grad F(w_0)."
)
CAPTION = (
    "(a) ||theta~_0|| over ||theta_inf|| against lambda, from rest (filled) and from the speed of "
    "gradient flow (hollow). (b) Distance of c = arcsinh(2 theta~_0/Delta_inf) to its leading "
    "term, relative. (c) Fitted order in lambda of every data set. Medians and quartiles over data "
    "sets in (a), (b)."
)
STARTS = {"rest": 2.0, "gradient": 1.0}
"""The starts, and the order in lambda that the theory gives to theta~_0."""

LONG_NAMES = {
    "size": "||theta~_0|| / ||theta_inf||",
    "order": "slope of ln ||theta~_0|| on ln lambda",
    "formula_error": "||c - leading term|| / ||leading term||",
    "error_estimate": "of w along the flow, relative",
}


def study(config: DictConfig) -> Outcome:
    """Follow every flow from both starts, and fit the order of theta~_0."""
    results = by_setting(_setting, config)
    return _judge(config, described(results.assign(order=_order(config, results)), **LONG_NAMES))


def _setting(setting: Any, config: DictConfig) -> xr.Dataset:
    problems = sparse_problems(setting.n, setting.d, setting.s, config.data_seeds)
    task = partial(_gradients, alpha=setting.alpha, points=config.quadrature)
    along = over(task, [(problem,) for problem in problems], config)
    lam = torch.tensor(list(config.lams), dtype=torch.float64)
    shape = (len(lam), len(problems))
    values: dict[str, list[Tensor]] = {"size": [], "formula_error": [], "error_estimate": []}
    for start in STARTS:
        w = uniform_start(problems[0], setting.alpha).expand(len(lam) * len(problems), -1)
        g = along["first"].repeat(len(lam), 1) if start == "gradient" else torch.zeros_like(w)
        flows = momentum_flows(
            stack(problems * len(lam)),
            *(w, w, lam.repeat_interleave(len(problems)), math.inf),
            dw_plus_0=-g * w,
            dw_minus_0=g * w,
            rtol=config.rtol,
            tol=config.tol,
            options=EngineOptions(num_workers=workers(config)),
        )
        bias = limit_bias(flows)
        # a flow that has not converged says nothing of theta~_0
        c = torch.where(flows.converged[:, None], bias.log_init, torch.nan)
        leading = leading_term(lam[:, None, None], along["first"], along["cubes"], start)
        norm = torch.linalg.vector_norm
        size = log_perturbed_init_norm(bias.balancedness, c).exp() / norm(flows.theta[-1], dim=-1)
        values["size"].append(size.reshape(shape))
        gap = c.reshape(*shape, -1) - leading
        values["formula_error"].append(norm(gap, dim=-1) / norm(leading, dim=-1))
        values["error_estimate"].append(flows.error_estimate[-1].reshape(shape))
    dims = ("start", "lam", "data_seed")
    return xr.Dataset(
        {key: (dims, torch.stack(parts).numpy()) for key, parts in values.items()},
        {"start": list(STARTS), "lam": list(config.lams), "data_seed": range(len(problems))},
    )


def leading_term(lam: Tensor, first: Tensor, cubes: Tensor, start: str) -> Tensor:
    """The leading terms of c: -4 lambda^2 int g^3 dt, and -2 lambda g_0 where there is a speed."""
    second = -4 * lam**2 * cubes
    return second - 2 * lam * first if start == "gradient" else second


def _gradients(problem: Problem, alpha: float, points: int) -> dict[str, Tensor]:
    """g_0 and int g^3 dt along gradient flow, [d] each."""
    w = uniform_start(problem, alpha)
    options = FlowOptions(rtol=1e-9)
    end = gradient_flow(problem, w, w, math.inf, tol=1e-16, options=options).t[-1]
    # dense at first, where the gradient is large; even in sqrt(t), so that dt = 2 sqrt(t) d sqrt(t)
    root = torch.linspace(0, 1, points, dtype=torch.float64)
    times = root**4 * end
    path = gradient_flow(problem, w, w, float(end), times=times, options=options)
    # every output time, and t = 0 once
    theta = path.theta[-points:]
    cubes = torch.trapezoid(problem.gradient(theta) ** 3, times, dim=0)
    return {"first": problem.gradient(theta[0]), "cubes": cubes}


def _order(config: DictConfig, results: xr.Dataset) -> xr.DataArray:
    """Slope of ln ||theta~_0|| on ln lambda over the smallest lambdas, for each data set."""
    size = np.log(results["size"].isel(lam=slice(config.order_from)))
    x = np.log(size["lam"]) - np.log(size["lam"]).mean()
    return (size * x).sum("lam", skipna=False) / (x * x).sum()


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    # a data set without an order is left out and counted; too many of them leave no median
    found = results["order"].notnull().mean("data_seed")
    median = results["order"].median("data_seed").where(found >= config.least_share)
    expected = xr.DataArray(list(STARTS.values()), coords={"start": list(STARTS)})
    good = (abs(median - expected) < config.order_tolerance).all("setting")
    smallest = results["formula_error"].isel(lam=0)
    measured = {
        "fitted_order": spreads(results["order"]),
        "size_over_that_of_the_limit": spreads(results["size"]),
        "relative_error_of_the_leading_term": spreads(results["formula_error"]),
        "largest_error_estimate_of_a_flow": float(results["error_estimate"].max()),
        "flows_not_converged": int(results["size"].isnull().sum()),
    }
    missing = int(results["order"].isnull().sum())
    orders = {start: span(median.sel(start=start).to_numpy()) for start in STARTS}
    errors = span(smallest.median("data_seed").to_numpy().ravel(), 1)
    return Outcome(
        verdict=verdict_of(int(good.sum()), good.size),
        finding=(
            f"||theta~_0|| grows like lambda^p with p = {orders['rest']} from rest (2 by the "
            f"theory) and p = {orders['gradient']} from w'(0) = -grad F(w_0) (1 by the theory), "
            f"medians over data sets; its leading term is right to {errors}, relative, at lambda = "
            f"{config.lams[0]:g}; {missing} of {results['order'].size} fits are missing, since a "
            "flow did not converge."
        ),
        sizes=of_settings(config),
        measured=measured,
        results=results,
        figure=draw(config, results),
        caption=CAPTION,
        notes=[
            "theta_0 = 0 here. From other starts the statements are about theta~_0 - theta_0.",
            "`torch.optim.SGD` starts at rest: its first step is gamma times the gradient, "
            "w_1 = w_0 - gamma grad F(w_0), which is the second step of MGD from w_0 = w_1.",
        ],
    )


if __name__ == "__main__":
    main("perturbed_initialisation", SECTION, CLAIM, study)
