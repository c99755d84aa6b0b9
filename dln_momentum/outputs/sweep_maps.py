"""Heat maps over two axes of a sweep, with level lines of lambda and lambda_KS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from matplotlib import patheffects, rcParams
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap, LogNorm, Normalize, SymLogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from dln_momentum.engine import Status
from dln_momentum.outputs.drawing import WIDE, set_scale, short_log_ticks
from dln_momentum.outputs.plotting import Powers, is_geometric
from dln_momentum.rates import PAIRS, RATES, gamma_beta, lam_ks_of, lam_of

NO_VALUE = "0.82"
STATUS_COLOURS = {
    Status.RUNNING: "#000000",
    Status.CONVERGED: "#009E73",
    Status.DIVERGED: "#D55E00",
    Status.MAX_STEPS: "#E69F00",
    Status.INVALID: NO_VALUE,
}


class Levels(NamedTuple):
    """lambda or lambda_KS over the two drawn axes, and where it has level lines."""

    values: xr.DataArray
    """on a fine mesh over the axes, that of y first"""
    powers: np.ndarray
    """the powers of ten that some run has"""


def draw_map(
    ax: Axes,
    results: xr.Dataset,
    plane: xr.DataArray,
    drawn: Sequence[str],
    levels: Mapping[str, Levels],
    *,
    around_one: bool,
) -> None:
    """One quantity as colours; grey where there is none.

    Args:
        ax: where to draw.
        results: the sweep, sorted by the drawn axes.
        plane: the quantity over the drawn axes.
        drawn: the two axes.
        levels: `lambda_levels`, the same for all maps of the sweep.
        around_one: whether the colours are to tell smaller than 1 from larger.
    """
    norm = _norm(plane.to_numpy(), around_one=around_one)
    mesh = _draw_cells(
        ax, plane, drawn, norm=norm, cmap="RdBu_r" if around_one else rcParams["image.cmap"]
    )
    _draw_lines(ax, results, drawn, levels)
    assert isinstance(ax.figure, Figure)
    if norm is not None:
        short = around_one and norm.vmax is not None and norm.vmax < WIDE
        ticks: dict[str, Any] = {"ticks": MaxNLocator(6), "format": "%g"} if short else {}
        extend = "both" if around_one else "neither"
        bar = ax.figure.colorbar(mesh, ax=ax, extend=extend, **ticks)
        bar.ax.minorticks_off()
        if isinstance(norm, SymLogNorm):
            bar.ax.yaxis.set_major_formatter(Powers())
        elif isinstance(norm, LogNorm) and not short:
            short_log_ticks(bar.ax, "y", *bar.mappable.get_clim())


def draw_status(
    ax: Axes, results: xr.Dataset, drawn: Sequence[str], levels: Mapping[str, Levels]
) -> None:
    """How the runs ended, the commonest ending where several share a place."""
    status = results["status"]
    others = [name for name in status.dims if name not in drawn]
    shares = [(status == code.label).mean(others) for code in Status]
    commonest = xr.concat(shares, dim="ending").argmax("ending")
    ax.set_title("status", fontsize=9)
    colours = ListedColormap([STATUS_COLOURS[code] for code in Status])
    norm = BoundaryNorm(np.arange(len(Status) + 1) - 0.5, len(Status))
    _draw_cells(ax, commonest, drawn, cmap=colours, norm=norm)
    _draw_lines(ax, results, drawn, levels)
    hatch(ax, (xr.concat(shares, dim="ending") > 0).sum("ending") > 1, drawn)
    present = [code for code in Status if (commonest == code).any()]
    assert isinstance(ax.figure, Figure)
    ax.figure.legend(  # below the labels of the axis, however long these are
        handles=[Patch(color=STATUS_COLOURS[code], label=code.label) for code in present],
        loc="outside lower right", ncols=len(present),
    )  # fmt: skip


def hatch(ax: Axes, places: xr.DataArray, drawn: Sequence[str]) -> None:
    """Hatch some places of a map, boolean over the drawn axes."""
    if not places.any():
        return
    x, y = drawn
    edges = [_edges(places[name].to_numpy(), scale) for name, scale in
             ((x, ax.get_xscale()), (y, ax.get_yscale()))]  # fmt: skip
    cells = np.ma.masked_array(np.zeros(places.shape), ~places.to_numpy())
    # the hatches have the colour of the edges, which are not drawn
    ax.pcolor(*edges, cells.T, hatch="/////", facecolor="none", edgecolor="k", lw=0, alpha=0.45)


def lambda_levels(results: xr.Dataset, drawn: Sequence[str]) -> dict[str, Levels]:
    """Those of lam and lam_ks that have a level line over the drawn axes, with their lines."""
    # only levels that some run has: towards an invalid beta = 1 there is no end of them
    exists = results["status"] != Status.INVALID.label
    found = {
        name: Levels(values.transpose(*reversed(drawn)), _decades(results[name].where(exists)))
        for name, values in _lambdas(results, drawn).items()
    }
    return {name: levels for name, levels in found.items() if len(levels.powers)}


def _draw_cells(ax: Axes, plane: xr.DataArray, drawn: Sequence[str], **look: Any) -> Any:
    """Cells whose borders are half-way between the values, in the spacing of the axis."""
    ax.set_facecolor(NO_VALUE)
    ax.grid(False)
    scales: dict[str, Any] = {"xscale": ax.get_xscale(), "yscale": ax.get_yscale()}
    mesh = plane.plot.pcolormesh(
        x=drawn[0], y=drawn[1], ax=ax, add_colorbar=False, add_labels=False, rasterized=True,
        **scales, **look,
    )  # fmt: skip
    for axis, name in zip("xy", drawn, strict=True):  # which has set the scales anew
        set_scale(ax, axis, plane[name])
    return mesh


def _draw_lines(
    ax: Axes, results: xr.Dataset, drawn: Sequence[str], levels: Mapping[str, Levels]
) -> None:
    """The edge of what converged, and level lines of lambda and lambda_KS."""
    x, y = drawn
    converged = results["status"] == Status.CONVERGED.label
    share = converged.mean([name for name in converged.dims if name not in drawn])
    if share.min() < 0.5 < share.max():
        half = [0.5]
        share.plot.contour(
            x=x, y=y, ax=ax, levels=half, colors="k", linewidths=0.9, add_labels=False
        )
    shadow: Sequence[Any] = [patheffects.withStroke(linewidth=1.8, foreground="0.3")]
    for name, (fine, powers) in levels.items():
        lines = ax.contour(
            fine[x], fine[y], fine, levels=powers, colors="w", linewidths=0.8,
            linestyles="solid" if name == "lam" else "dashed",
        )  # fmt: skip
        lines.set_path_effects(list(shadow))
        if name == "lam":
            places: Any = list(_label_places(ax, lines.allsegs))
            shown = ax.clabel(lines, fmt=lambda level: f"λ = {level:g}", fontsize=7, manual=places)
            for label in shown:
                label.set_path_effects(list(shadow))


def _label_places(ax: Axes, lines: Sequence[Sequence[np.ndarray]]) -> Iterator[np.ndarray]:
    """The point of each level line that is nearest to the middle of the map, if well inside."""
    ax.autoscale_view()
    for points in (np.concatenate(line) for line in lines if line):
        from_middle = abs((ax.transData - ax.transAxes).transform(points) - 0.5).max(-1)
        if from_middle.min() < 0.46:
            yield points[from_middle.argmin()]


def _lambdas(results: xr.Dataset, drawn: Sequence[str]) -> dict[str, xr.DataArray]:
    """lambda and lambda_KS on a fine mesh over the drawn axes, if these determine them."""
    present = [name for name in RATES if name in results.coords]
    known = {name: results[name] for name in present if results[name].dims in ((), (name,))}
    pair = next((pair for pair in PAIRS if set(pair) <= set(known)), ())
    if not {name for name in pair if known[name].ndim} & set(drawn) or any(
        known[name].ndim and name not in drawn for name in pair
    ):
        return {}
    mesh = {name: _fine(results[name]) for name in drawn}
    gamma, beta = gamma_beta(**{name: mesh.get(name, known[name]) for name in pair})
    beta = xr.where((beta >= 0) & (beta < 1), beta, np.nan)
    found = {"lam": lam_of(gamma, beta), "lam_ks": lam_ks_of(gamma, beta)}
    ones = mesh[drawn[0]] * mesh[drawn[1]] * 0 + 1
    return {name: value * ones for name, value in found.items() if name not in drawn}


def _edges(centres: np.ndarray, scale: str) -> np.ndarray:
    """The borders of cells, half-way between sorted centres in the spacing of the axis."""
    values = np.log(centres) if scale == "log" else centres.astype(float)
    half = np.diff(values) / 2
    edges = np.concatenate([values[:1] - half[:1], values[:-1] + half, values[-1:] + half[-1:]])
    return np.exp(edges) if scale == "log" else edges


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


def _fine(axis: xr.DataArray) -> xr.DataArray:
    """Many values between the least and the greatest, in the spacing of the axis."""
    space = np.geomspace if is_geometric(axis.to_numpy()) else np.linspace
    values = space(float(axis[0]), float(axis[-1]), 200)
    return xr.DataArray(values, {axis.name: values}, [axis.name])


def _decades(values: xr.DataArray) -> np.ndarray:
    """The powers of ten strictly inside the range of the values."""
    if not np.isfinite(values).any():
        return np.array([])
    low, high = np.log10(float(values.min())), np.log10(float(values.max()))
    return 10.0 ** np.arange(np.floor(low) + 1, np.ceil(high))
