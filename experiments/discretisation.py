"""Momentum gradient descent as a discretisation of momentum gradient flow.

(docs/theory.md#order; poster, section 1.)

    python -m experiments.discretisation

The same iterates of MGD(gamma, beta) from rest are compared with MGF(lambda) at t = k eps and with
MGF(lambda_KS) at t = (k - 1/2) eps, for eps halved at fixed lambda; beside them the bound
exp(C K) eps, with C what one step of the iteration can amplify an error by at most.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from omegaconf import DictConfig
from torch import Tensor

from dln_momentum import DiagonalLinearNet, FlowPath, Momentum, Problem, momentum_flow
from dln_momentum.flows import FlowOptions
from dln_momentum.problem import stack
from experiments.claim import Outcome, main
from experiments.common import (
    described,
    engine_over,
    engine_over_rules,
    snapshots,
    span,
    sparse_problems,
    spread,
    verdict_of,
)
from experiments.discretisation_figure import EXAMPLE, FLOWS, ORDERS, draw
from experiments.figures import data_sets

SECTION = "1"
CLAIM = (
    "MGD(gamma, beta) is the discretisation of MGF(lambda), lambda = gamma/(1-beta)^2, with step "
    "eps = gamma/(1-beta); its error bound max_k |w_k - w(k eps)| <= exp(CK) eps is unnecessarily "
    "pessimistic."
)


CAPTION = (
    "(a) The largest coordinates of theta along MGD and both flows, one data set. (b) Largest "
    "error of w_+- over eps, medians and quartiles over data sets. (c) Error over time beside the "
    "bound exp(CK) eps. (d) Fitted order of every data set."
)


def study(config: DictConfig) -> Outcome:
    """Measure errors, orders and the bound in every case."""
    parts = [_case(case, config) for case in config.cases]
    results = xr.concat(parts, xr.IndexVariable("case", [_name(case) for case in config.cases]))
    results = results.assign(_example(config.cases[EXAMPLE], config))
    log_errors = xr.apply_ufunc(np.log, results["error"].max("point"))
    slopes = log_errors.polyfit("halving", 1)
    # one halving is -ln 2 in ln(eps)
    order = slopes["polyfit_coefficients"].sel(degree=1, drop=True) / -np.log(2)
    return _judge(config, results.assign(order=order))


def _name(case: DictConfig) -> str:
    return f"({case.n}, {case.d}, {case.s}, {case.alpha:g}), lambda = {case.lam:g}"


def _rules(case: DictConfig, config: DictConfig) -> list[Momentum]:
    halvings = range(config.halvings + 1)
    return [Momentum.from_pair(lam=case.lam, eps=case.eps / 2**i) for i in halvings]


def _case(case: DictConfig, config: DictConfig) -> xr.Dataset:
    """Errors of every eps, data set and time in one setting, and what the bound needs."""
    problems = sparse_problems(case.n, case.d, case.s, config.data_seeds)
    rules = _rules(case, config)
    times = case.eps * torch.arange(1, config.points + 1, dtype=torch.float64)
    paths = [_flow(problem, case, case.lam, times) for problem in problems]
    w = torch.stack([_w(path) for path in paths])
    errors = [_errors(problems, rule, case, times, w) for rule in rules]
    curvature = [_curvature(*pair) for pair in zip(problems, paths, strict=True)]
    dims = ("halving", "flow", "data_seed", "point")
    return xr.Dataset(
        {
            "error": (dims, torch.stack(errors).numpy()),
            "curvature": ("data_seed", curvature),
            "scheme_residual": ("data_seed", _scheme_residual(problems, rules, case)),
            "sign_changes": ("data_seed", [int(path.sign_changes.sum()) for path in paths]),
            "time": ("point", times.numpy()),
            "eps": ("halving", [rule.eps for rule in rules]),
            "beta": ("halving", [rule.beta for rule in rules]),
            "lam": case.lam,
        },
        coords={"flow": list(FLOWS), "halving": range(len(rules))},
    )


def _flow(problem: Problem, case: DictConfig, lam: float, times: Tensor) -> FlowPath:
    net = DiagonalLinearNet.uniform(problem.d, case.alpha)
    start = net.w_plus.detach(), net.w_minus.detach()
    # steps of about lambda are short enough for times of this size, and far below any error here
    options = FlowOptions(method="explicit", rtol=1e-10)
    return momentum_flow(problem, *start, lam, float(times[-1]), times=times, options=options)


def _w(path: FlowPath) -> Tensor:
    """(w_+, w_-) at the output times, [times, 2, d]; the path also starts with t = 0."""
    return torch.stack([path.w_plus[1:], path.w_minus[1:]], 1)


def _iterates(problems: list[Problem], rule: Momentum, case: DictConfig, points: int) -> Tensor:
    """w_k with k eps = t at the common times t, [data, times, 2, d]."""
    engine = engine_over(problems, rule.gamma, rule.beta, case.alpha, tol=0.0)
    stride = round(case.eps / rule.eps)
    # the engine starts at w_1, so that k comes after k - 1 steps
    steps = range(stride - 1, stride * points, stride)
    return torch.stack([found.w for found in snapshots(engine, steps)]).permute(2, 0, 1, 3)


def _errors(
    problems: list[Problem], rule: Momentum, case: DictConfig, times: Tensor, w: Tensor
) -> Tensor:
    """||w_k - w(t)||_inf against MGF(lambda) and MGF(lambda_KS), [flow, data, times]."""
    iterates = _iterates(problems, rule, case, len(times))
    early = times - rule.eps / 2
    w_ks = torch.stack([_w(_flow(problem, case, rule.lam_ks, early)) for problem in problems])
    return torch.stack([(iterates - flow).abs().amax((-1, -2)) for flow in (w, w_ks)])


def _curvature(problem: Problem, path: FlowPath) -> float:
    """The largest ||Hess F||_2 seen along a path: the Lipschitz constant of the error bound."""
    few = slice(None, None, max(1, len(path.t) // 20))
    u, v, theta = path.u[few], path.v[few], path.theta[few]
    gram, g = problem.X.T @ problem.X / problem.n, torch.diag_embed(problem.gradient(theta))

    def block(a: Tensor, b: Tensor) -> Tensor:
        return a[:, :, None] * gram * b[:, None, :]

    top, bottom = [block(v, v), block(v, u) + g], [block(u, v) + g, block(u, u)]
    hessian = torch.cat([torch.cat(top, -1), torch.cat(bottom, -1)], -2)
    return float(torch.linalg.eigvalsh(hessian).abs().max())


def _scheme_residual(
    problems: list[Problem], rules: list[Momentum], case: DictConfig, steps: int = 50
) -> np.ndarray:
    """lambda w''/eps^2 + w'/eps + grad F with differences for derivatives, relative, [data]."""
    engine = engine_over_rules(problems, rules, case.alpha, tol=0.0)
    found = list(snapshots(engine, range(steps)))
    repeated = stack(problems * len(rules))
    w = torch.stack([found[0].w, *(snapshot.w for snapshot in found)])
    eps = engine.gamma[:, None] / (1 - engine.beta[:, None])
    bends = case.lam * (w[2:] - 2 * w[1:-1] + w[:-2]) / eps**2
    slopes = (w[1:-1] - w[:-2]) / eps
    gradients = torch.stack([repeated.gradient(snapshot.theta) for snapshot in found])
    force = torch.tensor([1.0, -1.0])[:, None, None] * gradients[:-1, None] * w[1:-1]
    residual = (bends + slopes + force).abs().amax((0, 1, 3)) / force.abs().amax((0, 1, 3))
    return residual.reshape(len(rules), -1).amax(0).numpy()


