"""Tables with named columns: text with separators, and Parquet."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from dln_momentum.data.rows import Rows, signs_of
from dln_momentum.data.text import check_bytes, opened, unreadable
from dln_momentum.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

SEPARATORS = {"comma": ",", "semicolon": ";", "tab": "\t", "space": " ", "bar": "|"}
"""Names that a shell and Hydra leave alone; the characters themselves are allowed too."""

DECIMALS = {"point": ".", "comma": ","}

SAMPLE_LINES = 20
"""Lines that the separator is recognised by."""

COUNTED = 5
"""Rows from which a column that rises by 1 is remarkable."""

LONGEST_NAME = 50
"""Characters of a column's name in an error."""

_NAMELESS = re.compile(r"\s*|Unnamed: \d+(\.\d+)*|__index_level_\d+__")
"""The names that pandas and pyarrow give to a column that has none."""

_NUMBERING = {"id", "ids", "index", "idx", "row", "rowid", "sample", "sampleid", "obs", "#"}
"""Names, in small letters and without punctuation, of a column that may number the rows."""

_COMMA_NUMBER = re.compile(r"\s*[+-]?\d*(,\d+)?([eE][+-]?\d+)?\s*")


class Table(NamedTuple):
    """A data frame, and what was done to the file."""

    frame: pd.DataFrame
    path: Path
    notes: tuple[str, ...] = ()
    separated_by: str = ""
    """for the error that a column is missing"""
    repeated: tuple[str, ...] = ()
    """names that several columns have"""


def read_text(file: Path, *, separator: str | None = None, decimal: str | None = None) -> Table:
    """A table of text with a header.

    Raises:
        InputError: for an unreadable file, or an unknown separator or decimal mark.
    """
    import pandas as pd

    lines = _first_lines(file)
    check_bytes(file)
    character = _mark("separator", separator, SEPARATORS) or _recognised(lines)
    point = _mark("decimal", decimal, DECIMALS)
    if character == point:
        raise InputError([f"separator and decimal are both {character!r}"])
    options: dict[str, Any] = {
        "sep": r"\s+" if character == " " else character,
        "decimal": point or ".",
        "skipinitialspace": True,
        "low_memory": False,
    }
    if tuple(map(int, pd.__version__.split(".")[:2])) < (3, 1):
        # later versions read every digit by default
        options["float_precision"] = "round_trip"
    notes = []
    header, *rows = _fields(lines, character) or [[]]
    if rows and all(len(row) == len(header) + 1 for row in rows):
        # a separator at the end of each row, or row names as R writes them
        index = any(row[-1].strip() for row in rows)
        options["index_col"] = 0 if index else False
        notes += ["column without a name dropped, as an index: the first"] * index
    try:
        frame = pd.read_csv(file, **options)
    except (ValueError, OSError, EOFError) as error:
        raise unreadable(file, error) from error
    if point is None and character != ",":
        commas = [name for name in frame.columns if _has_decimal_commas(frame[name])]
        for name in commas:
            frame[name] = frame[name].str.replace(",", ".").astype(np.float64)
        notes += [f"decimal commas read in: {', '.join(map(str, commas))}"] if commas else []
    shown = next((name for name, mark in SEPARATORS.items() if mark == character), character)
    names = [name.strip() for name in header]
    repeated = tuple(name for name, count in Counter(names).items() if count > 1)
    return Table(frame, file, tuple(notes), shown, repeated)


def read_parquet(file: Path, *, separator: str | None = None, decimal: str | None = None) -> Table:
    """A table in Parquet format.

    Raises:
        InputError: for an unreadable file, or without pyarrow.
    """
    import pandas as pd

    given = {"separator": separator, "decimal": decimal}
    wrong = [f"{key} = {value!r} is for tables of text" for key, value in given.items() if value]
    if wrong:
        raise InputError(wrong)
    try:
        return Table(pd.read_parquet(file, engine="pyarrow"), file)
    except ImportError as error:
        raise InputError(
            [f"path = {str(file)!r} needs pyarrow: pip install 'dln-momentum[parquet]'"]
        ) from error
    except (ValueError, OSError) as error:
        raise unreadable(file, error) from error


def rows_of(table: Table, target: str | None) -> Rows:
    """One column as y, the other numeric columns as X.

    Raises:
        InputError: for no row, a target that is no column of numbers or of two classes, or no
            numeric column beside it.
    """
    frame, path, notes = table.frame, str(table.path), []
    if len(frame) == 0:
        raise InputError([f"path = {path!r} holds no row below its header"])
    nameless = [c for c in frame.columns if _NAMELESS.fullmatch(str(c)) and c != target]
    if nameless:
        shown = ", ".join(map(str, nameless))
        notes.append(f"columns without a name dropped, as an index: {shown}")
        frame = frame.drop(columns=nameless)
    notes += table.notes
    others = [name for name in frame.columns if name != target and name not in table.repeated]
    enough = len(frame) >= COUNTED
    numbering = [n for n in others if enough and _plain(n) in _NUMBERING and _rises(frame[n])]
    if numbering:
        shown = ", ".join(map(str, numbering))
        notes.append(f"columns that number the rows dropped: {shown}; another name keeps them")
        frame = frame.drop(columns=numbering)
    counting = [n for n in others if n not in numbering and _rises(frame[n], by_one=True)]
    if counting and enough:
        shown = ", ".join(map(str, counting))
        notes.append(f"columns that rise by 1 from row to row are columns of X: {shown}")
    if target not in frame.columns:
        what = (
            "target must name the column of y, one of"
            if target is None
            else (f"target = {target!r} must be one of the columns:")
        )
        raise InputError([f"{what} {_columns(table, frame)}"])
    if target in table.repeated:
        raise InputError([f"target = {target!r} must be the name of one column; several have it"])
    numeric = frame.select_dtypes(["number", "bool"])
    if target in numeric.columns:
        y = numeric[target].to_numpy(np.float64, na_value=np.nan)
    else:
        column: Any = frame[target]
        y, note = _labels(column, target)
        notes.append(note)
    features = numeric.drop(columns=target, errors="ignore")
    if features.columns.empty:
        raise InputError([f"path = {path!r} has no numeric column beside {target!r}"])
    kept = {*features.columns, target}
    dropped = ", ".join(str(name) for name in frame.columns if name not in kept)
    notes += [f"columns that are not numeric dropped: {dropped}"] if dropped else []
    X = features.to_numpy(np.float64, na_value=np.nan)
    if bad := [*_gaps([*features.columns, target], np.column_stack([X, y]))]:
        raise InputError(bad)
    return Rows(X=X, y=y, notes=tuple(notes))


