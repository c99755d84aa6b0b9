"""Is momentum flow sparser than gradient flow? (section 4)

    python -m experiments.sparser_than_gradient_flow

MGF(lambda) is followed by MGD with lambda_KS = lambda, whose error is of second order in eps, until
Delta has settled; its limit is then the minimiser of the theory. It is compared with gradient
flow's, the minimiser of psi_{Delta_0}, data set by data set: the l1 norm above the least one, the
recovery error, and Delta_inf on and off the support.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, StrMethodFormatter
from omegaconf import DictConfig
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.interpolators import basis_pursuit
from dln_momentum.minimizers import bregman_minimizer
from dln_momentum.plotting import style
from dln_momentum.problem import Problem, stack
from experiments.claim import Outcome, main
from experiments.common import SMALL, band, described, sparse_problems, spreads, workers
from experiments.limits import follow_flows, limits

SECTION = "4"
CLAIM = (
    "Since Delta_inf < Delta_0, momentum gradient flow is expected to converge to a sparser "
    "interpolator than gradient flow."
)

LONG_NAMES = {
    "excess": "||theta^MGF||_1 / min ||theta||_1 - 1; nan where not converged",
    "flow_excess": "||theta^GF||_1 / min ||theta||_1 - 1",
    "error": "||theta^MGF - theta*||_2",
    "flow_error": "||theta^GF - theta*||_2",
    "balancedness_ratio": "||Delta_inf||_1 / ||Delta_0||_1",
    "share_below": "share of the coordinates with Delta_inf < Delta_0",
    "gain_on": "mean of ln(Delta_0/Delta_inf) over the support of theta*",
    "gain_off": "mean of ln(Delta_0/Delta_inf) off the support of theta*",
    "sign_changes": "number of sign changes of the entries of w_+-",
    "resolution_error": "relative change of theta^MGF when eps is halved; on the first sets only",
}


def study(config: DictConfig) -> Outcome:
    """Compare the two limits for every setting, design, data set and lambda."""
    parts = [
        xr.concat([_compare(setting, design, config) for design in config.designs], "design")
        for setting in config.settings
    ]
    names = ["({:g}, {:g}, {:g}, {:g})".format(*setting) for setting in config.settings]
    results = xr.concat(parts, "setting").assign_coords(
        setting=names,
        design=list(config.designs),
        lam=list(config.lams),
        data_seed=range(config.data_seeds),
    )
    return _judge(config, described(results, **LONG_NAMES))


def _compare(setting: Any, design: str, config: DictConfig) -> xr.Dataset:
    """Both limits on every data set of a design, dims (lam, data_seed)."""
    n, d, s, alpha = setting
    problems = sparse_problems(n, d, s, config.data_seeds, design=design, mu=config.mu,
                               rho=config.rho)  # fmt: skip
    problem = stack(problems)
    target = problem.row_space.target(problem.y)
    start = torch.full((d,), 2 * alpha**2, dtype=torch.float64)
    flow = bregman_minimizer(problem.row_space, target, start).theta
    sparsest = basis_pursuit(problem.X, problem.y)
    end = _follow(problems, alpha, config.resolution, config)
    shape = (len(config.lams), len(problems))
    theta = limits(end, stack(problems * len(config.lams))).reshape(*shape, d)
    final = torch.where(theta.isnan(), torch.nan, end.limit_balancedness.reshape(*shape, d))
    log_gain = (2 * alpha**2 / final).log()
    star = torch.stack([p.theta_star for p in problems if p.theta_star is not None])
    support = star != 0
    norms = [x.abs().sum(-1) for x in (theta, flow, sparsest)]
    errors = [torch.linalg.vector_norm(x - star, dim=-1) for x in (theta, flow)]
    values = {
        "excess": norms[0] / norms[2] - 1,
        "flow_excess": (norms[1] / norms[2] - 1).expand(shape),
        "error": errors[0],
        "flow_error": errors[1].expand(shape),
        "balancedness_ratio": final.sum(-1) / (2 * alpha**2 * d),
        "share_below": torch.where(final.isnan(), torch.nan, (log_gain > 0).double()).mean(-1),
        "gain_on": (log_gain * support).sum(-1) / support.sum(-1),
        "gain_off": (log_gain * ~support).sum(-1) / (~support).sum(-1),
        "sign_changes": end.sign_changes.reshape(shape).double(),
        "resolution_error": _resolution_error(problems, theta, alpha, config),
    }
    return xr.Dataset({key: (("lam", "data_seed"), v.numpy()) for key, v in values.items()})


def _follow(
    problems: list[Problem], alpha: float, resolution: float, config: DictConfig
) -> Snapshot:
    """Every lambda on every problem: lambdas slowest, problems fastest."""
    lam = torch.tensor(config.lams, dtype=torch.float64).repeat_interleave(len(problems))
    return follow_flows(
        problems * len(config.lams),
        lam,
        torch.full_like(lam, alpha),
        resolution=resolution,
        max_steps=round(config.max_steps * config.resolution / resolution),
        tol=config.tol,
        num_workers=workers(config),
    )


def _resolution_error(
    problems: list[Problem], theta: Tensor, alpha: float, config: DictConfig
) -> Tensor:
    """How far the first few limits move when eps is halved, relative; nan elsewhere."""
    few = problems[: config.checked]
    end = _follow(few, alpha, config.resolution / 2, config)
    finer = limits(end, stack(few * len(config.lams))).reshape(len(config.lams), len(few), -1)
    moved = torch.linalg.vector_norm(theta[:, : len(few)] - finer, dim=-1)
    error = torch.full(theta.shape[:2], torch.nan, dtype=torch.float64)
    error[:, : len(few)] = moved / torch.linalg.vector_norm(finer, dim=-1)
    return error


def _judge(config: DictConfig, results: xr.Dataset) -> Outcome:
    found = results["excess"].notnull()
    sparser = (results["excess"] < results["flow_excess"]).where(found)
    share = sparser.mean("data_seed")
    # runs in which the premise holds in every coordinate
    premise = sparser.where(results["share_below"] == 1)
    by_design = premise.mean(("setting", "lam", "data_seed"))
    known = by_design.dropna("design")
    seen = ", ".join(
        f"{float(x):.0%} ({d})" for d, x in zip(known.design.values, known, strict=True)
    )
    passed = share >= config.share
    cells = [
        f"{design} design, lambda = {', '.join(f'{lam:g}' for lam in lams)}"
        for design in config.designs
        if (lams := [lam for lam in config.lams if passed.sel(design=design, lam=lam).all()])
    ]
    if bool(passed.all()):
        verdict = "confirmed"
    else:
        verdict = f"confirmed where {' and '.join(cells)}" if cells else "not seen"
        verdict += f": of the runs with Delta_inf < Delta_0 everywhere, sparser are {seen}"
    measured = {
        "share_of_sets_sparser": spreads(share),
        "share_sparser_where_premise_holds": spreads(by_design),
        "share_of_runs_where_premise_holds": spreads(
            (results["share_below"] == 1).mean("data_seed")
        ),
        "l1_excess_over_gradient_flows": spreads(results["excess"] / results["flow_excess"]),
        "error_over_gradient_flows": spreads(results["error"] / results["flow_error"]),
        "balancedness_ratio": spreads(results["balancedness_ratio"]),
        "largest_change_when_eps_is_halved": float(results["resolution_error"].max()),
        "share_converged": float(found.mean()),
    }
    notes = [
        "Excess: the l1 norm above the least one of all interpolators.",
        "Gradient flow's limit is computed as the exact minimiser, not by integration.",
    ]
    return Outcome(verdict, measured, results, _figure(config, results), notes)


def _figure(config: DictConfig, results: xr.Dataset) -> Figure:
    rows = {
        r"$\|\Delta_\infty\|_1 / \|\Delta_0\|_1$": results["balancedness_ratio"],
        r"$\ell_1$ excess, over GF's": results["excess"] / results["flow_excess"],
        "recovery error, over GF's": results["error"] / results["flow_error"],
    }
    with style(), rc_context(SMALL):
        figure = Figure(figsize=(7.2, 7.2), layout="constrained")
        axes = figure.subplots(4, len(config.settings), sharex=True, sharey="row", squeeze=False)
        for line, (label, values) in zip(axes[:3], rows.items(), strict=True):
            line[0].set_ylabel(label)
            for ax, setting in zip(line, values["setting"].to_numpy(), strict=True):
                _draw(ax, values.sel(setting=setting), "-")
                ax.set(yscale="log")
                ax.axhline(1, color="k", lw=0.8, ls=":")
                ax.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
                ax.yaxis.set_minor_formatter(NullFormatter())
        axes[3][0].set_ylabel(r"mean of $\ln(\Delta_{0,i}/\Delta_{\infty,i})$")
        for j, setting in enumerate(results["setting"].to_numpy()):
            axes[0][j].set_title(setting)
            _draw(axes[3][j], results["gain_on"].sel(setting=setting), "-")
            _draw(axes[3][j], results["gain_off"].sel(setting=setting), "--")
            axes[3][j].axhline(0, color="k", lw=0.8, ls=":")
            axes[3][j].set(xscale="log", xlabel=r"$\lambda$")
        _legend(figure, results["design"].to_numpy())
    return figure


def _legend(figure: Figure, designs: np.ndarray) -> None:
    colours = [Line2D([], [], color=f"C{j}", label=f"{d} design") for j, d in enumerate(designs)]
    lines = {"-": "last row: on the support", "--": "off the support", ":": "as gradient flow (GF)"}
    dashes = [Line2D([], [], color="k", ls=ls, label=label) for ls, label in lines.items()]
    figure.suptitle(r"$(n, d, s, \alpha)$ above each column; medians and quartiles over data sets")
    figure.legend(handles=[*colours, *dashes], ncols=3, loc="outside lower center")


def _draw(ax: Axes, values: xr.DataArray, ls: str) -> None:
    for j, design in enumerate(values["design"].to_numpy()):
        low, middle, high = band(values.sel(design=design).to_numpy(), axis=1)
        ax.plot(values["lam"], middle, ls, color=f"C{j}", lw=1.2)
        ax.fill_between(values["lam"], low, high, color=f"C{j}", alpha=0.18, lw=0)


if __name__ == "__main__":
    main("sparser_than_gradient_flow", SECTION, CLAIM, study)
