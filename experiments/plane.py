"""The (gamma, beta) plane: what depends on lambda alone.

(docs/theory.md#momentum; poster, sections 2 and 6.)

    python -m experiments.plane

Every point of a grid is one run to convergence. Each quantity is fitted by a continuous piecewise
linear function of one number, ln lambda and its rivals in turn: R^2 is the share of the variance
over the grid that this number explains, and what is left is the spread along its level lines.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from omegaconf import DictConfig

from dln_momentum import Problem, Status
from experiments.claim import Outcome, main
from experiments.common import described, engine_over, sparse_problems, spread, spreads, workers
from experiments.figures import data_sets, problem_size
from experiments.plane_figure import draw

SECTION = "2 and 6"
CLAIM = (
    "The roles of gamma and beta are intertwined: what a run does depends on them through "
    "lambda = gamma/(1-beta)^2 alone, its path in t = k eps and hence its speed and its limit."
)
QUANTITIES = (
    "recovery_error", "balancedness_ratio", "time", "steps", "sign_changes", "diverged"
)  # fmt: skip
LONG_NAMES = {
    "recovery_error": "||theta - theta*||_2 / ||theta*||_2; nan where not converged, as below",
    "balancedness_ratio": "||Delta_inf||_1 / ||Delta_0||_1",
    "time": "k eps at the first loss of at most tol",
    "steps": "k at the first loss of at most tol",
    "sign_changes": "1 + number of sign changes of the entries of w_+-",
    "diverged": "1 where the run diverged",
    "r_squared": "adjusted R^2 of ln(quantity) on ln(index)",
    "r_squared_of_power": "adjusted R^2 of ln(quantity) on ln(gamma/(1-beta)^exponent)",
    "left_by_lambda": "residual of ln(quantity) on ln(lambda)",
}
CLAIMED = ("recovery_error", "balancedness_ratio", "time")
REGIONS = ("converged", "resolved")
RIVALS = ("lambda", "lambda_KS", "gamma", "1 - beta", "eps")
BIN, FEW = 0.25, 5
"""Width of the bins of log10 lambda, and the points that a data set needs in one."""


CAPTION = (
    "(a) to (f) Medians over data sets in the (gamma, beta) plane, with level lines of lambda and, "
    "dashed, of lambda_KS = lambda (1+beta)/2; grey where fewer than half converged. (g) Share of "
    "the variance of the log of each quantity that one number explains. (h) The same for "
    "gamma/(1-beta)^c over c. (i) How far runs of equal lambda differ."
)


def study(config: DictConfig) -> Outcome:
    """Fill the plane for every data set, and fit every quantity on every index."""
    problems = sparse_problems(config.n, config.d, config.s, config.data_seeds)
    gammas = np.geomspace(config.gamma[0], config.gamma[1], config.grid)
    drags = np.geomspace(1 - config.beta[0], 1 - config.beta[1], config.grid)
    maps = xr.concat([_map(problem, gammas, drags, config) for problem in problems], "data_seed")
    maps = maps.assign_coords(gamma=gammas, beta=1 - drags, data_seed=range(config.data_seeds))
    results = described(xr.merge([maps, _fits(maps, config)]), **LONG_NAMES)
    return _judge(config, results)


def _map(problem: Problem, gammas: np.ndarray, drags: np.ndarray, config: DictConfig) -> xr.Dataset:
    """Every quantity at every point of the plane for one data set; nan where not converged."""
    gamma, drag = (grid.ravel() for grid in np.meshgrid(gammas, drags, indexing="ij"))
    engine = engine_over(
        [problem], gamma, 1 - drag, config.alpha, tol=config.tol, num_workers=workers(config)
    )
    end = engine.run(config.max_steps, block_size=500)
    assert problem.theta_star is not None
    error = torch.linalg.vector_norm(end.theta - problem.theta_star, dim=-1)
    ratio = end.limit_balancedness.sum(-1) / end.balancedness_start.sum(-1)
    converged = end.status == int(Status.CONVERGED)
    values = {
        "recovery_error": error / torch.linalg.vector_norm(problem.theta_star),
        "balancedness_ratio": ratio,
        "time": end.steps_to_tol * end.eps.squeeze(-1),
        "steps": end.steps_to_tol.double(),
        "sign_changes": end.sign_changes + 1.0,
    }
    kept = {key: torch.where(converged, value, torch.nan) for key, value in values.items()}
    kept["diverged"] = (end.status == int(Status.DIVERGED)).double()
    shape = (len(gammas), len(drags))
    return xr.Dataset(
        {key: (("gamma", "beta"), value.reshape(shape).numpy()) for key, value in kept.items()}
    )


def _fits(maps: xr.Dataset, config: DictConfig) -> xr.Dataset:
    """R^2 of every quantity on every index, by region, and what ln lambda leaves of it."""
    gamma, drag = np.meshgrid(maps["gamma"], 1 - maps["beta"], indexing="ij")
    indices = np.stack(
        [np.log(gamma / drag**2), np.log(gamma * (2 - drag) / 2 / drag**2)]
        + [np.log(gamma), np.log(drag), np.log(gamma / drag)]
        + [np.log(gamma / drag**c) for c in config.exponents]
    )
    values = np.stack([maps[key] for key in QUANTITIES], -1)
    values[..., :-1] = np.log(values[..., :-1])
    shape = (len(REGIONS), len(values), len(QUANTITIES))
    explained = np.full((*shape, len(indices)), np.nan)
    left = np.full((*shape, *gamma.shape), np.nan)
    for seed, map_ in enumerate(values):
        edge = np.where(map_[..., -1] > 0, gamma, np.inf).min(axis=0)
        for region, inside in enumerate((gamma > 0, gamma <= config.resolved * edge)):
            for which in (slice(0, -1), slice(-1, None)):
                used = inside & np.isfinite(map_[..., which]).all(-1)
                for j, index in enumerate(indices):
                    r_squared, residual = _fit(index[used], map_[used][:, which], config.knots)
                    explained[region, seed, which, j] = r_squared
                    if j == 0:
                        left[region, seed, which, used] = residual
    dims = ("region", "data_seed", "quantity")
    rivals = len(RIVALS)
    return xr.Dataset(
        {
            "r_squared": ((*dims, "index"), explained[..., :rivals]),
            "r_squared_of_power": ((*dims, "exponent"), explained[..., rivals:]),
            "left_by_lambda": ((*dims, "gamma", "beta"), left),
        },
        coords={"region": list(REGIONS), "quantity": list(QUANTITIES)}
        | {"index": list(RIVALS), "exponent": list(config.exponents)},
    )


def _fit(x: np.ndarray, y: np.ndarray, knots: int) -> tuple[np.ndarray, np.ndarray]:
    """Adjusted R^2 and residuals [points, k] of y [points, k], fitted on x by linear pieces."""
    places = np.unique(np.quantile(x, np.linspace(0, 1, knots)))
    hats = np.stack([np.interp(x, places, hat) for hat in np.eye(len(places))], -1)
    # the normal equations of hat functions are tridiagonal and well conditioned
    residual = y - hats @ np.linalg.lstsq(hats.T @ hats, hats.T @ y, rcond=None)[0]
    freedom = max(len(x) - len(places), 1)
    total = y.var(axis=0, ddof=1)
    varies = total > 1e-12 * (1 + y.mean(axis=0) ** 2)
    r_squared = 1 - (residual**2).sum(axis=0) / freedom / np.where(varies, total, 1)
    return np.where(varies, r_squared, np.nan), residual


def _along_lines(results: xr.Dataset) -> xr.DataArray:
    """rms of what ln lambda leaves, in bins of log10 lambda; the median over data sets."""
    lam = results["gamma"] / (1 - results["beta"]) ** 2
    place = lam.copy(data=np.round(np.log10(lam) / BIN)).rename("bin")
    groups = (results["left_by_lambda"] ** 2).groupby(place)
    rms = (groups.mean() ** 0.5).where(groups.count() >= FEW).median("data_seed")
    return rms.assign_coords({"lambda": 10 ** (rms["bin"] * BIN)})


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    explained = results["r_squared"].median("data_seed").sel(quantity=list(CLAIMED))
    held = explained.sel(index="lambda") >= config.explained
    ahead = (
        explained.sel(index=["gamma", "1 - beta", "eps"]) < explained.sel(index="lambda")
    ).all()
    where = f"gamma is at most {config.resolved:g} times the smallest that diverges at that beta"
    good = [name for name in CLAIMED if held.sel(region="resolved", quantity=name)]
    if not (ahead and good):
        verdict = "not seen"
    else:
        verdict = "confirmed" if held.sel(region="converged").all() else "confirmed in part"
    best = results["r_squared_of_power"].idxmax("exponent")
    along = _along_lines(results)
    agree_to = _agree_to(along, config.along)
    measured = {
        "largest_lambda_of_agreement": agree_to,
        "r_squared": spreads(results["r_squared"]),
        "best_exponent_of_1_minus_beta": spreads(best),
        "spread_along_level_lines": {
            region: {
                name: {
                    f"lambda={float(lam):.3g}": float(value)
                    for lam, value in zip(
                        along["lambda"], along.sel(region=region, quantity=name), strict=True
                    )
                    if np.isfinite(value)
                }
                for name in CLAIMED
            }
            for region in REGIONS
        },
        "share_of_runs_converged": spread(
            results["time"].notnull().mean(("gamma", "beta")).to_numpy()
        ),
        "share_of_runs_diverged": spread(results["diverged"].mean(("gamma", "beta")).to_numpy()),
    }
    notes = [
        "R^2 of ln lambda adjusted for the fit's freedom, per data set; quartiles over data sets.",
        f"resolved: {where}. There eps is small against the fastest oscillation.",
        "A best exponent of 2 is lambda, 1 is eps, 0 is gamma.",
    ]
    size = problem_size(config.n, config.d, config.s, config.alpha)
    return Outcome(
        verdict=verdict,
        finding=_finding(config, explained, agree_to, where),
        sizes=f"{data_sets(config.data_seeds, size)}, {config.grid} x {config.grid} runs each",
        measured=measured,
        results=results,
        figure=draw(results, along, config.explained),
        caption=CAPTION,
        notes=notes,
    )


def _finding(config: DictConfig, explained: xr.DataArray, agree_to: float, where: str) -> str:
    shares = explained.sel(region="resolved")
    own = float(shares.sel(index="lambda").min())
    rival = float(shares.sel(index=["gamma", "1 - beta", "eps"]).max())
    return (
        f"Where {where}, lambda alone explains at least {own:.0%} of the variance of the log of "
        "error, Delta_inf and time k eps, against at most "
        f"{rival:.0%} for gamma, beta or eps alone; up to lambda = {agree_to:.3g}, runs of "
        f"equal lambda then agree within {config.along:.0%}."
    )


def _agree_to(along: xr.DataArray, bound: float) -> float:
    """The largest lambda up to which resolved runs of equal lambda agree within the bound."""
    worst = along.sel(region="resolved", quantity=list(CLAIMED)).max("quantity")
    worst = worst.dropna("bin").sortby("bin")
    agreed = np.cumprod(worst.to_numpy() < bound).astype(bool)
    return float(worst["lambda"].to_numpy()[agreed].max(initial=0.0))


if __name__ == "__main__":
    main("plane", SECTION, CLAIM, study)
