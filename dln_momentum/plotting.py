"""Figures, in one style: colour-blind-safe colours, labelled axes, nothing hidden by a legend."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLE = Path(__file__).with_name("dln.mplstyle")


def style() -> AbstractContextManager[None]:
    """The package's matplotlib style, as a context."""
    return mpl.rc_context(fname=STYLE)


def save(figure: Figure, path: Path) -> None:
    """Save a figure in the package's style, undated, so that the same numbers give one file."""
    # which tells every glyph that it embeds into a .pdf
    logging.getLogger("fontTools").setLevel(logging.WARNING)
    undated = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
    # colours of the cycle are looked up when the figure is drawn
    with style():
        figure.savefig(path, metadata=undated)


def overview(history: xr.Dataset, summary: Mapping[str, Any]) -> Figure:
    """One run on one page: loss, Delta_k, S_+-, distances to the minimisers, and theta.

    Args:
        history: the dataset of `History` for one run, with ``minimizer`` [coordinate] and, where
            it is known, ``theta_star``.
        summary: the run's summary.
    """
    with style():
        figure = Figure(figsize=(12, 6.5), layout="constrained")
        axes = figure.subplots(2, 3).flat
        _loss(axes[0], history)
        _balancedness(axes[1], history)
        _path_sums(axes[2], history)
        _distances(axes[3], history)
        _identities(axes[4], history)
        _theta(axes[5], history)
        figure.suptitle(
            rf"{summary['data']}: {summary['status']}, $\gamma$ = {summary['gamma']:g}, "
            rf"$\beta$ = {summary['beta']:g}, $\lambda$ = {summary['lambda']:.3g}"
        )
        return figure


def _steps(history: xr.Dataset) -> np.ndarray:
    """Recorded steps as an axis that shows step 0 on a log scale."""
    return np.maximum(history["step"].to_numpy(), 0.5)


def _log_axes(ax: Axes, ylabel: str) -> None:
    ax.set(xscale="log", yscale="log", xlabel="step k (0 drawn at 1/2)", ylabel=ylabel)


def _loss(ax: Axes, history: xr.Dataset) -> None:
    ax.plot(_steps(history), history["train_loss"], label="training loss")
    if np.isfinite(history["test_error"]).any():
        ax.plot(_steps(history), history["test_error"], label="test error")
    if np.isfinite(history["recovery_error"]).any():
        ax.plot(_steps(history), history["recovery_error"], label=r"$\|\theta_k - \theta^*\|$")
    _log_axes(ax, "loss and errors")
    ax.legend()


def _balancedness(ax: Axes, history: xr.Dataset) -> None:
    ax.plot(_steps(history), history["balancedness"], color="C0", alpha=0.35, lw=0.8)
    ax.plot(
        _steps(history), history["balancedness"].median("coordinate"), color="k", label="median"
    )
    _log_axes(ax, r"balancedness $\Delta_{k,i}$, a line for each $i$")
    ax.legend()


def _path_sums(ax: Axes, history: xr.Dataset) -> None:
    for name, label, colour in (("s_plus", "$S_+$", "C0"), ("s_minus", "$S_-$", "C1")):
        ax.plot(_steps(history), history[name], color=colour, alpha=0.4, lw=0.8)
        ax.plot([], [], color=colour, label=label)
    sums = np.concatenate([history["s_plus"], history["s_minus"]])
    ax.set(xscale="log", xlabel="step k (0 drawn at 1/2)", ylabel=r"path sums $S_{\pm,i}$")
    if np.isfinite(sums).all():
        ax.set_yscale("symlog", linthresh=max(1e-6, 1e-3 * float(np.abs(sums).max())))
        if sums.min() >= 0:
            ax.set_ylim(bottom=0)
    ax.legend()


def _distances(ax: Axes, history: xr.Dataset) -> None:
    labels = {
        "distance_to_minimizer": r"to argmin $D_{\psi_{\Delta_k}}(\cdot, \tilde\theta_0)$",
        "distance_to_limit": r"to argmin $D_{\psi_{\Delta_\infty}}(\cdot, \tilde\theta_0)$",
        "own_level_set_distance": r"to the same, over $X\theta = X\theta_k$",
    }
    # the first two coincide once Delta_k has settled
    for (name, label), dashes in zip(labels.items(), ("-", (0, (2, 2)), "-"), strict=True):
        shown = history[name].where(history[name] > 0)
        ax.plot(_steps(history), shown, ls=dashes, label=label)
    _log_axes(ax, r"distance of $\theta_k$")
    ax.legend()


def _identities(ax: Axes, history: xr.Dataset) -> None:
    labels = {
        "path_sum_balancedness_error": r"$\Delta_k$ against $\Delta_0 e^{-(S_+ + S_-)}$",
        "path_identity_error": "the same with boundary terms",
        "kkt_residual": "KKT residual",
    }
    for name, label in labels.items():
        ax.plot(_steps(history), history[name].where(history[name] > 0), label=label)
    _log_axes(ax, "relative error of an identity")
    ax.legend()


def _theta(ax: Axes, history: xr.Dataset) -> None:
    ax.plot(history["theta"][-1], "o", ms=5, label=r"$\theta_K$")
    ax.plot(history["minimizer"], "+", ms=9, color="k", label="minimiser")
    if "theta_star" in history:
        ax.plot(history["theta_star"], "x", ms=6, color="C1", label=r"$\theta^*$")
    ax.axhline(0, color="0.8", lw=0.8, zorder=0)
    ax.set(xlabel="coordinate i", ylabel=r"$\theta_i$")
    ax.legend()
