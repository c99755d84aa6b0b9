"""Depth under momentum: theta = u^D - v^D, D from 2 to 4 and between.

(docs/theory.md#depth.)

    python -m experiments.depth

All layers start at u_0 = v_0 with the same u_0^D, so that theta has one initial scale whatever D
is; D = 2 is the network theta = u^2 - v^2, whose w_+- are 2u and 2v and whose gamma is twice that
of theta = u v. The limit is the minimiser of the potential H_A at the A and c of a run that has
reached the tolerance, and gradient flow's (lambda = 0) that at A and c of the start; the potential
is exact at every step of a run along which u and v stay
positive. Runs in which a layer has crossed 0 are outside the theorem (D > 2): they are counted, and
judged by nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import xarray as xr
from omegaconf import DictConfig
from torch import Tensor

from dln_momentum import Engine, EngineOptions, Problem, Status
from dln_momentum.method import Method
from dln_momentum.problem import stack
from dln_momentum.rates import gamma_beta
from dln_momentum.theory.depth import (
    balancedness,
    is_power_potential,
    potential_scale,
    power_kkt_residual,
)
from dln_momentum.theory.discrete_bias import asymptotic_balancedness, log_init
from dln_momentum.theory.interpolators import basis_pursuit
from dln_momentum.theory.power_minimizer import power_minimizer
from dln_momentum.theory.power_trajectory import layer_scale
from experiments.claim import Outcome, main
from experiments.common import (
    along,
    described,
    listed,
    sparse_problems,
    spreads,
    verdict_of,
    workers,
)
from experiments.depth_figure import draw
from experiments.figures import data_sets, problem_size
from experiments.limits import curvature, minimizer, recovery_error

SECTION = ""
CLAIM = (
    "At any depth D >= 2, theta = u^D - v^D, the limit minimises a potential that the path sums "
    "give; lambda alone labels it, as for D = 2, momentum makes it sparser, and so does depth at "
    "equal initial scale of theta."
)
CAPTION = (
    "(a) l1 norm above the least one over lambda, by D. (b) The same over D, without momentum and "
    "at the largest lambda at which half of the runs are known. (c) How far halving eps moves the "
    "limit, over its distance to gradient flow's: below the line lambda labels it. (d) Share of "
    "runs in which a layer crosses 0 (solid), and on which the limit is sparser than gradient "
    "flow's (dashed). (e) The larger of KKT residual and relative error of A, every run. (f) "
    "Recovery error. Medians over data sets; bands and bars are quartiles."
)
LONG_NAMES = {
    "excess": "||theta||_1 / min ||theta||_1 - 1 of the limit; nan where it is not known",
    "error": "||theta - theta*||_2",
    "identity": "larger of the KKT residual and the relative error of A; nan outside the theorem",
    "crossed": "1 if a layer crossed 0 (or the run diverged)",
    "gain": "mean ln(Delta_0/Delta_inf), Delta = 4 A^(-2/(D-2))",
    "moved": "||theta(eps) - theta(eps/2)|| over ||theta(eps/2) - theta of gradient flow||",
}


def study(config: DictConfig) -> Outcome:
    """Every depth, lambda, eps and data set."""
    problems = sparse_problems(config.n, config.d, config.s, config.data_seeds)
    parts = [_at_depth(problems, depth, config) for depth in config.depths]
    results = along("depth", config.depths, parts)
    return _judge(config, described(results, **LONG_NAMES))


def _at_depth(problems: Sequence[Problem], depth: float, config: DictConfig) -> xr.Dataset:
    """Dims (eps, lam, data_seed); the first lambda is 0."""
    copies, lams = len(problems), list(config.lams)
    each = stack(list(problems))
    flow = {key: value[None] for key, value in flow_limit(each, depth, config).items()}
    found: list[dict[str, Tensor]] = []
    for halving in range(config.halvings + 1):
        rates = [_rates(problems, lam, depth, 0.5**halving, config) for lam in lams]
        runs = _run(problems, rates, depth, config.max_steps * 2**halving, config)
        shaped = {key: value.unflatten(0, (len(lams), copies)) for key, value in runs.items()}
        found.append({key: torch.cat([flow[key], shaped[key]]) for key in flow})
    values = {key: torch.stack([one[key] for one in found]) for key in flow}
    theta = values.pop("theta")
    norm = torch.linalg.vector_norm
    moved = norm(theta[:-1] - theta[1:], dim=-1) / norm(theta[1:] - theta[1:, :1], dim=-1)
    values["excess"] = theta.abs().sum(-1) / basis_pursuit(each.X, each.y).abs().sum(-1) - 1
    values["error"] = recovery_error(theta, each)
    dims = ("eps", "lam", "data_seed")
    data = {key: (dims, value.numpy()) for key, value in values.items()}
    return xr.Dataset(
        data | {"moved": (("halving", *dims[1:]), moved.numpy())},
        coords={
            "eps": ["eps", *(f"eps/{2**k}" for k in range(1, len(found)))],
            "lam": [0.0, *lams],
            "data_seed": range(copies),
        },
    )


def flow_limit(problem: Problem, depth: float, config: DictConfig) -> dict[str, Tensor]:
    """Gradient flow's limit, the minimiser at the A of the start and c = 0; no run is needed."""
    start = torch.full((problem.d,), config.theta_scale ** (1 / depth), dtype=torch.float64)
    if depth == 2:
        theta = minimizer(problem, 4 * start**2, torch.zeros_like(start))
    else:
        rows = problem.row_space
        scale = layer_scale(torch.stack([start, start]), depth)
        found = power_minimizer(rows, rows.target(problem.y), scale, depth=depth, tol=1e-10)
        theta = torch.where(found.converged[:, None], found.theta, torch.nan)
    nothing = torch.zeros(len(theta), dtype=torch.float64)
    return {
        "theta": theta,
        "identity": torch.full_like(nothing, torch.nan),
        "crossed": nothing,
        "gain": nothing,
    }


