"""The figure of the published settings."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator, StrMethodFormatter

from dln_momentum.plotting import style
from experiments.common import SMALL, band

DESIGNS = {"gaussian": "-", "uncentred": "--"}
MARKERS = "osv^"


def draw(results: xr.Dataset, predicted: xr.DataArray) -> Figure:
    """Large steps above, label noise and the biased start below.

    Args:
        results: of `experiments.published_settings`.
        predicted: the gain by label noise to leading order, over eps.
    """
    with style(), rc_context(SMALL):
        figure = Figure(figsize=(7.2, 4.8), layout="constrained")
        axes = figure.subplots(2, 3)
        _draw_steps(axes[0][0], results, "GD")
        _draw_steps(axes[0][1], results, "SGD")
        _draw_shapes(axes[0][2], results)
        _draw_noise_gain(axes[1][0], results, predicted)
        _draw_noise_error(axes[1][1], results)
        _draw_start(axes[1][2], results)
        betas = enumerate(results["beta"].to_numpy())
        handles = [Line2D([], [], color=f"C{j}", label=rf"$\beta$ = {b:g}") for j, b in betas]
        for design, ls in DESIGNS.items():
            handles.append(
                Line2D([], [], color="k", ls=ls, label=f"{design} design, first two panels")
            )
        figure.legend(handles=handles, ncols=5, loc="outside upper center")
    return figure


def _lines(ax: Axes, x: np.ndarray, values: xr.DataArray, **keys) -> None:
    """Median and quartiles over data sets of values [x, data_seed], where half converged."""
    enough = values.notnull().mean("data_seed").to_numpy() >= 0.5
    x, kept = x[enough], values.to_numpy()[enough]
    if len(x) == 0:
        return
    low, middle, high = band(kept, axis=1)
    (line,) = ax.plot(x, middle, **keys)
    ax.fill_between(x, low, high, color=line.get_color(), alpha=0.15, lw=0)


def _draw_steps(ax: Axes, results: xr.Dataset, method: str) -> None:
    for design, ls in DESIGNS.items():
        part = results.sel(algorithm=method, design=design)
        for j, beta in enumerate(part["beta"].to_numpy()):
            _lines(ax, part["relative_step"].to_numpy(), part["error"].sel(beta=beta),
                   color=f"C{j}", ls=ls, marker=".", ms=3)  # fmt: skip
    step = r"\gamma" if method == "GD" else r"\varepsilon"
    ax.set(xlabel=rf"${step}$ / (2/sharpness)", ylabel=r"$\|\theta_\infty-\theta^*\|/\|\theta^*\|$")
    ax.set_title(f"{method}: error over the step")
    _log(ax, y=True)


def unevenness(part: xr.Dataset) -> xr.DataArray:
    """(on - off)/(|on| + |off|) of the mean gains: 0 if even, 1 if only on the support."""
    on, off = part["gain_on"], part["gain_off"]
    return (on - off) / (abs(on) + abs(off))


def _draw_shapes(ax: Axes, results: xr.Dataset) -> None:
    for ls, method in (("-", "GD"), ("--", "SGD")):
        part = results.sel(algorithm=method, design="gaussian")
        for j, beta in enumerate(part["beta"].to_numpy()):
            _lines(ax, part["relative_step"].to_numpy(), unevenness(part).sel(beta=beta),
                   color=f"C{j}", ls=ls, marker=".", ms=3)  # fmt: skip
        ax.plot([], [], ls, color="k", label=method)
    ax.axhline(0, color="0.5", lw=0.8, ls=":")
    ax.set(xlabel="relative step, as on the left", ylim=(-1.05, 1.05))
    ax.set_ylabel("gain on less off support, relative")
    ax.set_title("where balancedness is lost")
    _log(ax, y=False)
    ax.legend(loc="lower left")


def _draw_noise_gain(ax: Axes, results: xr.Dataset, predicted: xr.DataArray) -> None:
    eps = results["eps"].to_numpy()
    for j, beta in enumerate(results["beta"].to_numpy()):
        _lines(ax, eps, results["noise_excess"].sel(beta=beta), color=f"C{j}",
               marker=MARKERS[j], ms=4 + 2 * (2 - j), mfc="none", lw=0.8)  # fmt: skip
    ax.plot(eps, predicted, "k:", lw=1, label=r"$(2\delta\varepsilon)^2$ a noisy step")
    ax.set(xlabel=r"$\varepsilon = \gamma/(1-\beta)$", ylabel="gain by label noise, off support")
    ax.set_title(r"label noise acts through $\varepsilon$")
    _log(ax, y=True)
    _label_eps(ax, eps)
    ax.legend(loc="upper left")


def _draw_noise_error(ax: Axes, results: xr.Dataset) -> None:
    for amplitude, ls in zip(results["amplitude"].to_numpy(), ("-", "--"), strict=True):
        for j, beta in enumerate(results["beta"].to_numpy()):
            values = results["noise_error"].sel(beta=beta, amplitude=amplitude)
            label = ("label noise" if amplitude else "no label noise") if j == 0 else None
            _lines(ax, results["eps"].to_numpy(), values, color=f"C{j}", ls=ls, marker=".", ms=3,
                   label=label)  # fmt: skip
    ax.set(xlabel=r"$\varepsilon = \gamma/(1-\beta)$")
    ax.set_ylabel(r"$\|\theta_\infty-\theta^*\|/\|\theta^*\|$")
    ax.set_title("SGD with label noise, gaussian")
    _log(ax, y=True)
    _label_eps(ax, results["eps"].to_numpy())
    ax.legend(loc="lower left")


def _draw_start(ax: Axes, results: xr.Dataset) -> None:
    errors = results["start_error"]
    for j, name in enumerate(errors["optimiser"].to_numpy()):
        colour = "k" if name == "gradient flow" else f"C{j - 1}"
        label = str(name).replace("lambda", r"$\lambda$")
        _lines(ax, results["scale"].to_numpy(), errors.sel(start="biased", optimiser=name),
               color=colour, label=label, ls=":" if j == 0 else "-", zorder=3 - j)  # fmt: skip
        plain = errors.sel(start="unbiased", optimiser=name).median("data_seed")
        ax.plot(results["scale"], plain, "+", ms=4, color=colour)
    ax.plot([], [], "k+", ms=4, label=r"$v_0 = 0$, same $\Delta_0$")
    ax.set(xlabel=r"scale $c$ of $u_0 = \phi c$, $v_0 = c/\phi$")
    ax.set_ylabel(r"$\|\theta_\infty-\theta^*\|/\|\theta^*\|$")
    ax.set_title("heavy ball from a biased start")
    _log(ax, y=True)
    handles, labels = ax.get_legend_handles_labels()
    ax.add_artist(ax.legend(handles[1:-1], labels[1:-1], loc="lower right"))
    ax.legend([handles[0], handles[-1]], [labels[0], labels[-1]], loc="upper left")


def _label_eps(ax: Axes, eps: np.ndarray) -> None:
    """Ticks by factors of 2, since eps spans less than a decade."""
    ticks = eps.max() / 2.0 ** np.arange(np.ceil(np.log2(eps.max() / eps.min())) + 1)
    ax.set_xticks(ticks[ticks >= 0.99 * eps.min()])
    ax.xaxis.set_minor_locator(NullLocator())


def _log(ax: Axes, *, y: bool) -> None:
    ax.set(xscale="log", yscale="log" if y else "linear")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_formatter(NullFormatter())
