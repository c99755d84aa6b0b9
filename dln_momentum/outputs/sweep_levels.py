"""Lines over a map of a sweep: levels of lambda and lambda_KS, and the edge of what converged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib import patheffects
from matplotlib.axes import Axes

from dln_momentum.engine import Status
from dln_momentum.rates import PAIRS, gamma_beta, lam_ks_of, lam_of
from dln_momentum.sweeps.axes import MOMENTUM, geometric


def draw_levels(ax: Axes, results: xr.Dataset, drawn: Sequence[str]) -> None:
    """The edge of what converged, and level lines of lambda and lambda_KS."""
    converged = (results["status"] == Status.CONVERGED).astype(float)
    others = [name for name in converged.dims if name not in drawn]
    share = converged.mean(others).transpose(*reversed(drawn)).to_numpy()
    if share.min() < 0.5 < share.max():
        centres = [results[name].to_numpy() for name in drawn]
        ax.contour(*centres, share, levels=[0.5], colors="k", linewidths=0.9)
    mesh, levels = _lambdas(results, drawn)
    shadow: Sequence[Any] = [patheffects.withStroke(linewidth=1.8, foreground="0.3")]
    for name, (values, decades) in levels.items():
        dashes = "solid" if name == "lam" else "dashed"
        lines = ax.contour(
            *mesh, values, levels=decades, colors="w", linewidths=0.8, linestyles=dashes
        )
        lines.set_path_effects(list(shadow))
        if name == "lam":
            places = [place for level in lines.levels for place in _middle(mesh, values, level)]
            ax.clabel(lines, fmt=lambda level: rf"$\lambda$ = {level:g}", fontsize=7, manual=places)
            for label in lines.labelTexts:
                label.set_path_effects(list(shadow))


def level_names(results: xr.Dataset, drawn: Sequence[str]) -> list[str]:
    """Which of lam and lam_ks have level lines over the drawn axes."""
    return list(_lambdas(results, drawn)[1])


def _lambdas(
    results: xr.Dataset, drawn: Sequence[str]
) -> tuple[list[np.ndarray], dict[str, tuple[np.ndarray, np.ndarray]]]:
    """A fine mesh; lambda and lambda_KS on it and their levels, where it determines them."""
    mesh = list(np.meshgrid(*(_fine(results[name].to_numpy()) for name in drawn)))
    fine = dict(zip(drawn, mesh, strict=True))
    known = {
        name: fine.get(name, results[name].to_numpy())
        for name in MOMENTUM
        if results[name].ndim == 0 or results[name].dims == (name,)
    }
    pair = next((pair for pair in PAIRS if set(pair) <= set(known)), ())
    swept = [name for name in pair if results[name].ndim]
    if not swept or not set(swept) <= set(drawn):
        return mesh, {}
    gamma, beta = gamma_beta(**{name: known[name] for name in pair})
    beta = np.where((beta >= 0) & (beta < 1), beta, np.nan)
    found = {"lam": lam_of(gamma, beta), "lam_ks": lam_ks_of(gamma, beta)}
    # only levels that some run has: towards an invalid beta = 1 there is no end of them
    exists = results["status"] != Status.INVALID
    decades = {name: _decades(results[name].where(exists).to_numpy()) for name in found}
    return mesh, {
        name: (np.broadcast_to(values, mesh[0].shape), decades[name])
        for name, values in found.items()
        if name not in drawn and len(decades[name])
    }


def _middle(
    mesh: Sequence[np.ndarray], values: np.ndarray, level: float
) -> Iterator[tuple[float, float]]:
    """The point of a level line that is nearest to the middle of the map, if it is well inside."""
    rows, columns = (np.linspace(-1, 1, size) for size in values.shape)
    away = np.hypot(rows[:, None], columns[None, :])
    near = np.abs(np.log(values / level)) < 0.1
    if not near.any():
        return
    place = np.unravel_index(np.where(near, away, np.inf).argmin(), values.shape)
    if max(abs(rows[place[0]]), abs(columns[place[1]])) < 0.93:
        yield float(mesh[0][place]), float(mesh[1][place])


def _fine(values: np.ndarray) -> np.ndarray:
    """Many values between the least and the greatest, in the spacing of the axis."""
    space = np.geomspace if geometric(values) else np.linspace
    return space(values[0], values[-1], 200)


def _decades(plane: np.ndarray) -> np.ndarray:
    """The powers of ten strictly inside the range of the values."""
    if not np.isfinite(plane).any():
        return np.array([])
    low, high = (np.log10(extreme(plane)) for extreme in (np.nanmin, np.nanmax))
    return 10.0 ** np.arange(np.floor(low) + 1, np.ceil(high))
