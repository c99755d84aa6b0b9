"""The acceleration rule: rho times the speed along the same path (section 2).

    python -m experiments.acceleration_rule

At fixed lambda, ``gamma -> rho^2 gamma, beta -> 1 - rho (1 - beta)`` multiplies eps by rho. Paths
are compared in t = k eps against the slowest one; the steps to a loss of ``tol`` are counted.
"""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from omegaconf import DictConfig

from dln_momentum.momentum import Momentum
from dln_momentum.plotting import style
from dln_momentum.problem import Problem
from experiments.claim import Outcome, main
from experiments.common import band, engine_over, sparse_problems, spread

SECTION = "2"
CLAIM = (
    "gamma -> rho^2 gamma and beta -> 1 - rho (1 - beta), approximately beta^rho, keeps lambda "
    "and multiplies the discretisation step by rho: the same path, rho times as fast."
)


def study(config: DictConfig) -> Outcome:
    """Run every rho on every data set, and compare paths and step counts."""
    problems = sparse_problems(config.n, config.d, config.s, config.data_seeds)
    base = Momentum.from_pair(lam=config.lam, eps=config.eps)
    rules = [base.accelerated(rho) for rho in config.rhos]
    paths = np.stack([_path(problems, rule, config) for rule in rules])
    steps = np.stack([_steps_to_tol(problems, rule, config) for rule in rules])
    reference = paths[0]
    scale = np.abs(reference).max(axis=(0, 2))
    distance = np.abs(paths - reference).max(axis=(1, 3)) / scale
    results = _label(config, rules, distance, steps)
    return _judge(config, results)


def _path(problems: list[Problem], rule: Momentum, config: DictConfig) -> np.ndarray:
    """theta at the common times, [times, data, d]."""
    engine = engine_over(problems, rule.gamma, rule.beta, config.alpha, tol=0.0)
    stride = round(config.eps * max(config.rhos) / rule.eps)
    thetas = []
    for _ in range(round(config.path_time / (config.eps * max(config.rhos)))):
        engine.advance(stride)
        thetas.append(engine.snapshot().theta)
    return torch.stack(thetas).numpy()


def _steps_to_tol(problems: list[Problem], rule: Momentum, config: DictConfig) -> np.ndarray:
    """Steps until the loss is at tol, [data]; nan where it never is."""
    engine = engine_over(problems, rule.gamma, rule.beta, config.alpha, tol=config.tol)
    reached = engine.run(round(config.max_time / rule.eps)).reached_tol
    return np.where(reached >= 0, reached.double(), np.nan)


def _label(
    config: DictConfig, rules: list[Momentum], distance: np.ndarray, steps: np.ndarray
) -> xr.Dataset:
    return xr.Dataset(
        {
            "path_distance": (("rho", "data_seed"), distance),
            "steps_to_tol": (("rho", "data_seed"), steps),
            "eps": ("rho", [rule.eps for rule in rules]),
            "beta": ("rho", [rule.beta for rule in rules]),
            "beta_to_the_rho": ("rho", [(1 - config.eps / config.lam) ** r for r in config.rhos]),
        },
        coords={"rho": list(config.rhos), "data_seed": range(config.data_seeds)},
    )


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    # steps x eps is the time to tol; under the rule it does not depend on rho
    times = results["steps_to_tol"] * results["eps"]
    ratio = (times / times.isel(rho=0)).to_numpy()
    holds = [bool(np.isfinite(r).all() and abs(np.median(r) - 1) < config.agreement) for r in ratio]
    good = [rho for rho, ok in zip(config.rhos, holds, strict=True) if ok]
    everywhere = len(good) == len(holds)
    verdict = "confirmed" if everywhere else f"confirmed where rho <= {max(good):g}"
    measured = {
        "time_to_tol_relative_to_slowest": {
            f"rho={rho:g}": spread(r) for rho, r in zip(config.rhos, ratio, strict=True)
        },
        "relative_path_distance": {
            f"rho={float(rho):g}": spread(results["path_distance"].sel(rho=rho))
            for rho in results["rho"]
        },
        "largest_gap_of_beta_to_the_rho": float(
            np.abs(results["beta"] - results["beta_to_the_rho"]).max()
        ),
    }
    return Outcome(verdict, measured, results, _figure(config, results, ratio))


def _figure(config: DictConfig, results: xr.Dataset, ratio: np.ndarray) -> Figure:
    rho = results["rho"].to_numpy()
    label = rf"$\lambda$ = {config.lam:g}, $\varepsilon$ = {config.eps:g} at $\rho$ = 1"
    with style():
        figure = Figure(figsize=(10, 3), layout="constrained")
        paths, steps, betas = figure.subplots(1, 3)
        _band(paths, rho[1:], results["path_distance"].to_numpy()[1:], label)
        paths.set(xscale="log", yscale="log", ylabel="distance to the slowest path, relative")
        _band(steps, rho, ratio, label)
        steps.set(xscale="log", ylabel="time to tolerance, relative to slowest")
        steps.axhline(1, color="k", lw=0.8, ls=":", label="the rule")
        betas.plot(rho, results["beta"], "o-", label=r"$1 - \rho(1-\beta)$")
        betas.plot(rho, results["beta_to_the_rho"], "s--", label=r"$\beta^\rho$")
        betas.set(xscale="log", ylabel=r"accelerated $\beta$")
        for ax in (paths, steps, betas):
            ax.set_xlabel(r"speed-up $\rho$")
            ax.legend()
    return figure


def _band(ax, x: np.ndarray, values: np.ndarray, label: str) -> None:
    low, middle, high = band(values, axis=1)
    ax.plot(x, middle, "o-", label=f"median, {label}")
    ax.fill_between(x, low, high, alpha=0.25, label="quartiles over data sets")


if __name__ == "__main__":
    main("acceleration_rule", SECTION, CLAIM, study)