def _rates(
    problems: Sequence[Problem], lam: float, depth: float, share: float, config: DictConfig
) -> tuple[float, float]:
    """(gamma, beta) of the network u^D - v^D, at a share of the config's eps."""
    # the curvature of the loss in u is D^2 u^(2D-2) times that in theta
    largest = max(
        float(depth**2 * top * size ** (2 - 2 / depth)) for top, size in map(curvature, problems)
    )
    eps = share * config.resolution * min(lam, 2 * math.sqrt(lam / largest))
    return gamma_beta(lam=lam, eps=eps)


def _run(
    problems: Sequence[Problem],
    rates: Sequence[tuple[float, float]],
    depth: float,
    steps: int,
    config: DictConfig,
) -> dict[str, Tensor]:
    """Runs of one depth, rates slowest, problems fastest: [R, ...]."""
    copies, each = len(problems), stack(list(problems) * len(rates))
    gamma, beta = (
        torch.tensor(rate, dtype=torch.float64).repeat_interleave(copies)
        for rate in zip(*rates, strict=True)
    )
    start = torch.full((len(gamma), each.d), config.theta_scale ** (1 / depth), dtype=torch.float64)
    plain = depth == 2
    factor = 2 if plain else 1
    engine = Engine(
        each, factor * gamma, beta, factor * start, factor * start,
        options=EngineOptions(tol=config.tol, num_workers=workers(config)),
        method=None if plain else Method(depth=depth),
    )  # fmt: skip
    end = engine.run(steps, block_size=500)
    crossed = (end.sign_changes > 0) | (end.status == int(Status.DIVERGED))
    converged = end.status == int(Status.CONVERGED)
    solve = _psi if plain else _power
    return solve(end, each, converged, crossed, depth)