def _example(case: DictConfig, config: DictConfig) -> dict[str, Any]:
    """theta of the first data set: coarsest MGD, and both of its flows."""
    problem = sparse_problems(case.n, case.d, case.s, 1)[0]
    rule = _rules(case, config)[0]
    times = case.eps * torch.arange(1, config.points + 1, dtype=torch.float64)
    w = _iterates([problem], rule, case, config.points)[0]
    flows = [_flow(problem, case, case.lam, times), _flow(problem, case, rule.lam_ks, times)]
    thetas = [(w[:, 0] ** 2 - w[:, 1] ** 2) / 4, *(path.theta[1:] for path in flows)]
    shown = thetas[1][-1].abs().argsort(descending=True)[: case.s]
    stacked = torch.stack(thetas)[..., shown].numpy()
    return {
        "example_theta": (("path", "point", "coordinate"), stacked),
        "path": ["MGD", *FLOWS],
        "coordinate": shown.numpy(),
    }


def log_growth(results: xr.Dataset) -> xr.DataArray:
    """C: the log of what one step can amplify an error by, (w_k - w_{k-1}) included.

    An error e_k of w_k obeys |d_{k+1}| <= beta |d_k| + gamma L |e_k|, e_{k+1} = e_k + d_{k+1}, up
    to what the step itself adds, so that exp(C) is the larger root of
    z^2 - (1 + beta + gamma L) z + beta.
    """
    beta = results["beta"]
    trace = 1 + beta + results["eps"] ** 2 / results["lam"] * results["curvature"]
    return ((trace + (trace**2 - 4 * beta) ** 0.5) / 2).pipe(np.log)


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    steps = results["time"] / results["eps"]
    log_bound = (np.log(results["eps"]) + log_growth(results) * steps) / np.log(10)
    excess = (log_bound - np.log10(results["error"].sel(flow="lambda"))).isel(point=-1)
    results = described(
        results.assign(log10_bound=log_bound, log10_bound_over_error=excess),
        error="||w_k - w(t_k)||_inf over the 2d coordinates of w_+-, in the unit of w",
        time="t = k eps",
        eps="gamma/(1-beta), unit of time",
        curvature="largest ||Hess F||_2 on the path of MGF(lambda)",
        scheme_residual="residual of the scheme that defines MGD, relative to the largest force",
        sign_changes="sign changes of w_+- along MGF(lambda)",
        order="slope of ln(max_k error) on ln(eps)",
        log10_bound="log10 of exp(C K) eps",
        log10_bound_over_error="log10 of bound over error against MGF(lambda) at the last time",
        example_theta="largest coordinates of theta in data set 0, MGD at the largest eps",
    )
    worst_order = abs(
        results["order"].median("data_seed") - xr.DataArray(list(ORDERS), dims="flow")
    )
    good = (worst_order.max("flow") < config.order_agreement) & (
        # a nan is an error that could not be measured
        excess.min(["data_seed", "halving"], skipna=False) > config.pessimistic
    )
    kept = [str(case) for case, ok in zip(results["case"].values, good.values, strict=True) if ok]
    verdict = verdict_of(len(kept), good.size)
    measured = {str(case): _numbers(results.sel(case=case)) for case in results["case"].values} | {
        "scheme_residual": float(results["scheme_residual"].max())
    }
    notes = [
        "Errors are max over k and over the 2d coordinates of w_+- at common times; orders are "
        "slopes of ln(error) on ln(eps), which the theory says are 1 (MGF(lambda), t = k eps) and "
        "2 (MGF(lambda_KS), t = (k - 1/2) eps).",
        "C is ours, the poster does not give it: the log of the largest growth of an error in one "
        "step, from the largest ||Hess F||_2 on the path.",
    ]
    sizes = [f"({case.n}, {case.d}, {case.s}, {case.alpha:g})" for case in config.cases]
    return Outcome(
        verdict=verdict,
        finding=_finding(results, kept),
        sizes=data_sets(config.data_seeds, *dict.fromkeys(sizes)),
        measured=measured,
        results=results,
        figure=draw(results),
        caption=CAPTION,
        notes=notes,
    )


