"""Heat maps over two axes of a sweep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from dln_momentum.engine import Status
from dln_momentum.outputs.sweep_levels import draw_levels
from dln_momentum.sweeps.axes import geometric

NO_VALUE = "0.82"
STATUS_COLOURS = {
    Status.RUNNING: "#000000",
    Status.CONVERGED: "#009E73",
    Status.DIVERGED: "#D55E00",
    Status.MAX_STEPS: "#E69F00",
    Status.INVALID: NO_VALUE,
}
WIDE = 20.0
"""Positive values that span more than this factor are shown on a log scale."""


def draw_map(
    ax: Axes, results: xr.Dataset, values: xr.DataArray, drawn: Sequence[str], *, around_one: bool
) -> None:
    """One quantity as colours; grey where there is none.

    Args:
        ax: where to draw.
        results: the sweep, sorted by the drawn axes.
        values: the quantity over the grid.
        drawn: the two axes.
        around_one: whether the colours are to tell smaller than 1 from larger.
    """
    plane = _plane(values.median(_others(values, drawn)), drawn)
    ax.set_facecolor(NO_VALUE)
    ax.grid(False)
    norm = _norm(plane, around_one=around_one)
    mesh = ax.pcolormesh(
        *_edges(results, drawn),
        plane,
        norm=norm,
        cmap="RdBu_r" if around_one else None,
        rasterized=True,
    )
    draw_levels(ax, results, drawn)
    assert isinstance(ax.figure, Figure)
    if norm is not None:
        bar = ax.figure.colorbar(mesh, ax=ax, extend="both" if around_one else "neither")
        if around_one and norm.vmax is not None and norm.vmax < WIDE:
            _plain_ticks(bar)


def draw_status(ax: Axes, results: xr.Dataset, drawn: Sequence[str]) -> None:
    """How the runs ended, the commonest ending where several share a place."""
    status = results["status"]
    shares = xr.concat(
        [(status == code).mean(_others(status, drawn)) for code in Status], dim="ending"
    )
    ax.set_title("status", fontsize=9)
    ax.grid(False)
    colours = ListedColormap([STATUS_COLOURS[code] for code in Status])
    norm = BoundaryNorm(np.arange(len(Status) + 1) - 0.5, len(Status))
    commonest = _plane(shares.argmax("ending"), drawn)
    ax.pcolormesh(*_edges(results, drawn), commonest, cmap=colours, norm=norm, rasterized=True)
    draw_levels(ax, results, drawn)
    present = [code for code in Status if (commonest == code).any()]
    ax.legend(
        handles=[Patch(color=STATUS_COLOURS[code], label=code.label) for code in present],
        loc="upper center", bbox_to_anchor=(0.5, -0.16), ncols=len(present),
    )  # fmt: skip


def _others(values: xr.DataArray, drawn: Sequence[str]) -> list[str]:
    return [str(name) for name in values.dims if name not in drawn]


def _plane(values: xr.DataArray, drawn: Sequence[str]) -> np.ndarray:
    """[second axis, first axis], as matplotlib draws rows upwards."""
    return values.transpose(drawn[1], drawn[0]).to_numpy()


def _edges(results: xr.Dataset, drawn: Sequence[str]) -> list[np.ndarray]:
    """The borders of the cells, half-way between the values in the spacing of the axis."""
    return [_borders(results[name].to_numpy().astype(float)) for name in drawn]


def _borders(values: np.ndarray) -> np.ndarray:
    logarithmic = geometric(values)
    centres = np.log(values) if logarithmic else values
    middle = (centres[1:] + centres[:-1]) / 2
    first, last = centres[0] - (middle[0] - centres[0]), centres[-1] + (centres[-1] - middle[-1])
    borders = np.concatenate([[first], middle, [last]])
    return np.exp(borders) if logarithmic else borders


def _norm(plane: np.ndarray, *, around_one: bool) -> Normalize | None:
    finite = plane[np.isfinite(plane)]
    if finite.size == 0:
        return None
    if around_one:
        # a few extreme runs at the edge of divergence must not take all the colours
        low, high = np.quantile(finite, [0.01, 0.99])
        reach = max(high, 1 / max(low, 1e-3), 1.1)
        return LogNorm(1 / reach, reach)
    if finite.min() > 0:
        return LogNorm() if finite.max() > WIDE * finite.min() else Normalize()
    return SymLogNorm(1.0) if finite.min() == 0 and finite.max() > WIDE else Normalize()


def _plain_ticks(bar: Colorbar) -> None:
    """Round numbers in decimal notation on a short log scale."""
    low, high = bar.norm.vmin, bar.norm.vmax
    assert low is not None
    assert high is not None
    ticks = [tick for tick in MaxNLocator(6).tick_values(low, high) if low <= tick <= high]
    bar.set_ticks(ticks, labels=[f"{tick:g}" for tick in ticks])
    bar.ax.minorticks_off()
