"""Where momentum makes limits sparser than gradient flow's, and by which mechanism.

(docs/theory.md#sparsity.)

    python -m experiments.sparser_region

`experiments.sparser_than_gradient_flow` shows that it happens; this is a map of where: over designs
(rows of mean mu, from 0 to far from it, correlated rows, targets of one sign), alpha and lambda
from below the first sign change to far above it. A limit is known as there: the minimiser at
Delta_inf and theta~_0 of a run of MGD that follows MGF(lambda).

The mechanism that is tested: psi_{Delta_inf} is to leading order an l1 norm with weights
ln(1/Delta_inf), so that gains ln(Delta_0/Delta_inf) that are larger off the support of theta* than
on it favour theta*. To see what each part does, the minimiser is taken without theta~_0, and of
these with the size of Delta_inf alone (its geometric mean in every coordinate) and with its shape
alone (scaled to the geometric mean Delta_0).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from omegaconf import DictConfig, OmegaConf
from scipy.stats import rankdata
from torch import Tensor

from dln_momentum import Problem, Snapshot
from dln_momentum.problem import stack
from dln_momentum.theory.interpolators import basis_pursuit
from experiments import annealed_lambda
from experiments.claim import Outcome, main
from experiments.common import (
    along,
    described,
    span,
    sparse_problems,
    spread,
    spreads,
    verdict_of,
    workers,
)
from experiments.figures import data_sets, problem_size
from experiments.limits import follow_flows, limits, minimizer
from experiments.sparser_region_figure import draw

SECTION = ""
CLAIM = (
    "Momentum makes limits sparser than gradient flow's in a region of designs, alpha and lambda "
    "that lies where signs of w_+- change, and does so by gains ln(Delta_0/Delta_inf) that are "
    "larger off the support than on it: the more they are, the sparser."
)
CAPTION = (
    "First row: share of the data sets on which the limit of MGF(lambda) has a smaller l1 norm "
    "than gradient flow's, a panel for each design, over lambda and alpha; crosses where it is at "
    "least {share:.0%}. Second row: mean gain ln(Delta_0/Delta_inf) off the support less that on "
    "it, over |ln Delta_0|; to the right of the line half of the runs have sign changes. Grey: "
    "fewer than half of the runs converged. Medians over data sets."
)
LONG_NAMES = {
    "excess": "(||theta||_1 / min ||theta||_1 - 1) over gradient flow's; nan where not converged",
    "excess_without_init": "the same, of the minimiser without theta~_0",
    "excess_of_shape": "the same, with the shape of Delta_inf alone",
    "excess_of_size": "the same, with its size alone",
    "gain_on": "mean of ln(Delta_0/Delta_inf) over the support of theta*",
    "gain_off": "mean of ln(Delta_0/Delta_inf) off the support of theta*",
    "signs_changed": "1 if some w_+- changed sign",
}


def study(config: DictConfig) -> Outcome:
    """Every design, alpha, lambda and data set."""
    parts, annealed = [], []
    for design in config.designs:
        keys: Any = OmegaConf.to_container(config.designs[design])
        problems = sparse_problems(config.n, config.d, config.s, config.data_seeds, **keys)
        parts.append(_map(problems, config))
        flow = flow_limits(problems, [config.annealed.alpha])[0]
        annealed.append(annealed_lambda.ends(problems, flow, config.annealed, workers(config)))
    results = along("design", config.designs, parts)
    ends = along("design", config.designs, annealed).rename(lam="annealed_lam")
    names = LONG_NAMES | annealed_lambda.LONG_NAMES
    return _judge(config, described(xr.merge([results, ends]), **names))


def _map(problems: list[Problem], config: DictConfig) -> xr.Dataset:
    """All alphas and lambdas on the data sets of one design."""
    shape = (len(config.alphas), len(config.lams), len(problems))
    alpha, lam = (
        grid.reshape(-1)
        for grid in torch.meshgrid(
            torch.tensor(config.alphas, dtype=torch.float64),
            torch.tensor(config.lams, dtype=torch.float64),
            indexing="ij",
        )
    )
    copies = len(problems)
    end = follow_flows(
        problems * len(lam),
        lam.repeat_interleave(copies),
        alpha.repeat_interleave(copies),
        resolution=config.resolution,
        max_steps=config.max_steps,
        tol=config.tol,
        num_workers=workers(config),
    )
    found = _measure(end, stack(problems * len(lam)), flow_limits(problems, config.alphas))
    dims = ("alpha", "lam", "data_seed")
    return xr.Dataset(
        {key: (dims, value.reshape(shape).numpy()) for key, value in found.items()},
        coords={
            "alpha": list(config.alphas),
            "lam": list(config.lams),
            "data_seed": range(copies),
        },
    )


def flow_limits(problems: list[Problem], alphas: list[float]) -> Tensor:
    """Gradient flow's limit for every alpha and problem, [alpha, data, d]."""
    problem = stack(problems)
    found = []
    for alpha in alphas:
        delta = torch.full((problem.d,), 2 * alpha**2, dtype=torch.float64)
        found.append(minimizer(problem, delta, torch.zeros_like(delta)))
    return torch.stack(found)


