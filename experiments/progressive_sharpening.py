"""Does sharpness rise to the edge of stability with momentum, and what happens there?

(docs/theory.md#sharpness.)

    python -m experiments.progressive_sharpening

The sharpness is the largest eigenvalue of the Hessian of F in (u, v). Full-batch MGD(gamma, beta)
is linearly stable at a minimum exactly while it is below 2 (1+beta)/gamma. For each alpha and data
set the limit of gradient flow, the minimiser of psi_{Delta_0}, has a sharpness S_GF; the step sizes
are those at which 2 (1+beta)/gamma is S_GF over a given number f, so that a run that follows
gradient flow crosses the edge if f > 1. Each run is judged by how it ended: converged, diverged, or
neither.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from omegaconf import DictConfig
from torch import Tensor

from dln_momentum import Problem, Status
from dln_momentum.problem import stack
from dln_momentum.theory.curvature import sharpness, sharpness_threshold
from dln_momentum.theory.minimizers import bregman_minimizer
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
)
from experiments.figures import data_sets, problem_size
from experiments.progressive_sharpening_figure import draw

SECTION = ""
CLAIM = (
    "Along full-batch training with momentum the sharpness rises until it reaches 2(1+beta)/gamma, "
    "and stays there (Cohen et al. 2021): runs that would cross that edge stabilise themselves."
)
CAPTION = (
    "(a) Sharpness over 2(1+beta)/gamma along the runs of one data set at f = {shown:g}, which "
    "gradient flow's limit would leave unstable. (b) Sharpness of gradient flow's limit over that "
    "of the start. (c) Sharpness of converged runs over 2(1+beta)/gamma, over f; dotted: at "
    "gradient flow's limit. (d) Share of data sets that diverge, a line for each beta; (e) that "
    "neither converge nor diverge. (f) Share of the records after the first crossing within "
    "{edge:.0%} of the edge. (c) to (f) at alpha = {alpha:g}. Medians and quartiles over data sets."
)
LONG_NAMES = {
    "sharpness_start": "largest eigenvalue of the Hessian of F at the start",
    "sharpness_flow": "the same at gradient flow's limit",
    "end": "the same at the end of a converged run, over 2(1+beta)/gamma; nan if not converged",
    "largest": "largest along the records of a run that did not diverge, over 2(1+beta)/gamma",
    "at_the_edge": "share of the records from the first above 1 on that are near 1",
    "diverged": "1 if the loss grew without bound",
    "neither": "1 if the run neither converged nor diverged",
}
PARTS = ("rises", "bounded", "stays", "no_early_divergence")


def study(config: DictConfig) -> Outcome:
    """Every alpha, beta and f on all data sets."""
    problems = sparse_problems(config.n, config.d, config.s, config.data_seeds)
    parts = [_at_scale(problems, alpha, config) for alpha in config.alphas]
    results = along("alpha", config.alphas, parts)
    return _judge(config, described(results, **LONG_NAMES))


def _flow_limit(problem: Problem, alpha: float) -> Tensor:
    """(w_+, w_-) of gradient flow's limit from u_0 = sqrt(2) alpha, v_0 = 0, [2, R, d].

    theta minimises psi_{Delta_0}, and |w_+- / w_{+-,0}| = exp(+- arcsinh(2 theta/Delta_0)/2).
    """
    delta = torch.full((problem.d,), 2 * alpha**2, dtype=torch.float64)
    found = bregman_minimizer(problem.row_space, problem.row_space.target(problem.y), delta)
    half = torch.asinh(2 * found.theta / delta) / 2
    return delta.sqrt() * torch.stack([half.exp(), (-half).exp()])


def _at_scale(problems: list[Problem], alpha: float, config: DictConfig) -> xr.Dataset:
    problem = stack(problems)
    start = torch.full((len(problems), problem.d), 2**0.5 * alpha, dtype=torch.float64)
    at_start = sharpness(problem, torch.stack([start, start]))
    at_flow = sharpness(problem, _flow_limit(problem, alpha))
    grid = [(beta, f) for beta in config.betas for f in config.ratios]
    edges = torch.stack([at_flow / f for _, f in grid])
    beta = torch.tensor([beta for beta, _ in grid], dtype=torch.float64)[:, None].expand_as(edges)
    gamma = 2 * (1 + beta) / edges
    found = _follow(problems * len(grid), gamma.reshape(-1), beta.reshape(-1), alpha, config)
    dims = ("beta", "ratio", "data_seed")
    shape = (len(config.betas), len(config.ratios), len(problems))
    values = {key: (dims, value.reshape(shape)) for key, value in found.items() if value.ndim == 1}
    path = found["path"].reshape(-1, *shape)[:, :, list(config.ratios).index(config.shown_ratio), 0]
    return xr.Dataset(
        values
        | {
            "sharpness_start": ("data_seed", at_start.numpy()),
            "sharpness_flow": ("data_seed", at_flow.numpy()),
            "path": (("record", "beta"), path),
            "record_step": ("record", _steps(config)),
        },
        coords={"beta": list(config.betas), "ratio": list(config.ratios)},
    )


def _steps(config: DictConfig) -> np.ndarray:
    return np.geomspace(1, config.max_steps, config.records).round().astype(int)


def _follow(
    problems: list[Problem], gamma: Tensor, beta: Tensor, alpha: float, config: DictConfig
) -> dict[str, np.ndarray]:
    """How each of R runs ended, and its sharpness over the edge at every record, [T, R]."""
    repeated = stack(problems)
    engine = engine_over(
        problems, gamma.numpy(), beta.numpy(), alpha,
        tol=config.tol, divergence_bound=config.diverged, num_workers=config.num_workers or 1,
    )  # fmt: skip
    path = []
    for record in snapshots(engine, _steps(config)):
        ratio = sharpness(repeated, record.w) / sharpness_threshold(gamma, beta)
        path.append(torch.where(record.status == int(Status.DIVERGED), torch.nan, ratio))
    engine.stop()
    status = engine.snapshot().status
    ratios = torch.stack(path).numpy()
    ended = status.numpy()
    diverged = ended == int(Status.DIVERGED)
    converged = ended == int(Status.CONVERGED)
    return {
        "end": np.where(converged, ratios[-1], np.nan),
        "largest": np.where(diverged, np.nan, np.nanmax(np.nan_to_num(ratios), 0)),
        "at_the_edge": np.where(diverged, np.nan, time_at_the_edge(ratios, config.edge)),
        "diverged": diverged.astype(float),
        "neither": (~diverged & ~converged).astype(float),
        "path": ratios,
    }


def time_at_the_edge(ratios: np.ndarray, width: float) -> np.ndarray:
    """Share of the records, from the first above 1 on, that are within ``width`` of 1, [R].

    Args:
        ratios: sharpness over 2 (1+beta)/gamma, [T, R]; nan if none is above 1.
        width: of the edge, relative.

    >>> time_at_the_edge(np.array([[0.5, 0.5], [1.2, 0.6], [1.0, 0.7], [0.99, 0.8]]), 0.1)
    array([0.66666667,        nan])
    """
    crossed = np.cumsum(ratios > 1, axis=0) > 0
    near = (np.abs(ratios - 1) <= width) & crossed
    count = crossed.sum(0)
    return np.where(count > 0, near.sum(0) / np.maximum(count, 1), np.nan)


def parts_of(results: xr.Dataset, config: DictConfig) -> xr.Dataset:
    """Which parts of the claim hold, for each alpha and beta.

    rises: gradient flow's limit is sharper than the start, by a factor, on most data sets. bounded:
    no converged run is sharper than the edge. stays: most runs with f > 1 converge near the edge or
    stay bounded. no_early_divergence: runs with f < 1 hardly ever diverge.
    """
    above = results.sel(ratio=results["ratio"] > 1)
    below = results.sel(ratio=results["ratio"] < 1)
    rise = results["sharpness_flow"] / results["sharpness_start"]
    rises = (rise >= config.rise).mean("data_seed")
    near = (above["end"] >= 1 - config.edge) | (above["neither"] > 0)
    both = ("ratio", "data_seed")
    return xr.Dataset(
        {
            "rises": (rises >= config.share).expand_dims(beta=results["beta"]),
            "bounded": results["end"].fillna(0.0).max(both) <= 1 + config.edge_tol,
            "stays": near.mean(both) >= config.share,
            "no_early_divergence": below["diverged"].mean(both) <= 1 - config.share,
        }
    )


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    parts = parts_of(results, config)
    passed = int(sum(int(part.sum()) for part in parts.data_vars.values()))
    total = int(sum(part.size for part in parts.data_vars.values()))
    above = results.sel(ratio=results["ratio"] > 1)
    order = ("alpha", "beta", "ratio")
    rise = results["sharpness_flow"] / results["sharpness_start"]
    measured = {
        "what_holds": {
            str(key): spreads(part.transpose("alpha", "beta").astype(float))
            for key, part in parts.data_vars.items()
        },
        "largest_sharpness_of_a_converged_run_over_the_edge": float(results["end"].max()),
        "largest_of_these_over_2_over_gamma": float((results["end"] * (1 + results["beta"])).max()),
        "sharpness_of_flow_limit_over_start": spreads(rise),
        "end_over_the_edge": spreads(results["end"].transpose(*order, "data_seed")),
        "share_diverged": spreads(results["diverged"].mean("data_seed").transpose(*order)),
        "share_neither": spreads(results["neither"].mean("data_seed").transpose(*order)),
        "largest_along_the_run_over_the_edge": spreads(
            results["largest"].transpose(*order, "data_seed")
        ),
        "share_of_records_at_the_edge": spreads(
            above["at_the_edge"].transpose(*order, "data_seed")
        ),
    }
    size = problem_size(config.n, config.d, config.s)
    return Outcome(
        verdict=verdict_of(passed, total),
        finding=_finding(config, results, parts),
        sizes=data_sets(config.data_seeds, size),
        measured=measured,
        results=results,
        figure=draw(results, config),
        caption=CAPTION.format(
            shown=config.shown_ratio, edge=config.edge, alpha=config.shown_alpha
        ),
        notes=_notes(config),
    )


def _notes(config: DictConfig) -> list[str]:
    return [
        "f is the sharpness S of gradient flow's limit over 2(1+beta)/gamma. Then S lambda_KS = "
        "f (1+beta)^2/(1-beta)^2: near the edge a run of large beta has a large lambda. It leaves "
        "gradient flow's path early, swings through places sharper than either limit, and may "
        "diverge there, far from linear theory.",
        f"Diverged: a loss above {config.diverged:g} times the first. Neither: bounded, and above "
        f"{config.tol:g} after {config.max_steps} steps.",
        "A converged run cannot be sharper than the edge, except on a set of starts of measure 0: "
        "the part of the claim that tests the threshold, and tells it from 2/gamma.",
    ]


def _finding(config: DictConfig, results: xr.Dataset, parts: xr.Dataset) -> str:
    above = results.sel(ratio=results["ratio"] > 1)
    plain = above.sel(beta=config.betas[0])
    last = above.sel(beta=config.betas[-1])
    heavy = results.sel(beta=config.betas[-1], ratio=results["ratio"] < 1)
    rise = (results["sharpness_flow"] / results["sharpness_start"]).median("data_seed")
    stays = [f"{beta:g}" for beta in config.betas if bool(parts["stays"].sel(beta=beta).any())]
    return (
        f"Gradient flow's limit is {span(rise.values, 2)} times as sharp as the start; converged "
        f"runs end at up to {float(results['end'].max()):.3f} of 2(1+beta)/gamma; runs that would "
        f"cross this edge settle at it at beta = {', '.join(stays) or 'none'} "
        f"(diverging: {float(plain['diverged'].mean()):.0%} at beta = {config.betas[0]:g}, "
        f"{float(last['diverged'].mean()):.0%} at {config.betas[-1]:g}, where "
        f"{float(heavy['diverged'].mean()):.0%} do even of those that would not)."
    )


if __name__ == "__main__":
    main("progressive_sharpening", SECTION, CLAIM, study)
