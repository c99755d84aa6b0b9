"""What every figure of an experiment has: panel letters, and the size of its problems."""

from __future__ import annotations

from collections.abc import Iterator
from string import ascii_lowercase

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from dln_momentum.outputs.plotting import style

COLORBAR = "<colorbar>"
"""The label that matplotlib gives to the axes of a colour bar."""


def finish(figure: Figure, sizes: str) -> None:
    """Letter the panels in the order in which they were made, and state the sizes below them."""
    with style():
        for letter, ax in zip(ascii_lowercase, panels(figure), strict=False):
            label = rf"$\mathbf{{({letter})}}$"
            if ax.title.get_text():
                # a title of its own on the left would run into this one
                ax.title.set_text(f"{label} {ax.title.get_text()}")
            else:
                ax.set_title(label, loc="left", fontsize=8)
        figure.supxlabel(sizes, fontsize=7, color="0.35")


def panels(figure: Figure) -> Iterator[Axes]:
    """The axes that hold data: no colour bars, and none that are switched off for a legend."""
    for ax in figure.axes:
        if ax.get_label() != COLORBAR and ax.axison:
            yield ax


def data_sets(count: int, *problems: str) -> str:
    """How many data sets there are, of which problems.

    >>> data_sets(20, "(20, 30, 3)")
    '20 data sets of (n, d, s) = (20, 30, 3)'
    >>> data_sets(1, "(20, 30, 3, 0.1)", "(40, 100, 5, 0.01)")
    '1 data set of each (n, d, s, α) = (20, 30, 3, 0.1), (40, 100, 5, 0.01)'
    """
    symbols = "(n, d, s, α)" if problems[0].count(",") == 3 else "(n, d, s)"
    each = "each " if len(problems) > 1 else ""
    sets = "data set" if count == 1 else "data sets"
    return f"{count} {sets} of {each}{symbols} = {', '.join(problems)}"


def problem_size(n: int, d: int, s: int, alpha: float | None = None) -> str:
    """(n, d, s) or (n, d, s, alpha) as text."""
    return f"({n}, {d}, {s})" if alpha is None else f"({n}, {d}, {s}, {alpha:g})"
