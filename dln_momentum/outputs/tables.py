"""Tables of runs in files: CSV, Parquet, Markdown, LaTeX and NetCDF."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from dln_momentum.errors import InputError
from dln_momentum.outputs.found import is_setting
from dln_momentum.outputs.quantities import QUANTITIES, describe
from dln_momentum.outputs.terminal import number

SHOWN = (
    "count", "converged", "failures", "steps", "time", "train_loss", "recovery_error",
    "relative_recovery_error", "best_recovery_error", "test_error", "l1_norm", "l1_excess",
    "balancedness_ratio", "sign_changes", "kkt_residual",
)  # fmt: skip
"""Numbers that the tables for readers show, if no columns are chosen."""

MISSING = "-"


def for_readers(
    table: pd.DataFrame, settings: Sequence[str], columns: Sequence[str] = ()
) -> pd.DataFrame:
    """The columns that a page has room for: what differs, how it ended and the main numbers.

    Args:
        table: of runs, or of groups of runs.
        settings: the columns that are keys of the configs.
        columns: the ones to show, in this order; chosen by `SHOWN` if there are none.
    """
    rows: Any = table
    if not columns:
        own = [name for name in settings if is_setting(name)]
        base = [name.removesuffix("_median") for name in map(str, table)]
        chosen = [
            str(name) for name, plain in zip(table, base, strict=True)
            if name in ("kind", "path", "status", *own) or plain in SHOWN
        ]  # fmt: skip
        columns = [name for name in chosen if rows[name].notna().any()]
    return rows[list(columns)]


def markdown(table: pd.DataFrame) -> str:
    """A table in Markdown, numbers to four digits.

    >>> print(markdown(pd.DataFrame({"status": ["converged"], "l1_norm": [1.23456]})), end="")
    | status | l1_norm |
    |---|--:|
    | converged | 1.235 |
    """
    rules = ["--:" if _is_numeric(table[name]) else "---" for name in table]
    body = [[_escaped(cell, {"|": r"\|"}) for cell in row] for row in _cells(table)]
    head = f"| {' | '.join(map(str, table))} |\n|{'|'.join(rules)}|\n"
    return head + "".join(f"| {' | '.join(row)} |\n" for row in body)


def latex(table: pd.DataFrame) -> str:
    r"""A table in LaTeX with the rules of booktabs, names as their symbols, numbers to four digits.

    >>> print(latex(pd.DataFrame({"lam": [1.0, 0.5]})), end="")
    % \usepackage{booktabs}
    \begin{tabular}{r}
    \toprule
    $\lambda$ \\
    \midrule
    1 \\
    0.5 \\
    \bottomrule
    \end{tabular}
    """
    special = {character: f"\\{character}" for character in "&%$#_{}"}
    special |= {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    head = " & ".join(_symbol(str(name)) or _escaped(str(name), special) for name in table)
    rows = [" & ".join(_escaped(cell, special) for cell in row) for row in _cells(table)]
    spec = "".join("r" if _is_numeric(table[name]) else "l" for name in table)
    lines = [
        r"% \usepackage{booktabs}", f"\\begin{{tabular}}{{{spec}}}", r"\toprule", head + r" \\",
        r"\midrule", *(row + r" \\" for row in rows), r"\bottomrule", r"\end{tabular}",
    ]  # fmt: skip
    return "\n".join(lines) + "\n"


def runs_dataset(table: pd.DataFrame) -> xr.Dataset:
    """A table as a dataset over ``run``, which every NetCDF library can read.

    Text that is missing becomes empty, numbers nan; lists become JSON.
    """
    found = {str(name): ("run", _storable(column)) for name, column in table.items()}
    return describe(xr.Dataset(found, {"run": np.arange(len(table))}))


def write_csv(path: Path, table: pd.DataFrame) -> None:
    """All columns, numbers with every digit."""
    table.to_csv(path, index=False)


def write_parquet(path: Path, table: pd.DataFrame) -> None:
    """All columns; needs pyarrow."""
    plain = {str(name): _storable(column) for name, column in table.items()}
    pd.DataFrame(plain).to_parquet(path, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """A table from a ``.csv`` or ``.parquet`` file.

    Raises:
        InputError: where it cannot be read.
    """
    try:
        return pd.read_csv(path) if path.suffix == ".csv" else pd.read_parquet(path)
    except (OSError, ValueError, ImportError) as error:
        raise InputError([f"{path} cannot be read: {' '.join(str(error).split())}"]) from error


def has_parquet() -> bool:
    """Whether Parquet can be written here."""
    return importlib.util.find_spec("pyarrow") is not None


WRITERS: dict[str, Callable[[Path, pd.DataFrame], None]] = {
    "csv": write_csv,
    "parquet": write_parquet,
}
"""Formats for programs, which hold every column."""

READERS: dict[str, Callable[[pd.DataFrame], str]] = {"md": markdown, "tex": latex}
"""Formats for readers, which hold the columns that `for_readers` chooses."""


def _storable(column: pd.Series) -> np.ndarray:
    """The values of a column with one type: numbers, or text."""
    if column.dtype.kind in "iufb":
        return column.to_numpy()
    present = [value for value in column if not _is_missing(value)]
    if present and all(isinstance(v, int | float) and not isinstance(v, bool) for v in present):
        return column.map(lambda v: np.nan if _is_missing(v) else float(v)).to_numpy(float)
    return np.array([_text(value) for value in column], dtype=object)


def _text(value: Any) -> str:
    if _is_missing(value):
        return ""
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and value != value)


def _cells(table: pd.DataFrame) -> list[list[str]]:
    columns = [[_cell(value) for value in table[name]] for name in table]
    return [list(row) for row in zip(*columns, strict=True)]


def _cell(value: Any) -> str:
    if isinstance(value, bool | np.bool_):
        return str(bool(value)).lower()
    if isinstance(value, int | float | np.number):
        return number(value.item() if isinstance(value, np.number) else value)
    return MISSING if value is None else " ".join(str(value).split())


def _escaped(text: str, special: dict[str, str]) -> str:
    return "".join(special.get(character, character) for character in text)


def _is_numeric(column: Any) -> bool:
    return column.dtype.kind in "iuf"


def _symbol(name: str) -> str:
    """A name as mathematics, if the table of quantities has a symbol for it."""
    for suffix in ("", "_median"):
        row = QUANTITIES.get(name.removesuffix(suffix) if suffix else name)
        if row is not None and row.symbol:
            return f"${row.symbol}$"
    return ""
