"""Data of one's own: a NumPy archive or a CSV table."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from dln_momentum.data.standardise import Rows, standardised
from dln_momentum.problem import Problem, ProblemError

REQUIRED = ("X", "y")
DIMENSIONS = {"X": 2, "y": 1, "theta_star": 1, "X_test": 2, "y_test": 1}
"""What an archive may hold: one problem, without run dimensions."""


def from_file(
    path: str | Path | None = None, target: str | None = None, *, standardise: bool = False
) -> Problem:
    """Read an ``.npz`` archive or a ``.csv`` table, by the end of its name.

    Args:
        path: the file.
        target: the column of a table that holds y; must be None for an archive.
        standardise: see `dln_momentum.data.standardise.standardised`.

    Raises:
        ProblemError: for another ending, or as `from_npz` and `from_csv` do.

    >>> from_file("rows.xlsx")
    Traceback (most recent call last):
    dln_momentum.problem.ProblemError: data.path = 'rows.xlsx' must end in .npz or .csv
    """
    if path is None:
        raise ProblemError(["data.path is missing: it must name an .npz or .csv file"])
    suffix = Path(path).suffix.lower()
    if suffix == ".csv":
        return from_csv(path, target=target, standardise=standardise)
    if suffix != ".npz":
        raise ProblemError([f"data.path = {str(path)!r} must end in .npz or .csv"])
    if target is not None:
        raise ProblemError([f"data.target = {target!r} is for .csv files; an .npz holds y itself"])
    return from_npz(path, standardise=standardise)


def from_npz(path: str | Path, *, standardise: bool = False) -> Problem:
    """Read X [n, d], y [n] and optionally theta_star [d], X_test [m, d], y_test [m].

    Other keys are left alone and noted. Pickled objects are never loaded.

    Args:
        path: file written by ``numpy.savez``.
        standardise: see `dln_momentum.data.standardise.standardised`.

    Raises:
        ProblemError: for a missing or unreadable file, missing keys, or what `Problem` refuses.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "problem.npz"
    >>> np.savez(path, X=[[1.0, 2.0, 2.0]], y=[9.0])
    >>> from_npz(path)
    Problem('problem.npz', runs=[], n=1, d=3)
    """
    arrays = read_archive(path, "data.path")
    missing = [key for key in REQUIRED if key not in arrays]
    if missing:
        raise ProblemError(
            [
                f"data.path = {str(path)!r} lacks {' and '.join(missing)}; "
                f"it holds {', '.join(sorted(arrays)) or 'nothing'}"
            ]
        )
    used = {key: arrays[key] for key in DIMENSIONS if key in arrays}
    wrong = [
        f"{key} has shape {array.shape}, must have {DIMENSIONS[key]} dimensions"
        for key, array in used.items()
        if array.ndim != DIMENSIONS[key]
    ]
    if wrong:
        raise ProblemError(wrong)
    ignored = sorted(set(arrays) - set(DIMENSIONS))
    notes = (f"keys ignored: {', '.join(ignored)}",) if ignored else ()
    return _problem(Rows(**used, notes=notes), Path(path).name, standardise)


def from_csv(path: str | Path, *, target: str | None = None, standardise: bool = False) -> Problem:
    """Read a table with a header: one column is y, the other numeric columns are X.

    Columns that are not numeric are dropped, and `Problem.notes` names them. There are no test
    rows, and a table with n >= d numeric columns besides the target is refused.

    Args:
        path: comma-separated file, its first row the column names.
        target: name of the column that holds y.
        standardise: see `dln_momentum.data.standardise.standardised`.

    Raises:
        ProblemError: for a missing or unreadable file, a target that is no numeric column, no
            numeric column beside it, or what `Problem` refuses (missing values among it).

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "table.csv"
    >>> _ = path.write_text("age,town,dose,effect\\n1,Ulm,2,3\\n")
    >>> problem = from_csv(path, target="effect")
    >>> problem.X, problem.notes
    (tensor([[1., 2.]], dtype=torch.float64), ('columns that are not numeric dropped: town',))
    """
    import pandas as pd

    file = _existing(path, "data.path")
    try:
        table = pd.read_csv(file)
    except (ValueError, OSError) as error:
        raise ProblemError([f"data.path = {str(path)!r} cannot be read: {error}"]) from error
    if len(table) == 0:
        raise ProblemError([f"data.path = {str(path)!r} holds no row below its header"])
    names = ", ".join(map(str, table.columns))
    if target not in table.columns:
        raise ProblemError([f"data.target = {target!r} must be one of the columns: {names}"])
    numeric = table.select_dtypes(["number", "bool"])
    if target not in numeric.columns:
        raise ProblemError([f"data.target = {target!r} must be a numeric column"])
    features = numeric.drop(columns=target)
    if features.columns.empty:
        raise ProblemError([f"data.path = {str(path)!r} has no numeric column beside {target!r}"])
    dropped = [str(name) for name in table.columns if name not in numeric.columns]
    notes = (f"columns that are not numeric dropped: {', '.join(dropped)}",) if dropped else ()
    X, y = features.to_numpy(np.float64), numeric[target].to_numpy(np.float64)
    return _problem(Rows(X=X, y=y, notes=notes), file.name, standardise)


def _existing(path: str | Path, key: str) -> Path:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ProblemError([f"{key} = {str(path)!r} is no file (looked in {Path.cwd()})"])
    return file


def read_archive(path: str | Path, key: str) -> dict[str, np.ndarray]:
    """The arrays of an ``.npz`` by name, those of numbers in double precision.

    Args:
        path: the file.
        key: the config key that names it, for errors.

    Raises:
        ProblemError: for a missing file, or one that is no archive of arrays.
    """
    file = _existing(path, key)
    try:
        loaded = np.load(file, allow_pickle=False)
        if not isinstance(loaded, NpzFile):
            raise ValueError("it holds one array without a name")
        with loaded as archive:
            arrays = {name: archive[name] for name in archive}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ProblemError([f"{key} = {str(path)!r} cannot be read: {error}"]) from error
    # means and deviations of single-precision columns must not be rounded to single precision
    return {key: a.astype(np.float64) if a.dtype.kind in "biuf" else a for key, a in arrays.items()}


def _problem(rows: Rows, name: str, standardise: bool) -> Problem:
    return Problem(**vars(standardised(rows) if standardise else rows), name=name)
