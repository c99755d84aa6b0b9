"""Figures, in one style: colour-blind-safe colours, labelled axes, nothing hidden by a legend."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatterSciNotation, NullLocator

from dln_momentum.outputs.report import method_label

STYLE = Path(__file__).with_name("dln.mplstyle")

MOST_LINES = 200
"""Maximum number of coordinates plotted, evenly spaced."""

OVERVIEW_SIZE = (12, 6.5)
PLACES = {
    "left": 0.058, "right": 0.995, "bottom": 0.07, "top": 0.94, "wspace": 0.26, "hspace": 0.22,
}  # fmt: skip
"""Where the axes of the overview are. They have one size for all runs, so that figures can be laid
over each other, and finding places that depend on the labels took as long as all of the drawing."""

NARROW = 2
"""The largest over the smallest value below which an axis is linear."""

LARGEST = 1e200
"""Values above it, or below its inverse on a log axis, are not drawn: margins would overflow."""


def is_geometric(values: np.ndarray) -> bool:
    """Whether sorted values are spaced by factors rather than by differences.

    >>> is_geometric(np.geomspace(0.001, 0.1, 5)), is_geometric(np.linspace(0.5, 0.98, 5))
    (True, False)
    """
    if values[0] <= 0 or len(values) < 3:
        return False
    unevenness = [
        steps.std() / steps.mean() for steps in (np.diff(np.log(values)), np.diff(values))
    ]
    return bool(unevenness[0] < unevenness[1])


def spans_a_decade(values: np.ndarray) -> bool:
    """Whether the values are positive, where there are any, and differ by a factor of ten.

    >>> spans_a_decade(np.array([1.0, 20.0, np.nan])), spans_a_decade(np.array([0.0, 20.0]))
    (True, False)
    """
    known = values[np.isfinite(values)]
    return bool(known.size and known.min() > 0 and known.max() >= 10 * known.min())


def style() -> AbstractContextManager[None]:
    """The package's matplotlib style, as a context."""
    return mpl.rc_context(fname=STYLE)


@dataclass(frozen=True)
class _Notation:
    """How the axis and the exponents of a run are written: in steps, or in continuous time."""

    axis: str
    index: str
    label: str
    exponent: str
    exponents: tuple[str, str]
    errors: tuple[str, str]


STEPS = _Notation(
    "step", "k", "step k (0 drawn at 1/2)", "S", ("s_plus", "s_minus"),
    ("path_sum_balancedness_error", "path_identity_error"),
)  # fmt: skip
TIME = _Notation(
    "time", "t", "time t (0 drawn at the left)", "I", ("i_plus", "i_minus"),
    ("path_integral_balancedness_error", "path_integral_identity_error"),
)  # fmt: skip


def overview(history: xr.Dataset, summary: Mapping[str, Any]) -> Figure:
    """One run or flow on one page: loss, Delta, S_+- or I_+-, distances to minimisers, and theta.

    Args:
        history: of one run over steps or of one flow over times, as ``dln-train`` and ``dln-flow``
            write it, with ``minimizer`` [coordinate] and, where it is known, ``theta_star``.
        summary: the run's summary.
    """
    with style():
        figure = Figure(figsize=OVERVIEW_SIZE)
        axes = figure.subplots(2, 3, gridspec_kw=PLACES).flat
        _loss(axes[0], history)
        _balancedness(axes[1], history)
        _path_sums(axes[2], history)
        if "l1_margin" in history:
            _margins(axes[3], history, summary)
        else:
            _distances(axes[3], history)
        _identities(axes[4], history)
        _theta(axes[5], history)
        rates = [rf"$\lambda$ = {summary['lam']:.3g}"]
        if "gamma" in summary:
            pair = (rf"$\{name}$ = {summary[name]:g}" for name in ("gamma", "beta"))
            rates = [*pair, *rates]
        if label := method_label(summary):
            rates.append(label)
        figure.suptitle(f"{summary['data']}: {summary['status']}, {', '.join(rates)}", y=0.99)
        return figure


RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
"""Digits of an exponent in Unicode."""


class Powers(LogFormatterSciNotation):
    """Labels of a log axis in Unicode; each mathematical text takes matplotlib 5 ms to parse."""

    def __call__(self, x: float, pos: int | None = None) -> str:
        """The label of a value; empty for none."""
        text = super().__call__(x, pos)
        power = re.fullmatch(r"\$\\mathdefault\{(-?)(?:(\d+)\\times)?10\^\{(-?\d+)\}\}\$", text)
        if power is None:
            return text
        sign, factor, exponent = power.groups()
        factor = f"{factor}×" if factor else ""
        return f"{sign.replace('-', '−')}{factor}10{exponent.translate(RAISED)}"


def _logarithmic(axis: Axis) -> None:
    """Powers of ten in Unicode, and small ticks between them where there are few."""
    axis.set_major_formatter(Powers())
    low, high = axis.get_view_interval()
    if low > 0 and high / low > 100:
        # a tick costs as much as a line
        axis.set_minor_locator(NullLocator())


def _notation(history: xr.Dataset) -> _Notation:
    return TIME if "time" in history.dims else STEPS


def _axis(history: xr.Dataset) -> np.ndarray:
    """Recorded steps or times as an axis that shows 0 on a log scale."""
    values = history[_notation(history).axis].to_numpy()
    positive = values[values > 0]
    return np.maximum(values, positive.min() / 2 if positive.size else 0.5)


def _log_axes(ax: Axes, history: xr.Dataset, ylabel: str) -> None:
    ax.set(xscale="log", xlabel=_notation(history).label, ylabel=ylabel)
    _logarithmic(ax.xaxis)
    drawn = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in ax.lines])
    drawn = drawn[np.isfinite(drawn)]
    if drawn.size and drawn.max() < NARROW * drawn.min():
        # looks the same, with shorter labels
        ax.ticklabel_format(axis="y", scilimits=(-2, 4), useOffset=False)
    elif drawn.size:
        # an empty axis cannot be logarithmic: nothing is positive where a run starts converged
        ax.set_yscale("log")
        _logarithmic(ax.yaxis)


def _positive(values: xr.DataArray) -> xr.DataArray:
    """What a log axis can show."""
    return values.where((values > 1 / LARGEST) & (values < LARGEST))