def _psi(
    end: Any, problem: Problem, converged: Tensor, crossed: Tensor, depth: float
) -> dict[str, Tensor]:
    """D = 2: the hyperbolic entropy; sign changes are allowed."""
    sums = end.path_sums
    delta = asymptotic_balancedness(end.balancedness_start, sums[0], sums[1])
    c = log_init(end.w_start[0], end.w_start[1], sums[0], sums[1])
    known = (converged & ((delta > 0) & delta.isfinite()).all(-1))[:, None]
    delta = torch.where(known, delta, 1.0)
    theta = minimizer(problem, delta, torch.where(known, c, 0.0))
    identity = (end.predicted_balancedness / end.balancedness - 1).abs().amax(-1)
    return {
        "theta": torch.where(known, theta, torch.nan),
        "identity": torch.maximum(identity, end.certificate(problem)),
        "crossed": crossed.double(),
        "gain": torch.where(
            known[:, 0], (end.balancedness_start / delta).log().mean(-1), torch.nan
        ),
    }


def _power(
    end: Any, problem: Problem, converged: Tensor, crossed: Tensor, depth: float
) -> dict[str, Tensor]:
    """D > 2: H_A, where the layers have stayed positive."""
    inside = (~crossed & (end.w > 0).all(0).all(-1) & end.w.isfinite().all(0).all(-1))[:, None]
    w = torch.where(inside, end.w, 1.0)
    sums = torch.where(inside, end.exponents, 0.0)
    at = (end.w_start[0], end.w_start[1])
    scale, c = potential_scale(at, (sums[0], sums[1]), depth)
    inside = inside & is_power_potential(scale, c)[:, None]
    theta = torch.where(inside, w[0] ** depth - w[1] ** depth, 0.0)
    scale, c = torch.where(inside, scale, 1.0), torch.where(inside, c, 0.0)
    layers = torch.where(inside, layer_scale(w, depth), 1.0)
    identity = (scale / layers - 1).abs().amax(-1)
    identity = torch.maximum(
        identity, power_kkt_residual(problem.row_space, theta, scale, c, depth)
    )
    # of sums with p_k = 1/(1-beta), of which those of the horizon miss a boundary term
    missing = end.beta / (1 - end.beta) * torch.where(inside, end.increment, 0.0)
    limit = sums - missing * w ** (1 - depth)
    scale, c = potential_scale(at, (limit[0], limit[1]), depth)
    known = inside & converged[:, None] & is_power_potential(scale, c)[:, None]
    scale, c = torch.where(known, scale, 1.0), torch.where(known, c, 0.0)
    rows = problem.row_space
    found = power_minimizer(rows, rows.target(problem.y), scale, c, depth=depth, tol=1e-10)
    known = known & found.converged[:, None]
    gain = (
        (balancedness(layer_scale(end.w_start, depth), depth) / balancedness(scale, depth))
        .log()
        .mean(-1)
    )
    return {
        "theta": torch.where(known, found.theta, torch.nan),
        "identity": torch.where(inside[:, 0], identity, torch.nan),
        "crossed": crossed.double(),
        "gain": torch.where(known[:, 0], gain, torch.nan),
    }


def cells_of(results: xr.Dataset, config: DictConfig) -> xr.Dataset:
    """What holds in each cell (depth, lambda > 0), at the smallest eps.

    Cells in which fewer than half of the limits are known are judged by nothing: ``known``.
    """
    finest = results.isel(eps=-1, drop=True)
    momentum = finest.sel(lam=finest["lam"] > 0)
    flow = finest["excess"].sel(lam=0, drop=True)
    moved = results["moved"].isel(halving=-1, drop=True).sel(lam=momentum["lam"])
    return xr.Dataset(
        {
            "known": momentum["excess"].notnull().mean("data_seed") >= 0.5,
            "label": moved.median("data_seed") <= config.label,
            "sparser": (momentum["excess"] < flow).mean("data_seed") >= config.share,
        }
    )


