"""Tables for notebooks: what a quantity is predicted to be, beside what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

LISTED = 60
"""Rows of a table that are shown by default."""


def table(
    title: str, header: Sequence[str], rows: Iterable[Sequence[str]], most: int = LISTED
) -> str:
    """A small table in HTML, with a title above it.

    Args:
        title: lines of text.
        header: the names of the columns.
        rows: of text.
        most: rows that are shown; of more the first ones.

    >>> print(table("a < b", ["name", "measured"], [["loss", "0"]]))
    <div><div style="margin:0.3em 0">a &lt; b</div>
    <table>
    <tr><th style="text-align:left">name</th><th style="text-align:left">measured</th></tr>
    <tr><td style="text-align:left">loss</td><td style="text-align:left">0</td></tr>
    </table></div>
    """
    found = list(rows)
    lines = [_line("th", header), *(_line("td", row) for row in found[:most])]
    if len(found) > most:
        lines.append(_line("td", [f"and {len(found) - most} more"]))
    # a title may have several lines
    shown = "<br>".join(escape(line) for line in title.splitlines())
    body = "\n".join(lines)
    return f'<div><div style="margin:0.3em 0">{shown}</div>\n<table>\n{body}\n</table></div>'


def _line(kind: str, cells: Iterable[str]) -> str:
    # notebooks align cells to the right
    shown = (f'<{kind} style="text-align:left">{escape(cell)}</{kind}>' for cell in cells)
    return f"<tr>{''.join(shown)}</tr>"
