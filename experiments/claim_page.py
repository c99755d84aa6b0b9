"""The page of one claim: figure, notes, every number that was measured, and the settings."""

from __future__ import annotations

from typing import Any

import yaml

from experiments.page import source, title

WIDE = 10
"""Tables with more columns than this, and fewer rows, are turned on their side."""

Cells = dict[tuple[str, ...], dict[str, Any]]
"""Values by the names of a row and the name of a column."""


def claim_page(claim: dict[str, Any], number: int) -> str:
    """Markdown for one claim.

    Args:
        claim: the contents of its ``claim.json``, with the ``run`` that it comes from.
        number: of the claim, from 1.
    """
    name, record = claim["name"], claim["run"]
    notes = "".join(f"- {note}\n" for note in claim["notes"])
    return (
        f"# {number}. {title(name)}\n\n"
        f"> {claim['claim']} ({source(claim)})\n\n"
        f"**{claim['verdict'].capitalize()}.** {claim['finding']}\n\n"
        f"![{name}](figure.png)\n\n"
        f"{claim['caption']} {claim['sizes']}. The figure as vectors: [figure.pdf](figure.pdf).\n\n"
        f"{notes}\n"
        f"`{claim['command']}`, commit {record['commit']}, {record['date']}, "
        f"{record['seconds']:.0f} s. [All claims](../README.md).\n\n"
        "## Measured\n\n"
        "`median [lower quartile, upper quartile]` over data sets, `-` where there is none. The "
        "numbers in full are in [claim.json](claim.json).\n\n"
        f"{tables(claim['measured'])}\n"
        f"## Settings\n\n`conf/study/{name}.yaml`\n\n{_settings(claim['settings'])}"
    )


def _settings(settings: dict[str, Any]) -> str:
    kept = {k: v for k, v in settings.items() if k not in ("name", "num_workers")}
    return f"```yaml\n{yaml.safe_dump(kept, sort_keys=False, default_flow_style=None)}```\n"


def tables(measured: dict[str, Any]) -> str:
    """Nested numbers as Markdown tables, one for all rows that have the same columns.

    >>> print(tables({"error": {"lambda=1": 0.5, "lambda=2": [1.0, 2.0, 3.0]}, "runs": 7}))
    |  |  |
    |---|---|
    | runs | 7 |
    <BLANKLINE>
    | error |  |
    |---|---|
    | lambda=1 | 0.5 |
    | lambda=2 | 2 [1, 3] |
    <BLANKLINE>
    """
    alike: dict[tuple[str, ...], Cells] = {}
    for path, values in _parents(measured, ()):
        alike.setdefault(tuple(values), {})[path] = values
    return "\n".join(_table(cells, columns) for columns, cells in alike.items())


def _parents(
    nested: dict[str, Any], path: tuple[str, ...]
) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """Every level that holds values, with the names that lead to it."""
    values = {key: value for key, value in nested.items() if not isinstance(value, dict)}
    found = [(path, values)] if values else []
    below = [_parents(v, (*path, key)) for key, v in nested.items() if isinstance(v, dict)]
    return found + [parent for some in below for parent in some]


def _table(cells: Cells, columns: tuple[str, ...]) -> str:
    names = [_name(", ".join(path)) for path in cells]
    heads = [_name(column) for column in columns]
    body = [[_text(values[column]) for column in columns] for values in cells.values()]
    if len(names) == 1 or len(heads) > max(WIDE, len(names)):
        names, heads = heads, names
        body = [list(column) for column in zip(*body, strict=True)]
    first, heads = (heads[0], [""]) if len(heads) == 1 else ("", heads)
    rows = [[name, *line] for name, line in zip(names, body, strict=True)]
    lines = [f"| {' | '.join(row)} |\n" for row in ([first, *heads], *rows)]
    return "".join([lines[0], "|---" * (len(heads) + 1), "|\n", *lines[1:]])


def _name(key: str) -> str:
    return key.replace("_", " ").replace("|", "\\|")


def _text(value: Any) -> str:
    """A number to three digits; three numbers as median and quartiles."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.3g}"
    if not isinstance(value, list):
        return str(value)
    texts = [_text(item) for item in value]
    if len(texts) != 3 or any(isinstance(item, str) for item in value):
        return ", ".join(texts)
    low, median, high = texts
    return median if low == high else f"{median} [{low}, {high}]"
