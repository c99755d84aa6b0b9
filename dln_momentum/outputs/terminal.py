"""Tables on the terminal, however wide it is, and numbers as they show them."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table

PRINTED_WIDTH = 150
"""Columns of a wide table that goes to a file or a pipe."""


def wide_console() -> Console:
    """A console for wide tables: as wide as the terminal, or wide enough where there is none.

    The variable COLUMNS gives the width of either.
    """
    from rich.console import Console

    console = Console()
    known = console.is_terminal or os.environ.get("COLUMNS", "").isdigit()
    return console if known else Console(width=PRINTED_WIDTH)


def fitted_table(console: Console, table: Table) -> RenderableType:
    """A table such that no part of a number is cut off, however narrow the console is.

    Args:
        console: it is printed on.
        table: its columns are made to wrap where it is too wide.

    Returns:
        The table; or, where not even single words fit beside each other, a list: of each row the
        first cell, and below it the others by their columns.
    """
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    lines = console.render_lines(table, pad=False)
    if not any("…" in segment.text for line in lines for segment in line):
        return table
    for column in table.columns:
        column.no_wrap, column.overflow = False, "fold"
    unbounded = console.options.update_width(100 * console.width)
    if console.measure(table, options=unbounded).minimum <= console.width:
        return table
    first, *others = table.columns
    found: list[RenderableType] = [Text(str(table.title))] if table.title else []
    for row, head in enumerate(first.cells):
        found.append(Text.assemble(f"{first.header} ", Text.from_markup(str(head)), style="bold"))
        for column in others:
            cell = Text.from_markup(str(list(column.cells)[row]))
            label = " ".join(str(column.header).split())
            found.append(Padding(Text.assemble(f"{label}: ", cell, overflow="fold"), (0, 0, 0, 2)))
    return Group(*found)


def number(value: float | int | None, digits: int = 4) -> str:
    """A number as a table shows it; a dash where there is none.

    Whole numbers and numbers from 1000 to a million are written out.

    >>> [number(x) for x in (123456789, 12345.6, 2.0, 0.0123456, 5e30, None, float("nan"))]
    ['123456789', '12346', '2', '0.01235', '5e+30', '-', '-']
    """
    if value is None or not math.isfinite(value):
        return "-"
    if isinstance(value, int):
        return str(value)
    whole = abs(value) < 1e6 and (value % 1 == 0 or abs(value) >= 1e3)
    # adding 0 takes the sign from a zero
    return f"{value + 0:.0f}" if whole else f"{value:.{digits}g}"


def table_of(*columns: str, title: str | None = None, left: Sequence[str] = ()) -> Table:
    """A table with these columns, numbers on the right; the first and ``left`` on the left."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        on_left = column in left or (not left and column == columns[0])
        table.add_column(column, justify="left" if on_left else "right", no_wrap=on_left)
    return table


def print_tables(console: Console, title: str, tables: Iterable[Table], directory: Path) -> None:
    """Print a title, tables, and where the files are."""
    # a table's own title would wrap at the table's width
    console.print(title, style="italic", highlight=False)
    for table in tables:
        console.print(fitted_table(console, table))
    console.print(f"results in {directory}", soft_wrap=True, highlight=False)