def _measure(end: Snapshot, problem: Problem, flow: Tensor) -> dict[str, Tensor]:
    """Excesses over gradient flow's and gains of R runs, [R] each."""
    theta = limits(end, problem)
    known = ~theta.isnan().any(-1)
    delta = torch.where(known[:, None], end.limit_balancedness, 1.0)
    gain = (end.balancedness_start / delta).log()
    nothing = torch.zeros_like(delta)
    size, shape = size_and_shape(delta, end.balancedness_start)
    assert problem.theta_star is not None
    support = problem.theta_star != 0
    copies = len(problem.X) // (flow.shape[0] * flow.shape[1])
    flow = flow[:, None].expand(-1, copies, -1, -1).reshape(theta.shape)
    least = _repeated_least(problem, flow.shape[0])
    norms = flow.abs().sum(-1) / least - 1

    def excess(other: Tensor) -> Tensor:
        return torch.where(known, (other.abs().sum(-1) / least - 1) / norms, torch.nan)

    values = {
        "excess": excess(theta),
        "excess_without_init": excess(minimizer(problem, delta, nothing)),
        "excess_of_shape": excess(minimizer(problem, shape, nothing)),
        "excess_of_size": excess(minimizer(problem, size, nothing)),
        "gain_on": (gain * support).sum(-1) / support.sum(-1),
        "gain_off": (gain * ~support).sum(-1) / (~support).sum(-1),
        "signs_changed": (end.sign_changes > 0).double(),
    }
    return {key: torch.where(known, value, torch.nan) for key, value in values.items()}


def _repeated_least(problem: Problem, runs: int) -> Tensor:
    """The least l1 norm of each run's problem; every problem is solved once."""
    solved: dict[bytes, Tensor] = {}
    found = []
    for X, y in zip(problem.X, problem.y, strict=True):
        key = y.numpy().tobytes()
        if key not in solved:
            solved[key] = basis_pursuit(X, y).abs().sum()
        found.append(solved[key])
    assert len(found) == runs
    return torch.stack(found)


