"""The figure of the published settings."""

from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter, NullLocator, StrMethodFormatter
from omegaconf import DictConfig

from dln_momentum.outputs.plotting import style
from experiments.common import SMALL, band

DESIGNS = {"gaussian": "-", "uncentred": "--"}
MARKERS = "osv^"
NOISE_GAIN = r"$\ln(\Delta_0/\Delta_\infty)$ by label noise," + "\noff the support"


def draw(results: xr.Dataset, predicted: xr.DataArray, config: DictConfig) -> Figure:
    """Large steps above, label noise in the middle, and the biased start below.

    Args:
        results: of `experiments.published_settings`.
        predicted: the gain by label noise to leading order, over eps.
        config: of the experiment.
    """
    with style(), rc_context(SMALL):
        figure = Figure(figsize=(7.2, 7.2), layout="constrained")
        axes = figure.subplots(3, 3)
        _draw_steps(axes[0][0], results, "GD")
        _draw_steps(axes[0][1], results, "SGD")
        _draw_shapes(axes[0][2], results)
        _draw_noise_gain(axes[1][0], results, predicted)
        _draw_noise_error(axes[1][1], results)
        betas = enumerate(results["beta"].to_numpy())
        handles = [Line2D([], [], color=f"C{j}", label=rf"$\beta$ = {b:g}") for j, b in betas]
        for design, ls in DESIGNS.items():
            handles.append(Line2D([], [], color="k", ls=ls, label=f"{design} design in (a), (b)"))
        axes[1][2].legend(handles=handles, loc="center", title="(a) to (e)")
        axes[1][2].axis("off")
        _draw_start(axes[2], results, config)
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
    ax.set_title(r"where $\ln(\Delta_0/\Delta_\infty)$ is gained")
    _log(ax, y=False)
    ax.set_yticks([-1, 0, 1], ["off\nsupport", "alike", "on\nsupport"])
    ax.legend(loc="lower left")


def _draw_noise_gain(ax: Axes, results: xr.Dataset, predicted: xr.DataArray) -> None:
    eps = results["eps"].to_numpy()
    for j, beta in enumerate(results["beta"].to_numpy()):
        _lines(ax, eps, results["noise_excess"].sel(beta=beta), color=f"C{j}",
               marker=MARKERS[j], ms=4 + 2 * (2 - j), mfc="none", lw=0.8)  # fmt: skip
    ax.plot(eps, predicted, "k:", lw=1, label=r"$(2\delta\varepsilon)^2$ a noisy step")
    ax.set(
        xlabel=r"$\varepsilon = \gamma/(1-\beta)$",
        ylabel=NOISE_GAIN,
    )
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
    ax.set_title("SGD with label noise")
    _log(ax, y=True)
    _label_eps(ax, results["eps"].to_numpy())
    ax.legend(loc="lower left")


RIVALS = {"GD": ("C0", "o-"), "heavy ball": ("C2", "^-")}


def _draw_start(axes: np.ndarray, results: xr.Dataset, config: DictConfig) -> None:
    """The limit over the size of the start; the paths over steps and over time."""
    gamma = _both_converge(results, config)
    part = results.sel(phi=config.lyu.judged_phi, gamma=gamma)
    largest = part.sel(xi=config.lyu.xi[-1])
    steps = results["compared_step"].to_numpy()
    eps = gamma / (1 - config.lyu.beta)
    limit, by_step, by_time = axes
    _lines(limit, results["xi"].to_numpy(), part["start_flow_error"], color="k", ls=":",
           label="gradient flow")  # fmt: skip
    for name, (colour, dashes) in RIVALS.items():
        look = {"color": colour, "marker": dashes[0], "ms": 3}
        beta = config.lyu.beta if name == "heavy ball" else 0
        one, label = largest.sel(rival=name), rf"{name}, $\beta$ = {beta:g}"
        _lines(limit, results["xi"].to_numpy(), part["start_error"].sel(rival=name), label=label,
               **look)  # fmt: skip
        _lines(by_step, steps, one["start_error_at_equal_steps"], label=label, **look)
        _lines(by_time, steps * eps, one["start_error_at_equal_time"], label=label, **look)
    limit.set(xlabel=r"$\Sigma_i c_i^2$ of the start")
    limit.set_ylabel(r"$\|\theta_\infty-\theta^*\|/\|\theta^*\|$")
    limit.set_title(rf"start $\phi$ = {config.lyu.judged_phi:g}, $\gamma$ = {gamma:g}")
    by_step.set(xlabel="step $k$", ylabel=r"$\|\theta_k-\theta^*\|/\|\theta^*\|$")
    by_time.set(xlabel=r"time $t = k\varepsilon$")
    for ax in (by_step, by_time):
        ax.set_title(rf"$\Sigma_i c_i^2$ = {config.lyu.xi[-1]:g}")
    for ax in axes:
        _log(ax, y=False)
        ax.set_ylim(bottom=0)
    limit.legend(loc="upper left")


def _both_converge(results: xr.Dataset, config: DictConfig) -> float:
    """The largest step size at which both methods converge from every start on a majority."""
    errors = results["start_error"].sel(phi=config.lyu.judged_phi)
    share = errors.notnull().mean("data_seed").min(("rival", "xi")).to_numpy()
    usable = np.flatnonzero(share >= config.majority)
    gammas = results["gamma"].to_numpy()
    return float(gammas[usable[-1]] if len(usable) else gammas[0])


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
