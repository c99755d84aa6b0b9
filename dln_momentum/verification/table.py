"""The statements of the theory as a table: numbers, verdicts, and unmet hypotheses."""

from __future__ import annotations

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from dln_momentum.verification import Statement, Verdict

STYLES = {
    Verdict.HOLDS: "green",
    Verdict.PARTLY: "cyan",
    Verdict.NOT_MET: "yellow",
    Verdict.VIOLATED: "bold red",
}
WIDE = 120
"""Columns of a terminal from which on every number has a column of its own."""
CAPTION = "§: section of the paper's poster; docs/theory.md#poster-sections has the theory's own"
NUMBERS = ("predicted", "measured", "error", "tolerance")


def statement_table(found: Sequence[Statement], width: int, title: str | None = None) -> Table:
    """A row for each statement.

    Args:
        found: the statements.
        width: columns of the terminal. From `WIDE` on a number has a column of its own; with fewer
            the numbers are below the statement, where they fit 60 columns and fewer.
        title: above the table.
    """
    table = Table(title=title, title_justify="left", caption=CAPTION, caption_justify="left")
    return (_wide_table if width >= WIDE else _narrow_table)(table, found)


def _wide_table(table: Table, found: Sequence[Statement]) -> Table:
    """A column for every number."""
    table.add_column("§", justify="right")
    table.add_column("statement, and what it lacks")
    for column in NUMBERS:
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("verdict")
    for s in found:
        table.add_row(str(s.section), _text(s), *s.numbers, _verdict(s))
    return table


def _narrow_table(table: Table, found: Sequence[Statement]) -> Table:
    """The numbers under the statement, for a narrow terminal."""
    table.add_column("§", justify="right")
    table.add_column("statement, its numbers, and what it lacks", overflow="fold")
    table.add_column("verdict", max_width=len("hypotheses"))
    for s in found:
        pairs = [f"{name} {value}" for name, value in zip(NUMBERS, s.numbers, strict=True)]
        lines = f"  {', '.join(pairs[:2])}\n  {', '.join(pairs[2:])}"
        table.add_row(str(s.section), _text(s, lines), _verdict(s))
    return table


def _text(s: Statement, *lines: str) -> str:
    part = [f"  judged {s.judged}"] if s.judged else []
    lacks = (f"  needs: {h.text} ({h.found})" for h in s.unmet)
    below = "".join(f"\n{line}" for line in (*lines, *part, *lacks))
    return f"{escape(s.name)}[dim]{escape(below)}[/dim]"


def _verdict(s: Statement) -> str:
    return f"[{STYLES[s.verdict]}]{s.verdict.value}[/]"
