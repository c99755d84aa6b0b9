"""The page of a reproduction: every claim with its verdict, numbers and figure."""

from __future__ import annotations

from typing import Any

HEAD = """# The poster's claims, reproduced

Papazov, Pesme and Flammarion, "Leveraging Continuous Time to Understand Momentum When Training
Diagonal Linear Networks", AISTATS 2024. The settings are ours: the poster's own are not in its
text. Spreads are [lower quartile, median, upper quartile].

Made by `{command}`.

| # | claim | section | verdict | command |
|---|---|---|---|---|
"""

COMMANDS = {"full": "make reproduce", "fast": "make reproduce-fast"}


def page(claims: list[dict[str, Any]], scale: str) -> str:
    """Markdown, with figures at ``NAME/figure.png`` beside it."""
    done = [claim for claim in claims if "verdict" in claim]
    head = HEAD.format(command=COMMANDS.get(scale, f"python -m experiments --scale {scale}"))
    rows = "".join(
        f"| {i} | [{claim['name']}](#{claim['name']}) | {claim['section']} | {claim['verdict']} "
        f"| `{claim['command']}` |\n"
        for i, claim in enumerate(done, 1)
    )
    return head + rows + "".join(_section(claim) for claim in done)


def _section(claim: dict[str, Any]) -> str:
    notes = "".join(f"\n- {note}" for note in claim["notes"])
    return (
        f"\n## {claim['name']}\n\n"
        f"> {claim['claim']} (poster, section {claim['section']})\n\n"
        f"**Verdict: {claim['verdict']}.**\n\n"
        f"![{claim['name']}]({claim['name']}/figure.png)\n\n"
        f"{_numbers(claim['measured'])}{notes}\n"
    )


def _numbers(measured: dict[str, Any]) -> str:
    lines = [f"| {name} | {value} |" for name, value in _flat(measured)]
    return "\n".join(["| measured | value |", "|---|---|", *lines]) + "\n"


def _flat(measured: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested numbers as (name, text), names joined by a comma."""
    rows: list[tuple[str, str]] = []
    for key, value in measured.items():
        name = f"{prefix}{key}".replace("_", " ").replace("|", "\\|")
        if isinstance(value, dict):
            rows += _flat(value, f"{name}, ")
        else:
            rows.append((name, _text(value)))
    return rows


def _text(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(_text(item) for item in value) + "]"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
