"""A table with a row for each run, and a column for every key of the configs that varies."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pandas as pd

from dln_momentum.outputs.found import hashable

FIRST = ["kind", "path", "status", "data_hash"]
"""The first columns of the table."""


@dataclass(frozen=True)
class Rows:
    """The runs of one job.

    Attributes:
        values: the scalars of one run by name, or of many runs as columns.
        config: the keys of its config, a value that all runs share or an array over the runs.
    """

    values: dict[str, Any] | pd.DataFrame
    config: dict[str, Any]

    def __len__(self) -> int:
        return len(self.values) if isinstance(self.values, pd.DataFrame) else 1


def run_table(pieces: Sequence[Rows]) -> tuple[pd.DataFrame, list[str]]:
    """All rows, and the names of the columns that hold keys of the configs that vary.

    A key varies if two runs whose configs have it differ in it.

    >>> pieces = [Rows({"kind": "train", "l1_norm": x}, {"seed": x, "tol": 0}) for x in (1.0, 2.0)]
    >>> table, settings = run_table(pieces)
    >>> table[["kind", "seed", "l1_norm"]].to_numpy().tolist(), settings
    ([['train', 1.0, 1.0], ['train', 2.0, 2.0]], ['seed'])
    """
    if not pieces:
        return pd.DataFrame(columns=FIRST), []
    # of a column that is empty in a piece, pandas would take the type of the emptiness
    tables = [table.dropna(axis="columns", how="all") for table in _tables(pieces)]
    columns = dict.fromkeys([*FIRST, *(str(name) for piece in pieces for name in piece.values)])
    table = pd.concat(tables, ignore_index=True).reindex(columns=list(columns))
    varying: dict[str, list[Any]] = {}
    for key in dict.fromkeys(key for piece in pieces for key in piece.config):
        column = [value for piece in pieces for value in _column(piece, key)]
        having = [key in piece.config for piece in pieces for _ in range(len(piece))]
        if len({hashable(x) for x, has in zip(column, having, strict=True) if has}) > 1:
            varying[key] = column
        if key in table and bool(table[key].isna().to_numpy().any()):
            # a summary without this number: the config has it
            table[key] = table[key].where(table[key].notna(), pd.Series(column, table.index))
    found = {key: column for key, column in varying.items() if key not in table}
    first, rest = table[FIRST], table.drop(columns=FIRST)
    return pd.concat([first, pd.DataFrame(found, index=table.index), rest], axis=1), list(varying)


def _tables(pieces: Sequence[Rows]) -> Iterator[pd.DataFrame]:
    """The pieces in their order, single runs in a row as one table: one for each takes long."""
    for single, group in groupby(pieces, lambda piece: isinstance(piece.values, dict)):
        values: list[Any] = [piece.values for piece in group]
        yield from [pd.DataFrame(values)] if single else values


def _column(piece: Rows, key: str) -> list[Any]:
    value = piece.config.get(key)
    return value.tolist() if isinstance(value, np.ndarray) else [value] * len(piece)