def _finding(results: xr.Dataset, kept: list[str]) -> str:
    orders = results["order"].median("data_seed")
    first, second = (span(orders.sel(flow=flow).to_numpy()) for flow in FLOWS)
    excess = results["log10_bound_over_error"].median(("data_seed", "halving")).to_numpy()
    return (
        f"In {len(kept)} of {results.sizes['case']} settings MGD's error falls like eps against "
        f"MGF(lambda) (fitted orders {first}), like eps^2 against MGF(lambda_KS), "
        f"lambda_KS = lambda (1+beta)/2 (orders {second}), and the bound is 10^{excess.min():.0f} "
        f"to 10^{excess.max():.0f} times the error at the end."
    )


def _numbers(case: xr.Dataset) -> dict[str, Any]:
    fine = case.isel(halving=-1)
    return {f"order_{flow}": spread(case["order"].sel(flow=flow)) for flow in FLOWS} | {
        "largest_error_over_eps": spread(
            fine["error"].sel(flow="lambda").max("point") / fine["eps"]
        ),
        "log10_bound_over_error_at_its_least": spread(
            (fine["log10_bound"] - np.log10(fine["error"].sel(flow="lambda"))).min("point")
        ),
        "log10_bound_over_error_at_the_end": spread(fine["log10_bound_over_error"]),
        "sign_changes": spread(case["sign_changes"]),
    }


if __name__ == "__main__":
    main("discretisation", SECTION, CLAIM, study)
