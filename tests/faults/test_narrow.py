"""Tables on narrow terminals: every number is there, whole."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from dln_momentum.outputs.terminal import fitted_table, table_of, wide_console
from dln_momentum.verification import Statement
from dln_momentum.verification.statement import Hypothesis
from dln_momentum.verification.table import statement_table

STATEMENTS = [
    Statement(
        "MGD: Delta_(k+1) = |w_(+,1) w_(-,1)| exp(-(S_+ + S_-)) times the decay's factor", 6,
        predicted=-1.234e-56, measured=9.876e105, error=1.5e-13, tolerance=2.5e-12,
        judged="at 2 of 3 recorded k, up to k = 123456: rounding may hide the rest",
    ),
    Statement(
        "MGF: int ||w'||^2 <= E_0", 4, (Hypothesis("converged", False, "energy 3.5e-07"),), "<=",
        predicted=4.321e-11, measured=math.nan, error=0.0, tolerance=6.5e-09,
    ),
]  # fmt: skip
NUMBERS = (
    "-1.234e-56", "9.876e+105", "1.5e-13", "2.5e-12", "123456:", "3.5e-07", "4.321e-11", "6.5e-09",
)  # fmt: skip


def shown(table: object, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [150, 120, 100, 80, 60, 50])
def test_statements_keep_their_numbers(width: int) -> None:
    text = shown(statement_table(STATEMENTS, width, "a title that is longer than the table"), width)
    assert max(map(len, text.splitlines())) <= width
    assert "…" not in text
    words = text.replace("│", " ").replace(",", " ").replace("(", " ").replace(")", " ").split()
    assert [number for number in NUMBERS if number not in words] == []


@pytest.mark.parametrize("width", [150, 80, 60, 40])
def test_a_table_that_does_not_fit_becomes_a_list(width: int) -> None:
    table = table_of("lambda", "status", *(f"quantity {k}" for k in range(7)), left=("status",))
    rows = [[f"{10.0**-place:.4g}", "converged", *(f"{place + k / 7:.5e}" for k in range(7))]
            for place in range(3)]  # fmt: skip
    for row in rows:
        table.add_row(*row)
    text = shown(fitted_table(Console(width=width, file=io.StringIO()), table), width)
    assert max(map(len, text.splitlines())) <= width
    words = text.replace("│", " ").split()
    assert [cell for row in rows for cell in row if cell not in words] == []


def test_a_file_gets_the_full_width(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdout", io.StringIO())
    monkeypatch.delenv("COLUMNS", raising=False)
    assert wide_console().width == 150
    monkeypatch.setenv("COLUMNS", "80")
    assert wide_console().width == 80