def _gaps(names: list[Any], values: np.ndarray, most: int = 10) -> Iterator[str]:
    """A line for each column with missing or infinite values, by its name in the file."""
    found = [
        (name, np.flatnonzero(~np.isfinite(c))) for name, c in zip(names, values.T, strict=True)
    ]
    found = [(name, rows) for name, rows in found if len(rows)]
    for name, rows in found[:most]:
        yield (
            f"column {str(name)!r} is missing or not finite in {len(rows)} of {len(values)} rows, "
            f"first in row {rows[0] + 1} below the header; fill these or leave out rows or column"
        )
    if len(found) > most:
        yield f"so are {len(found) - most} more columns"


def _labels(column: pd.Series, target: Any) -> tuple[np.ndarray, str]:
    missing = int(column.isna().sum())
    if missing:
        raise InputError([f"target = {target!r} is text, with {missing} missing of {len(column)}"])
    (y,), note = signs_of([column.to_numpy()], f"target = {target!r}")
    return y, note


def _columns(table: Table, frame: pd.DataFrame) -> str:
    """The names of the columns, of many the first and the last, and what may be wrong with them."""
    names = [str(name) for name in frame.columns]
    names = [name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}..." for name in names]
    some = names if len(names) <= 20 else [*names[:16], "...", *names[-3:]]
    shown = ", ".join(some) + (f" ({len(names)})" if len(names) > 20 else "")
    if all(_is_number(name) for name in names):
        return f"{shown}; these are numbers: the first row must hold the names of the columns"
    if len(names) == 1 and table.separated_by:
        return f"{shown} (separated by {table.separated_by}; `separator` names another)"
    return shown


def _plain(name: Any) -> str:
    """A name in small letters, without what joins its words."""
    return re.sub(r"[\s_.-]", "", str(name)).lower()


def _rises(column: Any, *, by_one: bool = False) -> bool:
    """Whether a column holds whole numbers, each above the one before it."""
    from pandas.api.types import is_integer_dtype

    if not is_integer_dtype(column) or column.isna().any():
        return False
    steps = column.diff().iloc[1:]
    return bool((steps == 1).all() if by_one else (steps > 0).all())


def _is_number(text: str) -> bool:
    try:
        float(text.replace(",", "."))
    except ValueError:
        return False
    return True


def _has_decimal_commas(column: pd.Series) -> bool:
    """Whether a column of text holds numbers, at least one with a decimal comma."""
    from pandas.api.types import is_numeric_dtype

    texts = column.dropna()
    if is_numeric_dtype(column) or not all(isinstance(text, str) for text in texts):
        return False
    found = [_COMMA_NUMBER.fullmatch(text) for text in texts]
    return all(found) and any("," in text for text in texts)


def _mark(key: str, given: str | None, names: dict[str, str]) -> str | None:
    """A character by its name, or itself."""
    if given is None:
        return None
    mark = names.get(given, given)
    if len(mark) != 1 or mark.isalnum() or mark in '+-"\r\n\0':
        raise InputError(
            [
                f"{key} = {given!r} must be one character, or {', '.join(names)}; "
                "no letter, digit or sign"
            ]
        )
    return mark


def _first_lines(file: Path) -> list[str]:
    try:
        with opened(file)(file, "rt", encoding="utf-8-sig", errors="replace", newline="") as text:
            lines = [line for line in islice(text, SAMPLE_LINES) if line.strip()]
    except (OSError, EOFError) as error:
        raise unreadable(file, error) from error
    return lines


def _recognised(lines: Sequence[str]) -> str:
    """The separator that divides lines into the most fields, of equal number.

    Space is the last resort, since names and texts may contain it; a comma where nothing divides.
    """
    counts = {mark: _equal_number(_fields(lines, mark)) for mark in (",", ";", "\t", "|")}
    best = max(counts, key=lambda mark: counts[mark])
    if counts[best] > 1:
        return best
    return " " if _equal_number(_fields(lines, " ")) > 1 else ","


def _fields(lines: Sequence[str], mark: str) -> list[list[str]]:
    """The fields of each line; none if they cannot be told."""
    if mark == " ":
        return [line.split() for line in lines]
    try:
        return [row for row in csv.reader(lines, delimiter=mark) if row]
    except csv.Error:
        return []


def _equal_number(rows: Sequence[Sequence[str]]) -> int:
    """The number of fields of the header, if the rows have as many, or one more; else 0."""
    counts = [len(row) for row in rows] or [0]
    return counts[0] if all(counts[0] <= count <= counts[0] + 1 for count in counts) else 0
