"""The figure of `experiments.smgd_implicit_bias`: a row for each setting."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator
from omegaconf import DictConfig

from dln_momentum.outputs.plotting import style
from experiments.common import SMALL, band
from experiments.flows import setting_title
from experiments.negligible import draw_map

VARIANCE = "variance of the batch gradient\nrelative to b = 1; hollow: with replacement"
COLOURS = ("C0", "C1", "C2", "C3", "C4")

LINES = {
    "to_gradient_flow": ("gradient flow", "^-", "C3"),
    "to_unperturbed": (r"minimiser without $\tilde\theta_0$", "s-", "C2"),
    "to_minimizer": (r"minimiser with $\tilde\theta_0$", "o-", "C0"),
    "path_identity_error": (r"error of $\Delta_\infty$ from $S_\pm$", "x:", "C1"),
    "kkt_residual": ("KKT residual", "+--", "C5"),
}


def draw(config: DictConfig, results: xr.Dataset, cost: xr.DataArray) -> Figure:
    """Distances and identities, S_+- and its excess; what leaving out theta~_0 costs below."""
    count = results.sizes["setting"]
    with style(), rc_context(SMALL):
        height = 2.6 * count + 0.6
        whole = Figure(figsize=(7.2, height + 2.3), layout="constrained")
        grid = whole.add_gridspec(2, 1, height_ratios=[height, 2.3])
        figure, below = (whole.add_subfigure(part) for part in grid)
        rows = figure.subplots(count, 3, squeeze=False, sharex="col")
        for number, (distances, sums, excess) in enumerate(rows):
            part = results.isel(setting=number)
            _distances(distances, part)
            _sums(sums, part)
            _excess(excess, part)
            setting = setting_title(config.settings[number])
            for ax in (distances, sums):
                ax.set_xticks(list(config.lams), [f"{lam:g}" for lam in config.lams])
                ax.xaxis.set_minor_locator(NullLocator())
            sums.set_title(rf"{setting}, $\varepsilon$ = {config.eps:g}")
        for ax, key in zip(rows[-1], (r"$\lambda$", r"$\lambda$", VARIANCE), strict=True):
            ax.set_xlabel(key)
        handles, labels = rows[0, 0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper center", ncols=5)
        batches = cost["batch"].to_numpy()
        maps = below.subplots(1, len(batches), squeeze=False, sharey=True)[0]
        for ax, batch in zip(maps, batches, strict=True):
            last = bool(batch == batches[-1])
            draw_map(below, ax, cost.sel(batch=batch), config.negligible, bar=last)
            ax.set_title("full batch" if batch == config.region.size[0] else f"b = {batch}")
        maps[0].set_ylabel(r"initialisation scale $\alpha$")
    return whole


def _distances(ax: Axes, part: xr.Dataset) -> None:
    """Medians and quartiles over data sets and samplings."""
    for name, (label, dashes, colour) in LINES.items():
        values = part[name].stack(run=("sampling", "data_seed")).transpose("lam", "run")
        low, middle, high = band(values.to_numpy(), axis=1)
        ax.plot(part["lam"], middle, dashes, color=colour, ms=3, label=label)
        ax.fill_between(part["lam"], low, high, color=colour, alpha=0.2, lw=0)
    ax.set(xscale="log", yscale="log", ylabel="relative distance or error")


def _sums(ax: Axes, part: xr.Dataset) -> None:
    """Medians and quartiles over data sets, for some of the samplings."""
    without = ~part["replacement"].to_numpy().astype(bool)
    quiet, full = part["label_noise"].to_numpy() == 0, part["variance"].to_numpy() == 0
    sizes = part["batch_size"].to_numpy()[without & quiet]
    shown = np.isin(part["batch_size"], (sizes[0], sizes[len(sizes) // 2], sizes[-1]))
    kept = np.flatnonzero(without & shown & (quiet | full))
    for i, marker in zip(kept, "o^sDv", strict=False):
        one = part.sel(sampling=i)
        low, middle, high = band(one["mean_path_sum"].to_numpy(), axis=1)
        ax.plot(part["lam"], middle, marker=marker, ms=3, label=str(one["name"].values))
        ax.fill_between(part["lam"], low, high, alpha=0.2, lw=0)
    ax.set(xscale="log", yscale="log", ylabel=r"mean of $S_+ + S_-$ over coordinates")
    ax.set_ylim(bottom=ax.get_ylim()[0] / 4)
    ax.legend(loc="lower right")


def _excess(ax: Axes, part: xr.Dataset) -> None:
    """Medians over data sets, with replacement and without; and what variance alone predicts."""
    sampled = part.isel(
        sampling=np.flatnonzero((part["variance"] > 0) & (part["label_noise"] == 0))
    )
    sampled = sampled.sortby("variance")
    for lam, marker, colour in zip(part["lam"].to_numpy(), "os^Dv", COLOURS, strict=False):
        # after sign changes S_+- goes either way: what is not positive has no place on this axis
        low, middle, high = band(sampled["excess"].sel(lam=lam).to_numpy(), axis=1)
        middle = np.where(middle > 0, middle, np.nan)
        x, hollow = sampled["variance"].to_numpy(), sampled["replacement"].to_numpy().astype(bool)
        ax.plot(x, middle, color=colour, lw=0.8, label=rf"$\lambda$ = {lam:g}")
        if low.min() > 0:
            ax.fill_between(x, low, high, color=colour, alpha=0.12, lw=0)
        for some, face in ((hollow, "white"), (~hollow, colour)):
            ax.plot(x[some], middle[some], marker, color=colour, mfc=face, ms=3.5)
    least = float(sampled["excess"].isel(lam=0).median("data_seed").min())
    ends = sampled["variance"].to_numpy()[[0, -1]]
    ax.plot(ends, least / 2 * ends / ends[0], "k:", label="slope 1")
    ax.set(xscale="log", yscale="log", ylabel=r"excess of that mean over the full batch")
    ax.legend(loc="best")
