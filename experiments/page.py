"""The page of a reproduction: every claim with its verdict, numbers and figure."""

from __future__ import annotations

from typing import Any

import yaml

HEAD = """# The poster's claims, reproduced

Papazov, Pesme and Flammarion, "Leveraging Continuous Time to Understand Momentum When Training
Diagonal Linear Networks", AISTATS 2024. The settings are ours: the poster's own are not in its
text. Where its text has a sign or a square wrong, the claim is worded with the right one;
`python -m experiments.corrections` shows the difference in numbers. A verdict follows from the
numbers by a rule in the experiment's code, whose thresholds are among its settings; where a claim
fails on some problems, it says where it holds.

Numbers are `median [lower quartile, upper quartile]` over data sets, `-` where there is none. All
quantities are dimensionless; t = k eps is the time of the flow. (n, d, s, alpha): examples,
coordinates, non-zeros of theta*, initialisation scale. lambda = gamma/(1-beta)^2,
eps = gamma/(1-beta).

Made by `{command}`; one row alone by the command beside it.

| # | experiment | section | verdict | command | seconds |
|---|---|---|---|---|---|
"""

COMMANDS = {"full": "make reproduce", "fast": "make reproduce-fast"}

WIDE = 10
"""Tables with more columns than this, and fewer rows, are turned on their side."""

Cells = dict[tuple[str, ...], dict[str, Any]]
"""Values by the names of a row and the name of a column."""


def page(claims: list[dict[str, Any]], scale: str, figures: str = "") -> str:
    """Markdown for the claims as they were run, those that failed to run included.

    Args:
        claims: contents of ``claim.json``, or ``name`` and ``error`` of one that failed to run.
        scale: of the reproduction.
        figures: where NAME/figure.png are, as seen from the page: empty, or ending in a slash.
    """
    head = HEAD.format(command=COMMANDS.get(scale, f"python -m experiments --scale {scale}"))
    rows = "".join(f"| {i} {_row(claim)}\n" for i, claim in enumerate(claims, 1))
    return head + rows + "".join(_section(claim, figures) for claim in claims)


def _row(claim: dict[str, Any]) -> str:
    seconds = f"{claim['seconds']:.0f}" if "seconds" in claim else "-"
    if "verdict" not in claim:
        return f"| {claim['name']} | - | **failed to run** | - | {seconds} |"
    return (
        f"| [{claim['name']}](#{claim['name']}) | {claim['section']} | {claim['verdict']} "
        f"| `{claim['command']}` | {seconds} |"
    )


def _section(claim: dict[str, Any], figures: str) -> str:
    if "verdict" not in claim:
        return f"\n## {claim['name']}\n\nFailed to run.\n"
    name = claim["name"]
    notes = "".join(f"- {note}\n" for note in claim["notes"])
    return (
        f"\n## {name}\n\n"
        f"> {claim['claim']} (poster, section {claim['section']})\n\n"
        f"**Verdict: {claim['verdict']}.**\n\n"
        f"![{name}]({figures}{name}/figure.png)\n\n"
        f"{notes}\n"
        f"{_folded('Measured', tables(claim['measured']))}\n"
        f"{_folded(f'Settings (`conf/experiment/{name}.yaml`)', _settings(claim['settings']))}"
    )


def _folded(summary: str, text: str) -> str:
    return f"<details>\n<summary>{summary}</summary>\n\n{text}\n</details>\n"


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
