"""Problems from files: a NumPy archive or a CSV table."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from dln_momentum.data.standardise import Rows, standardised
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.problem import Problem

DIMENSIONS = {"X": 2, "y": 1, "theta_star": 1, "X_test": 2, "y_test": 1}
"""The arrays of an archive, without run dimensions; X and y are required."""


def load(
    path: str | Path | None = None, target: str | None = None, *, standardise: bool = False
) -> Problem:
    """Read an ``.npz`` archive or a ``.csv`` table, by the suffix.

    Args:
        path: the file.
        target: the column of a table that holds y; must be None for an archive.
        standardise: whether to apply `dln_momentum.data.standardise.standardised`.

    Raises:
        InputError: for another suffix, or as `from_npz` and `from_csv` do.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "problem.npz"
    >>> np.savez(path, X=[[1.0, 2.0, 2.0]], y=[9.0])
    >>> load(path)
    Problem('problem.npz', runs=[], n=1, d=3)
    >>> load("rows.xlsx")
    Traceback (most recent call last):
    dln_momentum.errors.InputError: path = 'rows.xlsx' must end in .npz or .csv
    """
    if path is None:
        raise InputError(["path is missing: it must name an .npz or .csv file"])
    suffix = Path(path).suffix.lower()
    if suffix == ".csv":
        return from_csv(path, target=target, standardise=standardise)
    if suffix != ".npz":
        raise InputError([f"path = {str(path)!r} must end in .npz or .csv"])
    if target is not None:
        raise InputError([f"target = {target!r} is for .csv files; an .npz holds y itself"])
    return from_npz(path, standardise=standardise)


def from_npz(path: str | Path, *, standardise: bool = False) -> Problem:
    """Read X [n, d], y [n] and optionally theta_star [d], X_test [m, d], y_test [m].

    Other keys are ignored and noted. Pickled objects are never loaded.

    Args:
        path: file written by ``numpy.savez``.
        standardise: whether to apply `dln_momentum.data.standardise.standardised`.

    Raises:
        InputError: for a missing or unreadable file, missing keys, or as `Problem` does.
    """
    arrays = read_archive(path, "path")
    missing = " and ".join(key for key in ("X", "y") if key not in arrays)
    if missing:
        held = ", ".join(sorted(arrays)) or "nothing"
        raise InputError([f"path = {str(path)!r} lacks {missing}; it holds {held}"])
    used = {key: arrays[key] for key in DIMENSIONS if key in arrays}
    raise_if_any(
        f"{key} has shape {array.shape}, must have {DIMENSIONS[key]} dimensions"
        for key, array in used.items()
        if array.ndim != DIMENSIONS[key]
    )
    ignored = ", ".join(sorted(set(arrays) - set(DIMENSIONS)))
    notes = (f"keys ignored: {ignored}",) if ignored else ()
    return _problem(Rows(**used, notes=notes), path, standardise)


def from_csv(path: str | Path, *, target: str | None = None, standardise: bool = False) -> Problem:
    r"""Read a table with a header: one column is y, the other numeric columns are X.

    Columns that are not numeric are dropped, and `Problem.notes` names them. There are no test
    rows. The table needs more numeric columns besides the target than rows.

    Args:
        path: comma-separated file, its first row the column names.
        target: name of the column that holds y.
        standardise: whether to apply `dln_momentum.data.standardise.standardised`.

    Raises:
        InputError: for a missing or unreadable file, a target that is not a numeric column, no
            other numeric column, or as `Problem` does (for missing values, for example).

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "table.csv"
    >>> _ = path.write_text("age,town,dose,effect\n1,Ulm,2,3\n")
    >>> problem = from_csv(path, target="effect")
    >>> problem.X, problem.notes
    (tensor([[1., 2.]], dtype=torch.float64), ('columns that are not numeric dropped: town',))
    """
    import pandas as pd

    file = _existing(path, "path")
    try:
        table = pd.read_csv(file)
    except (ValueError, OSError) as error:
        raise InputError([f"path = {str(path)!r} cannot be read: {error}"]) from error
    if len(table) == 0:
        raise InputError([f"path = {str(path)!r} holds no row below its header"])
    names = ", ".join(map(str, table.columns))
    if target not in table.columns:
        raise InputError([f"target = {target!r} must be one of the columns: {names}"])
    numeric = table.select_dtypes(["number", "bool"])
    if target not in numeric.columns:
        raise InputError([f"target = {target!r} must be a numeric column"])
    features = numeric.drop(columns=target)
    if features.columns.empty:
        raise InputError([f"path = {str(path)!r} has no numeric column beside {target!r}"])
    dropped = ", ".join(str(name) for name in table.columns if name not in numeric.columns)
    notes = (f"columns that are not numeric dropped: {dropped}",) if dropped else ()
    X, y = features.to_numpy(np.float64), numeric[target].to_numpy(np.float64)
    return _problem(Rows(X=X, y=y, notes=notes), path, standardise)


def read_archive(path: str | Path, key: str) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` by name, numeric ones in double precision.

    Args:
        path: the file.
        key: the key that names it, for errors.

    Raises:
        InputError: for a missing file, or one that is not an archive of arrays.
    """
    file = _existing(path, key)
    try:
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, NpzFile):
            raise ValueError("it holds one array without a name")
        with loaded as archive:
            arrays = {name: archive[name] for name in archive}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise InputError([f"{key} = {str(path)!r} cannot be read: {error}"]) from error
    # means and deviations of single-precision columns must not be rounded to single precision
    return {key: a.astype(np.float64) if a.dtype.kind in "biuf" else a for key, a in arrays.items()}


def _existing(path: str | Path, key: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise InputError([f"{key} = {str(path)!r} is not a file (working directory: {Path.cwd()})"])
    return file


def _problem(rows: Rows, path: str | Path, standardise: bool) -> Problem:
    return Problem(**vars(standardised(rows) if standardise else rows), name=Path(path).name)