def _lines(values: xr.DataArray) -> xr.DataArray:
    every = -(-values.sizes["coordinate"] // MOST_LINES)
    return values.isel(coordinate=slice(None, None, every))


def _loss(ax: Axes, history: xr.Dataset) -> None:
    k = _notation(history).index
    labels = {
        "train_loss": "training loss",
        "energy": r"energy $F + \frac{\lambda}{2} \|\dot w\|^2$",
        "test_error": "test error",
        "recovery_error": rf"$\|\theta_{k} - \theta^*\|$",
    }
    for name, label in labels.items():
        if name in history and np.isfinite(history[name]).any():
            # all of the energy is loss once a flow is slow
            dashes = "--" if name == "energy" else "-"
            ax.plot(_axis(history), _positive(history[name]), ls=dashes, label=label)
    _log_axes(ax, history, "loss and errors")
    ax.legend()


def _balancedness(ax: Axes, history: xr.Dataset) -> None:
    values, k = _positive(history["balancedness"]), _notation(history).index
    ax.plot(_axis(history), _lines(values), color="C0", alpha=0.35, lw=0.8)
    ax.plot(_axis(history), values.median("coordinate"), color="k", label="median")
    _log_axes(ax, history, rf"balancedness $\Delta_{{{k},i}}$, a line per coordinate")
    ax.legend()


def _path_sums(ax: Axes, history: xr.Dataset) -> None:
    notation = _notation(history)
    for name, sign, colour in zip(notation.exponents, "+-", ("C0", "C1"), strict=True):
        ax.plot(_axis(history), _lines(history[name]), color=colour, alpha=0.4, lw=0.8)
        ax.plot([], [], color=colour, label=f"${notation.exponent}_{sign}$")
    sums = np.concatenate([history[name] for name in notation.exponents])
    kind = "sums" if notation is STEPS else "integrals"
    ax.set(
        xscale="log",
        xlabel=notation.label,
        ylabel=rf"path {kind} ${notation.exponent}_{{\pm,i}}$",
    )
    _logarithmic(ax.xaxis)
    if np.isfinite(sums).all():
        ax.set_yscale("symlog", linthresh=max(1e-6, 1e-3 * float(np.abs(sums).max())))
        if sums.min() >= 0:
            ax.set_ylim(bottom=0)
    ax.legend()


def _distances(ax: Axes, history: xr.Dataset) -> None:
    k = _notation(history).index
    labels = {
        "distance_to_minimizer": rf"to argmin $D_{{\psi_{{\Delta_{k}}}}}(\cdot, \tilde\theta_0)$",
        "distance_to_limit": r"to argmin $D_{\psi_{\Delta_\infty}}(\cdot, \tilde\theta_0)$",
        "own_level_set_distance": rf"to the same, over $X\theta = X\theta_{k}$",
    }
    # the first two coincide once Delta_k has settled
    for (name, label), dashes in zip(labels.items(), ("-", (0, (2, 2)), "-"), strict=True):
        ax.plot(_axis(history), _positive(history[name]), ls=dashes, label=label)
    _log_axes(ax, history, rf"distance of $\theta_{k}$")
    ax.legend()


def _margins(ax: Axes, history: xr.Dataset, summary: Mapping[str, Any]) -> None:
    """Normalised margins over the largest ones; classification ends at no interpolator."""
    for norm in ("l1", "l2"):
        most = summary.get(f"max_{norm}_margin") or np.nan
        label = rf"$\min_i y_i \langle x_i, \theta_k\rangle / \|\theta_k\|_{norm[1]}$"
        ax.plot(_axis(history), history[f"{norm}_margin"] / most, label=label)
    ax.axhline(1, color="k", lw=0.8, ls="--")
    ax.set(xscale="log", xlabel=_notation(history).label, ylabel="margin / largest margin")
    _logarithmic(ax.xaxis)
    ax.legend()


def _identities(ax: Axes, history: xr.Dataset) -> None:
    notation = _notation(history)
    k, x = notation.index, notation.exponent
    labels = (
        rf"$\Delta_{k}$ against $\Delta_0 e^{{-({x}_+ + {x}_-)}}$",
        "the same with boundary terms",
        "KKT residual",
    )
    names = (*notation.errors, "kkt_residual")
    if all(bool(history[name].isnull().all()) for name in names):
        text = "$S_\\pm$ was read off the gradients:\nthe identities hold by construction"
        ax.text(0.5, 0.5, text, transform=ax.transAxes, ha="center", va="center")
        ax.set_axis_off()
        return
    for name, label in zip(names, labels, strict=True):
        ax.plot(_axis(history), _positive(history[name]), label=label)
    _log_axes(ax, history, "relative error of an identity")
    ax.legend()


def _theta(ax: Axes, history: xr.Dataset) -> None:
    end = "K" if _notation(history) is STEPS else "T"
    theta = history["theta"][-1]
    ax.plot(theta.where(abs(theta) < LARGEST), "o", ms=5, label=rf"$\theta_{end}$")
    if bool(history["minimizer"].notnull().any()):
        ax.plot(history["minimizer"], "+", ms=9, color="k", label="minimiser")
    if "theta_star" in history:
        ax.plot(history["theta_star"], "x", ms=6, color="C1", label=r"$\theta^*$")
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.set(xlabel="coordinate i", ylabel=r"$\theta_i$")
    ax.legend()