def deeper_is_sparser(results: xr.Dataset, share: float) -> list[bool]:
    """Whether gradient flow's limit at each depth is sparser than at the depth before."""
    excess = results["excess"].isel(eps=-1, drop=True).sel(lam=0)
    pairs = zip(excess["depth"].values, excess["depth"].values[1:], strict=False)
    return [
        float((excess.sel(depth=deep) < excess.sel(depth=shallow)).mean()) >= share
        for shallow, deep in pairs
    ]


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    cells = cells_of(results, config)
    deeper = deeper_is_sparser(results, config.share)
    largest = results["identity"].max()
    known = cells["known"]
    passed = [
        bool(largest <= config.exact),
        bool((cells["label"] | ~known).all()) and bool(known.any()),
        bool((cells["sparser"] & known).sum() > 0.5 * known.sum()),
        all(deeper),
    ]
    finest = results.isel(eps=-1, drop=True)
    shape = ("depth", "lam", "data_seed")
    measured = {
        "parts": dict(
            zip(
                ("exact", "lambda labels", "momentum is sparser in most cells", "depth is sparser"),
                passed,
                strict=True,
            )
        ),
        "largest_error_of_the_identity_by_depth": spreads(
            results["identity"].max(("eps", "lam", "data_seed"))
        ),
        "share_of_limits_known": spreads(finest["excess"].notnull().mean("data_seed")),
        "share_of_runs_in_which_a_layer_crosses_0": spreads(finest["crossed"].mean("data_seed")),
        "moved_by_halving_eps_over_distance_to_gradient_flow": spreads(
            results["moved"].isel(halving=-1, drop=True).transpose(*shape)
        ),
        "l1_excess": spreads(finest["excess"].transpose(*shape)),
        "recovery_error": spreads(finest["error"].transpose(*shape)),
        "mean_ln_delta_0_over_delta_inf": spreads(finest["gain"].transpose(*shape)),
        "share_of_sets_sparser_than_gradient_flow": spreads(
            (finest["excess"] < finest["excess"].sel(lam=0, drop=True)).mean("data_seed")
        ),
    }
    return Outcome(
        verdict=verdict_of(sum(passed) if passed[0] else 0, len(passed)),
        finding=_finding(config, results, cells, deeper),
        sizes=data_sets(config.data_seeds, problem_size(config.n, config.d, config.s)),
        measured=measured,
        results=results,
        figure=draw(results, config),
        caption=CAPTION,
        notes=_notes(config),
    )


def _notes(config: DictConfig) -> list[str]:
    return [
        f"u_0^D = v_0^D = {config.theta_scale:g} at every depth. lambda is that of the steps of u "
        "and v; the same lambda is another share of the network's own times at another depth.",
        f"Sparser: a smaller l1 norm on at least {config.share:.0%} of the data sets; a limit that "
        "is not known is not sparser. Cells are depths and lambdas above 0 in which half of the "
        "limits are known.",
        "The data are centred, where momentum does not make the limit of depth 2 sparser either "
        "(see sparser_than_gradient_flow); where it does, signs change, and at D > 2 that is "
        "outside the theorem.",
        "At D > 2 a layer that crosses 0 leaves the theorem (for a D that is no integer the "
        "network itself ends there). Of the limits at large lambda, those of runs that stayed "
        "inside are shown, which is a choice among the data sets.",
    ]


def _finding(config: DictConfig, results: xr.Dataset, cells: xr.Dataset, deeper: list[bool]) -> str:
    known = cells["known"]
    label, sparser = (int((cells[key] & known).sum()) for key in ("label", "sparser"))
    finest = results.isel(eps=-1, drop=True)
    excess = finest["excess"].sel(lam=0).median("data_seed")
    outside = finest["crossed"].sel(depth=finest["depth"] > 2, lam=finest["lam"] > 0)
    free = [
        float(lam)
        for lam in outside["lam"].values
        if not bool(outside.sel(lam=lam).astype(bool).any())
    ]
    return (
        f"A and certificate hold to {float(results['identity'].max()):.0e} where layers stay "
        f"positive (always up to lambda = {max(free, default=0.0):g}); halving eps moves the limit "
        f"by at most {config.label:.0%} of its distance to gradient flow's in {label} of "
        f"{int(known.sum())} cells; momentum is sparser in {sparser}; depth is in {sum(deeper)} of "
        f"{len(deeper)} steps (l1 excess {listed([f'{x:.2g}' for x in excess.values])} at D = "
        f"{listed(list(config.depths))})."
    )


if __name__ == "__main__":
    main("depth", SECTION, CLAIM, study)
