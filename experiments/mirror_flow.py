"""Momentum gradient flow as a mirror flow with a potential that moves.

(docs/theory.md#mirror-flow and docs/theory.md#three-point; poster, section 5.)

    python -m experiments.mirror_flow

From a time T after the last sign change of w_+- (T = 0 if there is none) the path is held against
the mirror flow of Phi_t = psi_{Delta_t} - <b_t, .>, where b_t comes from I_+- summed by its
definition, and not from the equation of motion. Then the two steps of the proof: the mirror image
moves within span(x_1..x_n), and the three-point identity, for several interpolators.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import xarray as xr
from omegaconf import DictConfig
from torch import Tensor

from dln_momentum import FlowPath, Problem, momentum_flow
from dln_momentum.flows import FlowOptions, quadrature_path_integrals
from dln_momentum.problem import stack
from dln_momentum.theory.discrete_bias import asymptotic_balancedness, kkt_residual, log_init
from dln_momentum.theory.entropy import bregman_divergence, inverse_mirror_map
from dln_momentum.theory.interpolators import basis_pursuit, least_norm
from dln_momentum.theory.mirror_flow import linear_term, mirror_flow_residual
from experiments.claim import Outcome, main
from experiments.common import described, listed, sparse_problems, spread, verdict_of
from experiments.flows import by_setting, of_settings, over_grid, uniform_start
from experiments.mirror_flow_figure import draw

SECTION = "5"
CLAIM = (
    "After some time T > 0 the predictors follow a momentum mirror flow with time-varying "
    "potentials Phi_t; hence grad Phi_inf(theta_inf) - grad Phi_0(theta_0) is in span(x_1..x_n), "
    "and D(theta*, theta~_0) = D(theta*, theta^MGF) + D(theta^MGF, theta~_0) for interpolators "
    "theta*."
)

NOTES = [
    "The poster's text has span(x_1..x_n)^perp for the change of grad Phi; it is the span itself.",
    "T is `wait` lambda after the last sign change of w_+-, 0 without sign changes; from there on "
    "I_+- are summed from their definition, by quadrature.",
]

EQUALITIES = ("residual", "outside_span", "three_point")

CAPTION = (
    "(a) Balancedness, (b) linear term b_t and (c) the potential Phi_t of one coordinate along one "
    "path. (d) Largest residual of the mirror flow over time, relative. (e) Violation of the "
    "three-point identity, relative, largest over three interpolators. (f) The time T from which "
    "the mirror flow holds, in runs with sign changes. Medians and quartiles over data sets."
)

LONG_NAMES = {
    "residual": "max over t and i of the residual of the mirror flow over that of |G|",
    "outside_span": "part of the mirror image's change outside span(x_1..x_n), relative",
    "three_point": "violation of the three-point identity over D(theta*, theta~_0)",
    "balance_error": "max_i |Delta_inf by I_+- over Delta at the end - 1|",
    "start": "time T from which the mirror flow was taken up",
    "crossed": "1 if some w_+- changed sign",
    "example_balancedness": "Delta_t along one path",
    "example_linear_term": "b_t along it",
}


def study(config: DictConfig) -> Outcome:
    """Measure the three equalities on every flow, and keep one path to draw."""
    results = by_setting(_setting, config).merge(_example(config.settings[0], config))
    return _judge(config, described(results, **LONG_NAMES))


def _setting(setting: Any, config: DictConfig) -> xr.Dataset:
    problems = sparse_problems(setting.n, setting.d, setting.s, config.data_seeds)
    keys = {"wait": config.wait, "rtol": config.rtol, "tol": config.tol}
    flows = over_grid(partial(_run, alpha=setting.alpha, **keys), problems, config.lams, config)
    problem = stack(problems)
    values = {
        key: flows[key] for key in ("start", "crossed", "converged", "residual", "balance_error")
    }
    values["outside_span"] = kkt_residual(
        problem.row_space, flows["theta"], flows["balancedness"], flows["log_init"]
    )
    data = {key: (("lam", "data_seed"), value) for key, value in values.items()}
    three_point = {
        "three_point": (("interpolator", "lam", "data_seed"), _three_point(problem, flows))
    }
    coords = {
        "lam": list(config.lams),
        "data_seed": range(config.data_seeds),
        "interpolator": ["theta*", "least l1", "least l2"],
    }
    return xr.Dataset(data | three_point, coords)


def _run(
    problem: Problem, lam: float, alpha: float, wait: float, rtol: float, tol: float
) -> dict[str, Any]:
    """One flow: its part after the last sign change, and how well that part is a mirror flow."""
    options = FlowOptions(rtol=rtol)
    w = uniform_start(problem, alpha)
    whole = momentum_flow(problem, w, w, lam, math.inf, tol=tol, options=options)
    start, path = 0.0, whole
    if whole.sign_changes.any():
        start, path = _after_crossings(problem, whole, wait, tol, options)
    i_plus, i_minus = quadrature_path_integrals(problem, path)
    # a path that does not start at rest has the boundary term of its start besides
    s_plus = i_plus[-1] - lam * path.dw_plus[0] / path.w_plus[0]
    s_minus = i_minus[-1] - lam * path.dw_minus[0] / path.w_minus[0]
    balancedness = asymptotic_balancedness(path.balancedness[0], s_plus, s_minus)
    residual = mirror_flow_residual(path, i_plus, i_minus).abs().max() / path.G.abs().max()
    return {
        "start": start,
        "crossed": bool(whole.sign_changes.any()),
        "converged": path.converged,
        "residual": float(residual),
        "balance_error": float((balancedness / path.balancedness[-1] - 1).abs().max()),
        "theta": path.theta[-1],
        "balancedness": balancedness,
        "log_init": log_init(path.w_plus[0], path.w_minus[0], s_plus, s_minus),
    }


def _after_crossings(
    problem: Problem, path: FlowPath, wait: float, tol: float, options: FlowOptions
) -> tuple[float, FlowPath]:
    """The time T, and the flow that goes on from there."""
    signs = torch.cat([path.w_plus, path.w_minus], -1).signbit()
    last = int((signs[1:] != signs[:-1]).any(-1).nonzero()[-1]) + 1
    k = int(torch.searchsorted(path.t, path.t[last] + wait * path.lam))
    later = momentum_flow(
        problem,
        path.w_plus[k],
        path.w_minus[k],
        float(path.lam),
        math.inf,
        dw_plus_0=path.dw_plus[k],
        dw_minus_0=path.dw_minus[k],
        tol=tol,
        options=options,
    )
    return float(path.t[k]), later


def _three_point(problem: Problem, flows: dict[str, Tensor]) -> Tensor:
    """|D(a, b) + D(b, c) - D(a, c)| / D(a, c) for interpolators a, [interpolator, lambda, data].

    b is the limit and c = theta~_0 (of time T), with the divergence of psi_{Delta_inf}.
    """
    delta, limit = flows["balancedness"], flows["theta"]
    start = inverse_mirror_map(flows["log_init"] / 2, delta)
    star = problem.theta_star
    assert star is not None
    others = (star, basis_pursuit(problem.X, problem.y), least_norm(problem.X, problem.y))
    violations = []
    for theta in others:
        whole = bregman_divergence(theta.expand_as(limit), start, delta)
        parts = bregman_divergence(theta.expand_as(limit), limit, delta)
        violations.append((parts + bregman_divergence(limit, start, delta) - whole).abs() / whole)
    return torch.stack(violations)


def _example(setting: Any, config: DictConfig) -> xr.Dataset:
    """Delta_t and b_t along one path, and which coordinates are on the support."""
    problem = sparse_problems(setting.n, setting.d, setting.s, 1)[0]
    w = uniform_start(problem, setting.alpha)
    options = FlowOptions(rtol=config.rtol)
    path = momentum_flow(
        problem, w, w, config.example_lam, math.inf, tol=config.tol, options=options
    )
    assert problem.theta_star is not None
    return xr.Dataset(
        {
            "example_balancedness": (("t", "coordinate"), path.balancedness.numpy()),
            "example_linear_term": (("t", "coordinate"), linear_term(path).numpy()),
            "example_theta": (("t", "coordinate"), path.theta.numpy()),
            "example_support": ("coordinate", (problem.theta_star != 0).numpy()),
        },
        {"t": path.t.numpy()},
    )


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    over_interpolators = results["three_point"].max("interpolator", skipna=False)
    violations = results[list(EQUALITIES)].assign(three_point=over_interpolators)
    worst = violations.to_dataarray("equality").max(
        ("equality", "setting", "data_seed"), skipna=False
    )
    good = [lam for lam in config.lams if float(worst.sel(lam=lam)) <= config.exact]
    crossed = results["crossed"].astype(bool)
    measured = {
        "largest_residual_of_the_mirror_flow": _by_lam(results["residual"]),
        "largest_component_outside_the_span": _by_lam(results["outside_span"]),
        "largest_violation_of_the_three_point_identity": _by_lam(results["three_point"]),
        "largest_error_of_balancedness": _by_lam(results["balance_error"]),
        "runs_with_sign_changes": int(crossed.sum()),
        "runs": int(crossed.size),
        "start_of_the_mirror_flow_where_signs_changed": {
            f"lambda={lam:g}": spread(results["start"].where(crossed).sel(lam=lam))
            for lam in config.lams
        },
        "runs_not_converged": int((~results["converged"].astype(bool)).sum()),
    }
    largest = [float(results[key].max(skipna=False)) for key in EQUALITIES]
    return Outcome(
        verdict=verdict_of(len(good), len(config.lams)),
        finding=(
            f"At lambda = {listed(good)} all three equalities hold to {config.exact:.0e} after the "
            f"last sign change (largest relative violations: flow {largest[0]:.0e}, span "
            f"{largest[1]:.0e}, three-point identity {largest[2]:.0e}); w_+- changed sign in "
            f"{int(crossed.sum())} of {crossed.size} runs."
        ),
        sizes=of_settings(config),
        measured=measured,
        results=results,
        figure=draw(config, results),
        caption=CAPTION,
        notes=NOTES,
    )


def _by_lam(values: xr.DataArray) -> dict[str, float]:
    return {f"lambda={lam:g}": float(values.sel(lam=lam).max()) for lam in values["lam"].to_numpy()}


if __name__ == "__main__":
    main("mirror_flow", SECTION, CLAIM, study)
