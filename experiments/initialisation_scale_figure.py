"""The figure of small and large initialisation."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dln_momentum.outputs.plotting import style
from experiments.common import SMALL, band

MARKERS = "osv^D"


def draw(results: xr.Dataset, close: float) -> Figure:
    """Distances to both ends, of the flows to the minimisers, and the exponents of the l1 limit.

    Args:
        results: of `experiments.initialisation_scale`.
        close: the distance that counts as having arrived.
    """
    settings = results["setting"].to_numpy()
    with style(), rc_context(SMALL):
        figure = Figure(figsize=(7.2, 1.1 + 2.1 * len(settings)), layout="constrained")
        axes = figure.subplots(len(settings), 3, squeeze=False)
        for row, setting in zip(axes, settings, strict=True):
            part = results.sel(setting=setting)
            _draw_ends(row[0], part, close)
            _draw_followers(row[1], part)
            _draw_exponents(row[2], part)
            row[0].set_title(f"$(n, d, s)$ = {setting}")
        handles, labels = axes[0][0].get_legend_handles_labels()
        figure.legend(handles, labels, ncols=4, loc="outside upper center")
    return figure


def _name(lam: float) -> str:
    return "gradient descent" if lam == 0 else rf"MGF, $\lambda$ = {lam:g}"


def _draw_ends(ax: Axes, part: xr.Dataset, close: float) -> None:
    for end, ls in (("l1", "-"), ("l2", "--")):
        low, middle, high = band(part[f"minimiser_to_{end}"].to_numpy(), axis=1)
        label = rf"argmin $\psi_{{\Delta_0}}$ to {NAMES[end]}"
        ax.plot(part["alpha"], middle, ls, color="k", lw=1, label=label)
        ax.fill_between(part["alpha"], low, high, color="k", alpha=0.15, lw=0)
    for j, lam in enumerate(part["lam"].to_numpy()):
        for end in ("l1", "l2"):
            middle = part[f"flow_to_{end}"].sel(lam=lam).median("data_seed")
            label = _name(lam) if end == "l1" else None
            ax.plot(part["run_alpha"], middle, MARKERS[j], color=f"C{j}", ms=3.5, mfc="none",
                    label=label)  # fmt: skip
    ax.axhline(close, color="0.5", lw=0.8, ls=":", label=f"arrived ({close:g})")
    _log_axes(ax, "relative distance")


NAMES = {"l1": r"least $\ell_1$ norm", "l2": r"least $\ell_2$ norm"}


def _draw_followers(ax: Axes, part: xr.Dataset) -> None:
    for j, lam in enumerate(part["lam"].to_numpy()):
        low, middle, high = band(part["flow_to_minimiser"].sel(lam=lam).to_numpy(), axis=1)
        ax.plot(part["run_alpha"], middle, f"{MARKERS[j]}-", color=f"C{j}", ms=3.5, mfc="none")
        ax.fill_between(part["run_alpha"], low, high, color=f"C{j}", alpha=0.15, lw=0)
    _log_axes(ax, r"limit to argmin $\psi_{\Delta_0}$, relative")


def _draw_exponents(ax: Axes, part: xr.Dataset) -> None:
    predicted, measured = part["predicted_exponent"], part["exponent"]
    top = 1.1 * float(np.nanmax([predicted.max(), measured.max()]))
    ax.plot([0, top], [0, top], color="0.5", lw=0.8, ls=":")
    ax.plot(predicted, measured, "o", ms=3.5, mfc="none", color="k")
    ax.set(xlabel="exponent of the dual certificate", xlim=(0, top), ylim=(0, top))
    ax.set_ylabel(r"exponent of the $\ell_1$ limit in $\alpha$")
    ax.set_title("a point per data set")


def _log_axes(ax: Axes, label: str) -> None:
    ax.set(xscale="log", yscale="log", xlabel=r"initialisation scale $\alpha$", ylabel=label)
    ax.minorticks_off()
