"""Whether a lambda that falls along the run ends where a large one does, in fewer steps.

Used by `experiments.sparser_region` (docs/theory.md#schedules): lambda is constant, or goes
geometrically from the same value to a small one, at the same eps; every run is followed to its own
end. Time is counted in steps, of which eps is the same for all runs of a cell.
"""

from __future__ import annotations

import torch
import xarray as xr
from omegaconf import DictConfig

from dln_momentum import Problem, Status
from dln_momentum.method import Method
from dln_momentum.rates import gamma_beta
from dln_momentum.schedules import AnnealedLambda
from dln_momentum.theory.interpolators import basis_pursuit
from experiments.common import engine_over
from experiments.limits import curvature

LONG_NAMES = {
    "end_excess": "||theta||_1 / min ||theta||_1 - 1 at the end of a run; nan where not converged",
    "end_steps": "steps to the tolerance; nan where not converged",
}


def ends(
    problems: list[Problem], flow: torch.Tensor, config: DictConfig, num_workers: int | None
) -> xr.Dataset:
    """Excess over gradient flow's, and steps, of constant and annealed runs.

    Args:
        problems: the data sets of one design.
        flow: gradient flow's limits for ``config.alpha``, [data, d].
        config: alpha, lams, lam_end, lengths (of the annealing, in units of lambda; 0 is constant),
            resolution, tol, max_steps.
        num_workers: cores to use.

    Returns:
        Over (lam, length, data_seed).
    """
    shape = (len(config.lams), len(config.lengths), len(problems))
    lam, length = (
        grid.reshape(-1).repeat_interleave(len(problems))
        for grid in torch.meshgrid(
            torch.tensor(config.lams, dtype=torch.float64),
            torch.tensor(config.lengths, dtype=torch.float64),
            indexing="ij",
        )
    )
    copies = len(lam) // len(problems)
    end = float(config.lam_end)
    sizes = torch.stack([curvature(problem) for problem in problems]).repeat(copies, 1)
    largest = sizes[:, 0] * (2 * sizes[:, 1] + 2 * config.alpha**2)
    # stable at the smallest lambda of the run
    eps = config.resolution * 2 * torch.minimum(torch.full_like(lam, end), (end / largest).sqrt())
    gamma, beta = gamma_beta(lam=lam, eps=eps)
    steps = (length * lam / eps).clamp_min(1)
    schedule = AnnealedLambda(lam_end=torch.where(length > 0, end, lam), steps=steps)
    engine = engine_over(
        problems * copies, gamma, beta, config.alpha, method=Method(schedule=schedule),
        tol=config.tol, num_workers=num_workers,
    )  # fmt: skip
    found = engine.run(config.max_steps, block_size=1000)
    converged = found.status == int(Status.CONVERGED)
    least = torch.stack([basis_pursuit(x.X, x.y).abs().sum() for x in problems])
    reference = flow.abs().sum(-1) / least - 1
    excess = (found.theta.abs().sum(-1) / least.repeat(copies) - 1) / reference.repeat(copies)
    values = {"end_excess": excess, "end_steps": found.steps.double()}
    dims = ("lam", "length", "data_seed")
    return xr.Dataset(
        {
            k: (dims, v.where(converged, torch.nan).reshape(shape).numpy())
            for k, v in values.items()
        },
        coords={"lam": list(config.lams), "length": list(config.lengths)},
    )


def told(results: xr.Dataset, share: float) -> dict[str, dict[str, float]]:
    """By length: cells that are sparser as with constant lambda, and the ratio of their steps.

    A cell is a design and lambda at which constant lambda is sparser than gradient flow on at least
    this share of the data sets.
    """
    sparser = (results["end_excess"] < 1).mean("data_seed") >= share
    constant = sparser.sel(length=0)
    steps = results["end_steps"]
    ratio = (steps / steps.sel(length=0)).median("data_seed")
    excess = results["end_excess"].median("data_seed")
    found = {}
    for length in results["length"].values[1:]:
        both = (constant & sparser.sel(length=length)).values
        found[f"over {length:g} lambda"] = {
            "sparser cells with constant lambda": int(constant.sum()),
            "sparser in them too": int(both.sum()),
            "median ratio of steps there": _median(ratio.sel(length=length).where(constant)),
            "median excess over GF's there": _median(excess.sel(length=length).where(constant)),
            "the same of constant lambda": _median(excess.sel(length=0).where(constant)),
        }
    return found


def _median(values: xr.DataArray) -> float:
    return float(values.median(skipna=True))