def size_and_shape(delta: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """(the geometric mean of Delta in every coordinate, Delta scaled to the mean of the start).

    >>> size, shape = size_and_shape(torch.tensor([[1.0, 4.0]]), torch.tensor([[8.0, 8.0]]))
    >>> size.tolist(), shape.tolist()
    ([[2.0, 2.0]], [[4.0, 16.0]])
    """
    mean = delta.log().mean(-1, keepdim=True)
    first = start.log().mean(-1, keepdim=True)
    return mean.exp().expand_as(delta), (delta.log() - mean + first).exp()


def advantage(results: xr.Dataset) -> xr.DataArray:
    """Gain off the support less that on it, over |ln Delta_0|, of each run."""
    log = abs(np.log(2 * results["alpha"] ** 2))
    return (results["gain_off"] - results["gain_on"]) / log


def region(results: xr.Dataset, share: float, key: str = "excess") -> xr.DataArray:
    """Cells in which at least this share of the data sets has a sparser limit."""
    return (results[key] < 1).mean("data_seed") >= share


def agreement(results: xr.Dataset, config: DictConfig) -> dict[str, Any]:
    """How well gains, sign changes, shape and size tell which cells are sparser."""
    share = config.share
    enough = results["excess"].notnull().mean("data_seed") >= 0.5
    inside = region(results, share)
    guesses = {
        "gains larger off the support": advantage(results).median("data_seed") > 0,
        "sign changes": results["signs_changed"].mean("data_seed") >= 0.5,
        "Delta_inf without theta~_0 is sparser": region(results, share, "excess_without_init"),
        "shape of Delta_inf alone is sparser": region(results, share, "excess_of_shape"),
        "size of Delta_inf alone is sparser": region(results, share, "excess_of_size"),
    }
    return {name: _rates(guess, inside, enough) for name, guess in guesses.items()}


def _rates(guess: xr.DataArray, truth: xr.DataArray, counted: xr.DataArray) -> dict[str, float]:
    """Shares of the sparser cells that are guessed, and of the others that are not guessed."""
    hit = (guess & truth & counted).sum() / np.maximum((truth & counted).sum(), 1)
    spared = (~guess & ~truth & counted).sum() / np.maximum((~truth & counted).sum(), 1)
    return {"of sparser cells": float(hit), "of the others, spared": float(spared)}


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    inside = region(results, config.share)
    told = agreement(results, config)
    gains = told["gains larger off the support"]
    signs = told["sign changes"]
    ranks = _ranks(results)
    holds = [
        bool(inside.any()),
        signs["of sparser cells"] >= config.told,
        gains["of sparser cells"] >= config.told,
        max(ranks.values()) <= -config.rank,
    ]
    measured = {
        "cells": inside.size,
        "sparser_cells": int(inside.sum()),
        "sparser_cells_by_design": spreads(inside.sum(("alpha", "lam"))),
        "how_well_it_tells_sparser_cells": told,
        "rank_correlation_of_gains_and_l1_excess_over_runs": ranks,
        "smallest_lambda_of_a_sparser_cell": _first(inside),
        "smallest_lambda_with_sign_changes_in_half_the_runs": _first(
            results["signs_changed"].mean("data_seed") >= 0.5
        ),
        "least_median_excess": _least(results),
        "lambda_annealed_along_the_run": annealed_lambda.told(results, config.share),
        "share_of_runs_converged": float(results["excess"].notnull().mean()),
    }
    return Outcome(
        verdict=verdict_of(sum(holds) if holds[0] else 0, len(holds)),
        finding=_finding(config, results, inside, told),
        sizes=data_sets(config.data_seeds, problem_size(config.n, config.d, config.s)),
        measured=measured,
        results=results,
        figure=draw(results, config),
        caption=CAPTION.format(share=config.share),
        notes=[
            "Sparser in a cell: a smaller l1 norm than gradient flow's on at least "
            f"{config.share:.0%} of the data sets; runs that did not converge are not sparser.",
            "From lambda of about 100 on a limit depends on eps (see sparser_than_gradient_flow); "
            "shares of data sets hardly do.",
            f"Annealed lambda: alpha = {config.annealed.alpha:g}, all designs, lambda from "
            f"{span(config.annealed.lams)} to {config.annealed.lam_end:g}, at the eps that is "
            "stable at its end; a constant lambda is followed at the same eps, to the same loss.",
        ],
    )


def _first(holds: xr.DataArray) -> dict[str, Any]:
    """The smallest lambda at which something holds, by design and alpha; none is nan."""
    lam = holds["lam"].where(holds).min("lam")
    return spreads(lam)


def _least(results: xr.Dataset) -> dict[str, Any]:
    """By design: the least median l1 excess over gradient flow's, and where it is."""
    found = {}
    for design in results["design"].values:
        typical = results["excess"].sel(design=design).median("data_seed", skipna=True)
        if not bool(typical.notnull().any()):
            continue
        at = np.unravel_index(np.nanargmin(typical.values), typical.shape)
        alpha, lam = typical["alpha"].values[at[0]], typical["lam"].values[at[1]]
        cell = results["excess"].sel(design=design, alpha=alpha, lam=lam)
        found[str(design)] = {
            "alpha": float(alpha),
            "lambda": float(lam),
            "excess over GF's": spread(cell.values),
        }
    return found


def _ranks(results: xr.Dataset) -> dict[str, float]:
    """Spearman correlation of the gains' advantage with the l1 excess, by design, over all runs."""
    ahead = advantage(results)
    found = {}
    for design in results["design"].values:
        one = xr.Dataset({"x": ahead, "y": results["excess"]}).sel(design=design)
        x, y = (one[key].transpose("alpha", "lam", "data_seed").values.ravel() for key in "xy")
        finite = np.isfinite(x) & np.isfinite(y)
        # nan, and so not seen, where nothing converged
        few = finite.sum() < 2
        found[str(design)] = (
            np.nan if few else float(np.corrcoef(rankdata(x[finite]), rankdata(y[finite]))[0, 1])
        )
    return found


def _finding(
    config: DictConfig, results: xr.Dataset, inside: xr.DataArray, told: dict[str, Any]
) -> str:
    gains, signs, shape = (
        told[key]["of sparser cells"]
        for key in (
            "gains larger off the support",
            "sign changes",
            "shape of Delta_inf alone is sparser",
        )
    )
    annealed = annealed_lambda.told(results, config.share)
    # the fall that keeps most cells
    kept, falls = max(annealed.items(), key=lambda item: item[1]["sparser in them too"])
    spared = told["gains larger off the support"]["of the others, spared"]
    return (
        f"Sparser on {config.share:.0%} of data sets in {int(inside.sum())} of {inside.size} "
        f"cells: {signs:.0%} of these have sign changes in half of the runs, {gains:.0%} larger "
        f"gains off the support (as {1 - spared:.0%} of the others), {shape:.0%} are so by the "
        f"shape of Delta_inf alone; a lambda falling to {config.annealed.lam_end:g} {kept} is "
        f"sparser in {falls['sparser in them too']} of "
        f"{falls['sparser cells with constant lambda']} cells, "
        f"in {falls['median ratio of steps there']:.2g} times the steps."
    )


if __name__ == "__main__":
    main("sparser_region", SECTION, CLAIM, study)
