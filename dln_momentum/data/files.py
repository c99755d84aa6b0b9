"""Problems from files: tables with named columns, and arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dln_momentum.arrays import flag_of, owned
from dln_momentum.data import arrays, tables
from dln_momentum.data.rows import Rows, checked_path, drawn, existing
from dln_momentum.data.standardise import standardised
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.problem import Problem

TABLES: dict[str, Callable[..., tables.Table]] = {
    ".csv": tables.read_text,
    ".tsv": tables.read_text,
    ".txt": tables.read_text,
    ".parquet": tables.read_parquet,
}
"""Readers of tables by suffix; column ``target`` is y."""

ARRAYS: dict[str, Callable[[Path], arrays.Arrays]] = {
    ".npz": arrays.read_npz,
    ".npy": arrays.read_npy,
    ".pt": arrays.read_torch,
    ".pth": arrays.read_torch,
    ".svm": arrays.read_libsvm,
    ".libsvm": arrays.read_libsvm,
}
"""Readers of arrays by suffix."""

COMPRESSED = (".gz", ".bz2")
"""Suffixes that may follow that of a text file."""

ARGUMENTS = ("path", "target", "target_path", "separator", "decimal", "rows", "seed", "standardise")
"""Of `load`; an error that begins with none of them is about what the file holds."""


def load(
    path: str | Path | None = None,
    target: str | None = None,
    *,
    target_path: str | Path | None = None,
    separator: str | None = None,
    decimal: str | None = None,
    rows: int | None = None,
    seed: int = 0,
    standardise: bool = False,
) -> Problem:
    r"""Read a problem from a file, by its suffix.

    ======================  ====================================================================
    suffix                  content
    ======================  ====================================================================
    ``.csv, .tsv, .txt``    a table of text, its first row the names of the columns; may be
                            compressed (``.gz``, ``.bz2``)
    ``.parquet``            a table; needs the extra ``parquet``
    ``.npz``                X [n, d], y [n], optionally theta_star [d], X_test [m, d] and y_test
                            [m], by ``numpy.savez``; or a sparse X by ``scipy.sparse.save_npz``
    ``.npy``                X alone, by ``numpy.save``
    ``.pt, .pth``           tensors by these names, X and y, or X alone, by ``torch.save``
    ``.svm, .libsvm``       X and y in libsvm's format; may be compressed
    ======================  ====================================================================

    Of a table, the numeric columns other than the target are X. Columns of text are dropped, and so
    are columns without a name, as the index that ``DataFrame.to_csv`` writes. Text of two classes
    as y becomes -1 and +1, in alphabetical order. `Problem.notes` says what was done. Columns
    [n, 1] are read as vectors. Sparse matrices become dense.

    Args:
        path: the file.
        target: the column of a table that holds y; None for arrays.
        target_path: the file that holds y (``.npy``, or another file of arrays), where ``path``
            holds X alone.
        separator: of the columns of a text: a character, or comma, semicolon, tab, space or bar;
            None to recognise it.
        decimal: the decimal mark of a text: a character, or point or comma; None to recognise
            columns of numbers with a comma, unless the comma separates.
        rows: how many training rows to draw; the other rows become the test rows, unless the file
            has test rows of its own. None for all rows as they stand. The rows drawn for a smaller
            number are among those for a larger one.
        seed: of that draw, in [0, 2^64).
        standardise: whether to apply `dln_momentum.data.standardise.standardised`, after the draw.

    Raises:
        InputError: for a missing or unreadable file, arguments that do not fit its kind, or as
            `Problem` does (for missing values, for example).

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "table.csv"
    >>> _ = path.write_text(";town;dose;age;effect\n0;Ulm;2,5;1;3\n1;Bonn;1,5;1;2\n")
    >>> problem = load(path, target="effect", rows=1)
    >>> problem.X.tolist(), problem.X_test.tolist()
    ([[1.5, 1.0]], [[2.5, 1.0]])
    >>> for note in problem.notes:
    ...     print(note)
    columns without a name dropped, as an index: Unnamed: 0
    decimal commas read in: dose
    columns that are not numeric dropped: town
    1 of 2 rows drawn with seed 0; the others are test rows
    >>> load("rows.xlsx")
    Traceback (most recent call last):
    dln_momentum.errors.InputError: path = 'rows.xlsx' must end in .csv, .tsv, .txt, .parquet, .npz,
    .npy, .pt, .pth, .svm or .libsvm
    """
    if path is None:
        raise InputError(["path is missing: it must name a file of data"])
    suffix, standardise = _suffix("path", path), flag_of("standardise", standardise)
    raise_if_any(
        f"{key} = {value!r} must be a text"
        for key, value in (("target", target), ("separator", separator), ("decimal", decimal))
        if not isinstance(value, str | None)
    )
    only_tables = {"target": target, "separator": separator, "decimal": decimal}
    with _naming(path):
        if suffix in TABLES:
            given = {"target_path": target_path}
            raise_if_any(_misplaced(given, f"files of arrays; {suffix} holds y as column `target`"))
            file = existing(path, "path")
            table = TABLES[suffix](file, separator=separator, decimal=decimal)
            found = tables.rows_of(table, target)
        else:
            allowed = f"tables ({', '.join(TABLES)}), not for {suffix}"
            raise_if_any(_misplaced(only_tables, allowed))
            found = _rows_of_arrays(path, suffix, target_path)
        name = Path(path).name
        if rows is not None:
            found = drawn(found, rows, seed)
            name = f"{name} rows={rows} seed={seed}"
        found = standardised(found) if standardise else found
        return Problem(**{key: owned(value) for key, value in vars(found).items()}, name=name)


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Name the file in an error that is about what it holds."""
    try:
        yield
    except InputError as error:
        raise InputError(
            line
            if line.startswith(tuple(f"{key} " for key in ARGUMENTS))
            else f"path = {str(path)!r}: {line}"
            for line in error.problems
        ) from error


def _rows_of_arrays(path: str | Path, suffix: str, target_path: str | Path | None) -> Rows:
    found = arrays.read(ARRAYS[suffix], existing(path, "path"), "path", path)
    if target_path is not None:
        ending = _suffix("target_path", target_path)
        if ending in TABLES:
            raise InputError([f"target_path = {str(target_path)!r} must end in {_list(ARRAYS)}"])
        file = existing(target_path, "target_path")
        found |= arrays.target(ARRAYS[ending], file, target_path)
    return arrays.rows_of(found, path)


def _suffix(key: str, path: str | Path) -> str:
    """The suffix of a file that has a reader."""
    suffixes = [suffix.lower() for suffix in checked_path(path, key).suffixes]
    compressed = bool(suffixes) and suffixes[-1] in COMPRESSED
    suffix = "".join(suffixes[-2:-1] if compressed else suffixes[-1:])
    binary = suffix in (".npz", ".npy", ".pt", ".pth", ".parquet")
    if suffix not in TABLES | ARRAYS or (compressed and binary):
        known = _list(TABLES | ARRAYS)
        raise InputError([f"{key} = {str(path)!r} must end in {known}"])
    return suffix


def _misplaced(given: dict[str, Any], belongs: str) -> Iterator[str]:
    return (
        f"{key} = {str(value)!r} is for {belongs}"
        for key, value in given.items()
        if value is not None
    )


def _list(names: Any) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"
