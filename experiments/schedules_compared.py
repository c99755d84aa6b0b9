"""Which schedule ends sparsest at an equal budget, and do Delta_inf and c explain it?

(docs/theory.md#changing-rates and docs/theory.md#sparsity.)

    python -m experiments.schedules_compared

From one pair (gamma, beta) every schedule takes the same number of steps on every data set.
Whatever the schedule, theta_K is the minimiser of D_{psi_Delta}(., theta~) over its own level set,
with Delta and c = arcsinh(2 theta~/Delta) from the path sums with that schedule's weights; so
nothing but Delta and c can explain how sparse it is. That is checked, and then each part is taken
away: c, and the shape of Delta (its geometric mean in every coordinate). What is left of the
differences between schedules, within a data set, says how much a part explains.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from dln_momentum import Problem, Snapshot
from dln_momentum.method import Method
from dln_momentum.problem import stack
from dln_momentum.rates import gamma_beta
from dln_momentum.schedules import make_schedule
from dln_momentum.theory.interpolators import basis_pursuit
from dln_momentum.theory.minimizers import bregman_minimizer
from experiments.claim import Outcome, main
from experiments.common import (
    along,
    described,
    engine_over,
    span,
    sparse_problems,
    spread,
    spreads,
    verdict_of,
    workers,
)
from experiments.figures import data_sets, problem_size
from experiments.limits import curvature, minimizer
from experiments.schedules_compared_figure import draw

SECTION = ""
CLAIM = (
    "At an equal budget schedules end in different places, and Delta_inf and c alone explain "
    "which: given them the end is a minimiser; Delta_inf without c explains most of how sparse it "
    "is, and one schedule ends sparsest in every setting."
)
CAPTION = (
    "First row: l1 norm above the least of all interpolators, over that of the constant schedule, "
    "a column for each design and lambda at the start. Second row: that excess by the minimiser "
    "without c (filled) and with the geometric mean of Delta in every coordinate (hollow) against "
    "the end's own, a mark for each data set and schedule that ended at an interpolator. Medians "
    "and quartiles over data sets."
)
LONG_NAMES = {
    "excess": "||theta_inf||_1 / min ||theta||_1 - 1; nan where the loss is above usable",
    "excess_without_c": "the same of the minimiser at Delta and c = 0",
    "excess_by_size": "the same at the geometric mean of Delta and c = 0",
    "unexplained": "distance of theta_K to the minimiser at Delta and c, relative",
    "gain": "mean of ln(Delta_0/Delta_K)",
    "loss": "training loss at the end",
}


def study(config: DictConfig) -> Outcome:
    """Every design, lambda at the start and schedule on all data sets."""
    parts = []
    for design in config.designs:
        keys: Any = OmegaConf.to_container(config.designs[design])
        problems = sparse_problems(config.n, config.d, config.s, config.data_seeds, **keys)
        rows = [_of_lambda(problems, lam, config) for lam in config.lams]
        parts.append(along("lam", config.lams, rows))
    results = along("design", config.designs, parts)
    results = results.assign_coords(data_seed=range(config.data_seeds))
    return _judge(config, described(results, **LONG_NAMES))


def _of_lambda(problems: list[Problem], lam: float, config: DictConfig) -> xr.Dataset:
    """All schedules from one lambda, at a share of the largest stable step of every problem."""
    sizes = torch.stack([curvature(problem) for problem in problems])
    largest = sizes[:, 0] * (2 * sizes[:, 1] + 2 * config.alpha**2)
    eps = config.resolution * torch.minimum(torch.tensor(lam), 2 * (lam / largest).sqrt())
    gamma, beta = gamma_beta(lam=torch.full_like(eps, lam), eps=eps)
    problem = stack(problems)
    least = basis_pursuit(problem.X, problem.y).abs().sum(-1)
    rows = []
    for kind in config.schedules:
        schedule = schedule_of(kind, gamma, beta, config)
        engine = engine_over(
            problems, gamma.numpy(), beta.numpy(), config.alpha,
            tol=0.0, num_workers=workers(config), method=Method(schedule=schedule),
        )  # fmt: skip
        engine.advance(config.steps)
        rows.append(_ends(engine.snapshot(), problem, least, config))
    return along("schedule", config.schedules, rows)


def schedule_of(kind: str, gamma: Tensor, beta: Tensor, config: DictConfig) -> Any:
    """The schedule of a name of the config; its numbers are shares of the budget where they say so.

    ``lambda_up`` and ``lambda_down`` take lambda by a factor at a constant gamma: beta_k =
    1 - sqrt(gamma/lambda_k), which keeps the step's share of the stable one.
    """
    numbers: Any = OmegaConf.to_container(config.schedules[kind])
    name = numbers.pop("name")
    for key in ("steps", "every", "offset"):
        if f"{key}_share" in numbers:
            numbers[key] = round(config.steps * numbers.pop(f"{key}_share"))
    if name != "lambda_at_constant_gamma":
        if name == "acceleration":
            numbers["rho"] = torch.full_like(beta, numbers["rho"]).minimum(1 / (1 - beta))
        return make_schedule(name, **numbers)
    k = torch.arange(numbers["steps"] + 1, dtype=torch.float64)[:, None] / numbers["steps"]
    lam = gamma / (1 - beta) ** 2 * numbers["factor"] ** k
    return make_schedule("arrays", beta=(1 - (gamma / lam).sqrt()).clamp_min(0.0))


def _ends(end: Snapshot, problem: Problem, least: Tensor, config: DictConfig) -> xr.Dataset:
    """Sparsity of theta_K and of its potential's parts, over data sets."""
    delta, c, theta = end.predicted_balancedness, end.log_init, end.theta
    usable = (end.loss <= config.usable) & (delta > 0).all(-1) & (delta * c).isfinite().all(-1)
    keep = usable[:, None]
    delta, c = torch.where(keep, delta, 1.0), torch.where(keep, c, 0.0)
    theta = torch.where(keep, theta, 0.0)
    # theta_K's own level set, {X theta = X theta_K}
    target = problem.row_space.coordinates(theta)
    size = delta.log().mean(-1, keepdim=True).exp().expand_as(delta)

    def excess(other: Tensor) -> np.ndarray:
        return torch.where(usable, other.abs().sum(-1) / least - 1, torch.nan).numpy()

    norm = torch.linalg.vector_norm
    found = bregman_minimizer(problem.row_space, target, delta, c)
    exact = torch.where(found.converged[:, None], found.theta, torch.nan)
    apart = torch.where(usable, norm(exact - theta, dim=-1) / norm(theta, dim=-1), torch.nan)
    gain = torch.where(usable, (end.balancedness_start / delta).log().mean(-1), torch.nan)
    nothing = torch.zeros_like(c)
    values = {
        "excess": excess(minimizer(problem, delta, c)),
        "excess_without_c": excess(minimizer(problem, delta, nothing)),
        "excess_by_size": excess(minimizer(problem, size, nothing)),
        "unexplained": apart.numpy(),
        "gain": gain.numpy(),
        "loss": end.loss.numpy(),
    }
    return xr.Dataset({key: ("data_seed", value) for key, value in values.items()})


