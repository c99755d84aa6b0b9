"""How a multirun ended: a table of its jobs, failures first, from what each has left on disk."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from dln_momentum.cli.metric import result_at
from dln_momentum.outputs.status import STATES, STATUS, read_status

METRICS = ("steps", "runs", "train_loss", "recovery_error", "kkt_residual")
"""Results that have a column where any job has them."""
WIDE = 200
"""Columns of what is no terminal, as a file."""
MOST_REASONS = 5
"""Diverged jobs of which it is said why."""
MOST_ROWS = 60
"""Finished jobs that are printed; of more, so many with the smallest metric, or the first."""

NUMBER = re.compile(r"((?:(?<=_)-)?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")
"""A number in the name of a job, with its sign behind the name of a key."""


class Row(NamedTuple):
    """A job of a multirun."""

    name: str
    status: dict[str, Any]
    result: dict[str, Any]

    @property
    def good(self) -> bool:
        """Whether the job has a result, and it violates no statement of the theory."""
        return self.status["state"] == "done" and self.result.get("status") != "violated"


def ending_of(folder: Path, token: str, began: datetime, metric: str | None) -> int:
    """Print the table of a multirun; 0 if every job is done, 2 if each was refused, else 1.

    Jobs that ended before it ``began`` are marked; the ``metric`` is the result that is shown
    first, and that rows are ordered by if there are many.
    """
    rows = rows_of(folder, token)
    if rows and all(row.status["state"] == "refused" for row in rows):
        return 2
    print_rows(rows, folder, began, metric)
    return 0 if rows and all(row.good for row in rows) else 1


def rows_of(folder: Path, token: str) -> list[Row]:
    """The jobs below a folder that a multirun has done or found done, by name."""
    found = []
    for path in sorted(folder.rglob(STATUS), key=lambda path: _natural(str(path))):
        status = read_status(path.parent)
        if token in status.get("multiruns", ()):
            name = path.parent.relative_to(folder).as_posix()
            found.append(Row(name, status, _result(path.parent)))
    return found


def print_rows(rows: Sequence[Row], folder: Path, began: datetime, metric: str | None) -> None:
    """Print failures with their errors, then the results, then the counts."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from dln_momentum.outputs.terminal import fitted_table

    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDE)
    longest = max((len(row.name) for row in rows), default=0)
    bad = [row for row in rows if not row.good]
    if bad:
        table = Table(title="failed", title_justify="left")
        table.add_column("job", overflow="fold", min_width=min(longest, 32))
        table.add_column("state", no_wrap=True)
        table.add_column("error", overflow="fold")
        for row in bad:
            violated = "violates " + "; ".join(row.result.get("violated") or [])
            state = row.status["state"]
            said = violated if state == "done" else row.status.get("message") or ""
            table.add_row(row.name, "violated" if state == "done" else state, escape(said))
        console.print(fitted_table(console, table))
    good = [row for row in rows if row.good]
    names = [name for name in dict.fromkeys([metric, *METRICS]) if name]
    names = [name for name in names if any(result_at(row.result, name) is not None for row in good)]
    if good:
        shown = _shown(good, metric)
        table = Table(title="done", title_justify="left")
        table.add_column("job", overflow="fold", min_width=min(longest, 32))
        table.add_column("status", no_wrap=True)
        for name in (*names, "seconds"):
            table.add_column(name, justify="right")
        for row in shown:
            seconds = row.status.get("seconds")
            time = "before" if _is_before(row, began) else _number(seconds)
            values = [_number(result_at(row.result, name)) for name in names]
            table.add_row(row.name, str(row.result.get("status", "")), *values, time)
        console.print(fitted_table(console, table))
        if len(shown) < len(good):
            console.print(f"and {len(good) - len(shown)} more jobs are done")
        for line in _why_diverged(good):
            console.print(line, soft_wrap=True, highlight=False, markup=False)
    console.print(_counts(rows, began), highlight=False)
    console.print(f"results in {folder}", soft_wrap=True, highlight=False)


def _why_diverged(rows: Sequence[Row]) -> Iterator[str]:
    """A line on each of the first jobs that diverged and measured why."""
    from dln_momentum.outputs.divergence import why_diverged

    diverged = [
        row
        for row in rows
        if row.result.get("status") == "diverged" and row.result.get("stable_gamma") is not None
    ]
    for row in diverged[:MOST_REASONS]:
        yield f"{row.name} diverged: {why_diverged(row.result)}"
    if len(diverged) > MOST_REASONS:
        yield f"and {len(diverged) - MOST_REASONS} more diverged: see their summary.json"


def _shown(rows: Sequence[Row], metric: str | None) -> list[Row]:
    if len(rows) <= MOST_ROWS or metric is None:
        return list(rows[:MOST_ROWS])

    def order(row: Row) -> float:
        value = result_at(row.result, metric)
        return value if isinstance(value, int | float) else float("inf")

    return sorted(rows, key=order)[:MOST_ROWS]


def _counts(rows: Sequence[Row], began: datetime) -> str:
    """As: 10 done (3 before), 2 failed of 12 jobs; converged 9, diverged 1."""
    states = Counter(row.status["state"] for row in rows)
    before = sum(_is_before(row, began) for row in rows)
    parts = [f"{states[state]} {state}" for state in STATES if state != "done" and states[state]]
    done = f"{states['done']} done" + (f" ({before} before)" if before else "")
    endings = Counter(str(row.result.get("status")) for row in rows if row.result)
    said = ", ".join(f"{ending} {count}" for ending, count in endings.most_common())
    return f"{', '.join([done, *parts])} of {len(rows)} jobs{'; ' if said else ''}{said}"


def _is_before(row: Row, began: datetime) -> bool:
    ended = row.status.get("ended")
    if row.status["state"] != "done":
        return False
    return ended is None or datetime.fromisoformat(ended) < began


def _result(directory: Path) -> dict[str, Any]:
    for name in ("summary.json", "verify.json"):
        try:
            found = json.loads((directory / name).read_text())
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            return found
    return {}


def _number(value: Any) -> str:
    return "" if value is None else f"{value:.3g}" if isinstance(value, float) else str(value)


def _natural(text: str) -> list[tuple[float, str]]:
    """Sort key under which job_9 comes before job_10, and depth_2.25 before depth_2.5.

    >>> sorted(["b_10-a", "b_9-a", "b_2.5-a", "b_2.25-a", "b_1e-05-a", "b_-3-a"], key=_natural)
    ['b_-3-a', 'b_1e-05-a', 'b_2.25-a', 'b_2.5-a', 'b_9-a', 'b_10-a']
    """
    parts = re.split(NUMBER, text)
    return [(float(part) if place % 2 else -math.inf, part) for place, part in enumerate(parts)]
