"""What several figures share: bands over runs, scales and ticks of axes, colours, names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps, rcParams
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from dln_momentum.outputs.plotting import LARGEST, RAISED, Powers, is_geometric
from dln_momentum.outputs.quantities import QUANTITIES

WIDE = 20.0
"""Positive values that span more than this factor are shown on a log scale."""

CHARACTER = 0.1
"""Width in inches of one of a tick label, with its part of the gap to the next label."""


def axis_label(name: str) -> str:
    r"""A quantity, or the key of a config that is named like one, in words and as its symbol.

    >>> axis_label("beta"), axis_label("optimizer.lam"), axis_label("trainer.max_steps")
    ('momentum $\\beta$', '$\\lambda$', 'trainer.max_steps')
    """
    row = QUANTITIES.get(name) or QUANTITIES.get(name.rpartition(".")[2])
    if row is None:
        return name
    if row.name in ("lam", "eps", "lam_ks"):
        return f"${row.symbol}$"
    words = row.long_name if len(row.long_name) <= 40 else row.name.replace("_", " ")
    return f"{words} ${row.symbol}$" if row.symbol else words


def set_scale(ax: Axes, axis: str, values: Any) -> None:
    """A log axis where the different values are spaced by factors, with ticks that have room.

    On a linear axis a few values that lie well apart have a tick each, if there is room for it.
    """
    values = np.unique(np.asarray(values, dtype=float))
    few = 2 <= len(values) <= 8 and np.diff(values).min() > np.ptp(values) / 10
    if len(values) and not is_geometric(values) and few:
        ax.set(**{f"{axis}ticks": values})
        # about as long as those that the axis will have
        if axis == "x" and not have_room(ax, [f"{value:.4g}" for value in values]):
            ax.xaxis.set_major_locator(MaxNLocator(4))
    elif len(values) and is_geometric(values):
        ax.set(**{f"{axis}scale": "log"})
        short_log_ticks(ax, axis, float(values[0]), float(values[-1]))


def have_room(ax: Axes, labels: Sequence[str]) -> bool:
    """Whether labels fit side by side below an axis."""
    return CHARACTER * max(map(len, labels)) * len(labels) <= ax.bbox.width / ax.figure.dpi


def log_if_wide(ax: Axes, axis: str, values: Any) -> None:
    """A log axis where all values are positive and span more than `WIDE`."""
    values = np.asarray(values, dtype=float)
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > WIDE * values.min():
        ax.set(**{f"{axis}scale": "log"})
        short_log_ticks(ax, axis, float(values.min()), float(values.max()))


def short_log_ticks(ax: Axes, axis: str, low: float, high: float) -> None:
    """Ticks of a log axis whose labels have room, and no others: a tick costs as much as a line.

    Below two decades the ticks are at 1 and 3 (below 1.4 at 1, 2 and 5, below one at 1, 2, 3 and 5)
    times powers of ten, and below a factor of two where a linear axis would have them.
    """
    decades = np.log10(high / low)
    which = ax.xaxis if axis == "x" else ax.yaxis
    which.set_minor_locator(NullLocator())
    if decades >= 2:
        which.set_major_formatter(Powers())
        return
    if decades < np.log10(2):
        which.set_major_locator(MaxNLocator(4))
    else:
        subs = (1, 3) if decades >= 1.4 else (1, 2, 5) if decades >= 1 else (1, 2, 3, 5)
        which.set_major_locator(LogLocator(subs=subs))
    which.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))


def plain_number(value: float) -> str:
    """A number as a tick shows it.

    >>> plain_number(0.02), plain_number(2e-5), plain_number(300.0), plain_number(1e6)
    ('0.02', '2×10⁻⁵', '300', '10⁶')
    """
    if value == 0 or 1e-3 <= abs(value) < 1e5:
        return f"{value:g}"
    mantissa, exponent = f"{value:e}".split("e")
    factor = f"{float(mantissa):g}×".removeprefix("1×").replace("-", "−")
    return f"{factor}10{str(int(exponent)).translate(RAISED)}"


def label_of(value: Any) -> str:
    """A value of a key as a label."""
    return plain_number(value) if isinstance(value, int | float) else str(value)


def draw_band(
    ax: Axes, x: Any, quartiles: np.ndarray, partial: np.ndarray | None = None, **look: Any
) -> None:
    """The median, with a band from the lower to the upper quartile.

    Args:
        ax: where to draw.
        x: the places, [P].
        quartiles: lower quartile, median and upper quartile, [3, P]; nan is left out.
        partial: the places where some of the runs have failed, boolean [P]: drawn as open circles.
        look: colour and label of the line.
    """
    low, median, high = np.where(np.abs(quartiles) < LARGEST, quartiles, np.nan)
    (line,) = ax.plot(x, median, marker="o", ms=3, **look)
    ax.fill_between(x, low, high, alpha=0.2, lw=0, color=line.get_color())
    if partial is not None and partial.any():
        open_circles = np.where(partial, median, np.nan)
        ax.plot(x, open_circles, "o", ms=6, mfc="none", mec=line.get_color(), mew=1)


def colours(values: Sequence[Any]) -> tuple[list[Any], Normalize | None]:
    """A colour for each value: of the cycle for text and few numbers, else along a map.

    Returns:
        The colours, and the scale of the map; None where the colours are of the cycle.
    """
    cycle = rcParams["axes.prop_cycle"].by_key()["color"]
    numeric = all(isinstance(value, int | float | np.number) for value in values)
    if not numeric or len(values) <= 4:
        return [cycle[place % len(cycle)] for place in range(len(values))], None
    array = np.asarray(values, dtype=float)
    norm = LogNorm() if is_geometric(array) else Normalize()
    # the lightest colours cannot be seen on white
    return [colormaps["viridis"](0.92 * float(x)) for x in norm(array)], norm