def explained(results: xr.Dataset, key: str) -> xr.DataArray:
    """Share of the variance of ln(excess) between schedules that a part explains.

    Within a data set: 1 less the sum of squares of ln(excess) - ln(excess by the part) over that of
    ln(excess) about its mean, pooled over data sets. It is 1 if the part has every end's own
    excess, and at most 0 if it knows nothing.
    """
    own = _log(results["excess"])
    part = _log(results[key])
    known = own.notnull() & part.notnull()
    both = ("schedule", "data_seed")
    spread_of = ((own - own.where(known).mean("schedule")) ** 2).where(known).sum(both)
    left = ((own - part) ** 2).where(known).sum(both)
    return 1 - left / spread_of


def _log(values: xr.DataArray) -> xr.DataArray:
    """ln of values, those that round to 0 or below at 1e-12."""
    return xr.apply_ufunc(np.log, values.clip(min=1e-12))


def sparsest(results: xr.Dataset) -> xr.DataArray:
    """Share of data sets on which each schedule ends with the least excess."""
    excess = results["excess"]
    least = excess == excess.min("schedule")
    return least.mean("data_seed")


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    wins = sparsest(results)
    best = wins.max("schedule")
    shares = {key: explained(results, key) for key in ("excess_without_c", "excess_by_size")}
    exact = float(results["unexplained"].max())
    ratio = results["excess"] / results["excess"].sel(schedule=next(iter(config.schedules)))
    holds = [
        exact <= config.exact_tol,
        *(bool(share) for share in (shares["excess_without_c"] >= config.explained).values.ravel()),
        *(bool(share) for share in (best >= config.share).values.ravel()),
    ]
    order = ("design", "lam", "schedule")
    measured = {
        "largest_distance_to_the_minimiser_at_delta_and_c": exact,
        "share_of_runs_that_ended_at_an_interpolator": spreads(
            results["excess"].notnull().mean("data_seed").transpose(*order)
        ),
        "share_of_sets_on_which_it_ends_sparsest": spreads(wins.transpose(*order)),
        "l1_excess_over_constant": spreads(ratio.transpose(*order, ...)),
        "variance_explained_without_c": spreads(shares["excess_without_c"]),
        "variance_explained_by_the_size_of_delta": spreads(shares["excess_by_size"]),
        "mean_gain": spreads(results["gain"].transpose(*order, ...)),
        "l1_excess_of_constant": spread(results["excess"].isel(schedule=0).values),
    }
    return Outcome(
        verdict=verdict_of(sum(holds), len(holds)),
        finding=_finding(config, results, wins, shares, exact),
        sizes=data_sets(
            config.data_seeds, problem_size(config.n, config.d, config.s, config.alpha)
        ),
        measured=measured,
        results=results,
        figure=draw(results, ratio),
        caption=CAPTION,
        notes=[
            f"Every schedule takes {config.steps} steps; ends with a loss above {config.usable:g} "
            "are left out: what is missing of their Delta and c is of that order.",
            "lambda_up and lambda_down change lambda by a factor at constant gamma; acceleration "
            "keeps lambda and takes eps up; the others change gamma or beta alone.",
            "Without c, the end is not the minimiser: where lambda is large and signs have "
            "changed, theta~ is no small correction.",
        ],
    )


def _finding(
    config: DictConfig,
    results: xr.Dataset,
    wins: xr.DataArray,
    shares: dict[str, xr.DataArray],
    exact: float,
) -> str:
    names = results["schedule"].values[wins.argmax("schedule").values.ravel()]
    common = max(set(names), key=list(names).count)
    cells = wins.max("schedule")
    return (
        f"Every end is the minimiser at its own Delta and c to {exact:.0e}; without c, Delta "
        f"explains {span(shares['excess_without_c'].values.ravel(), 2)} of the variance of the log "
        "l1 excess between schedules (its size alone: "
        f"{span(shares['excess_by_size'].values.ravel(), 2)}); the sparsest is most often {common} "
        f"({list(names).count(common)} of {cells.size} settings), and wins on "
        f"{span(cells.values.ravel(), 2)} of data sets."
    )


if __name__ == "__main__":
    main("schedules_compared", SECTION, CLAIM, study)
