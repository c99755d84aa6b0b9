"""Arrays: archives of NumPy, SciPy's sparse matrices, torch's tensors and libsvm's format."""

from __future__ import annotations

import math
import pickle
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib.npyio import NpzFile

from dln_momentum.arrays import check_size, dense_of
from dln_momentum.data.rows import Rows, existing, signs_of
from dln_momentum.errors import InputError, raise_if_any
from dln_momentum.extras import naming_extra
from dln_momentum.memory import available_bytes

DIMENSIONS = {"X": 2, "y": 1, "theta_star": 1, "X_test": 2, "y_test": 1}
"""The arrays of a problem, without run dimensions; X and y are required."""

Arrays = dict[str, np.ndarray]

ONE = ""
"""The name of an array that has none."""


def read(reader: Callable[[Path], Arrays], file: Path, key: str, given: Any) -> Arrays:
    """The arrays of a file by name, numeric ones in double precision.

    Args:
        reader: of the kind of the file.
        file: the file.
        key: the key that names it, and
        given: its value, for errors.

    Raises:
        InputError: for a file that the reader cannot read.
    """
    try:
        found = reader(file)
    except InputError as error:
        raise InputError(f"{key} = {str(given)!r}: {line}" for line in error.problems) from error
    except Exception as error:  # what the bytes of a damaged file raise is open-ended
        reason = _reason(error)
        raise InputError([f"{key} = {str(given)!r} cannot be read: {reason}"]) from error
    # means and deviations of single-precision columns must not be rounded to single precision
    return {
        k: a.astype(np.float64, copy=False) if a.dtype.kind in "biuf" else a
        for k, a in found.items()
    }


def _reason(error: Exception) -> str:
    """What an error says, without the advice of NumPy and torch to execute what a file holds."""
    if isinstance(error, pickle.UnpicklingError) or "allow_pickle" in str(error):
        return "it holds no arrays, or pickled objects among them, which are never loaded"
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_archive(path: str | Path, key: str) -> Arrays:
    """The arrays of an ``.npz`` by name, numeric ones in double precision.

    Args:
        path: the file.
        key: the key that names it, for errors.

    Raises:
        InputError: for a missing file, or one that is not an archive of arrays.
    """
    return read(read_npz, existing(path, key), key, path)


def target(reader: Callable[[Path], Arrays], file: Path, given: Any) -> Arrays:
    """y of a file that holds one array, or an array y."""
    found = read(reader, file, "target_path", given)
    y = found.get("y", found.get(ONE))
    if y is None:
        held = ", ".join(sorted(found)) or "nothing"
        raise InputError([f"target_path = {str(given)!r} lacks y; it holds {held}"])
    return {"y": y}


def rows_of(found: Arrays, path: str | Path) -> Rows:
    """The arrays of a problem among those of a file; other names are noted.

    Raises:
        InputError: for missing arrays, other numbers of dimensions, or y of text that is not of two
            classes.
    """
    if ONE in found:
        found = {"X": found[ONE]} | {key: a for key, a in found.items() if key != ONE}
    missing = [key for key in ("X", "y") if key not in found]
    if missing == ["y"] and len(found) == 1:
        raise InputError(
            [f"path = {str(path)!r} holds X alone: target_path must name the file that holds y"]
        )
    if missing:
        held = ", ".join(sorted(found)) or "nothing"
        raise InputError([f"path = {str(path)!r} lacks {' and '.join(missing)}; it holds {held}"])
    used = {key: _squeezed(found[key], DIMENSIONS[key]) for key in DIMENSIONS if key in found}
    raise_if_any(
        f"{key} has shape {array.shape}, must have {DIMENSIONS[key]} dimensions"
        for key, array in used.items()
        if array.ndim != DIMENSIONS[key]
    )
    ignored = ", ".join(sorted(set(found) - set(DIMENSIONS)))
    notes = [f"keys ignored: {ignored}"] if ignored else []
    texts = {k: used[k] for k in ("y", "y_test") if k in used and used[k].dtype.kind in "US"}
    if texts:
        signs, note = signs_of([*texts.values()], "y")
        used |= dict(zip(texts, signs, strict=True))
        notes.append(note)
    return Rows(**used, notes=tuple(notes))


def read_npz(file: Path) -> Arrays:
    """The arrays of an archive; pickled objects are never loaded. A sparse matrix has no name."""
    # NumPy leaves a file open that it cannot read
    with file.open("rb") as stream:
        loaded = np.load(stream, allow_pickle=False)
        if not isinstance(loaded, NpzFile):
            raise ValueError("it holds one array without a name")
        with loaded as archive:
            members: Any = archive.zip
            for member in members.namelist():
                with members.open(member) as array:
                    _check_declared(member.removesuffix(".npy"), array)
            if {"format", "shape", "data"} <= set(archive):
                from scipy import sparse

                return {ONE: dense_of("X", sparse.load_npz(file))}
            return {name: archive[name] for name in archive}


def read_npy(file: Path) -> Arrays:
    """The one array of a file."""
    with file.open("rb") as stream:
        _check_declared("the array", stream)
        stream.seek(0)
        loaded = np.load(stream, allow_pickle=False)
    if not isinstance(loaded, np.ndarray):
        raise ValueError("it holds several arrays: it must end in .npz")
    return {ONE: loaded}


def _check_declared(name: str, stream: IO[bytes]) -> None:
    """Raise `InputError` for an array that is larger, by its header, than memory.

    A few bytes of an archive may expand to any size.
    """
    try:
        version = np.lib.format.read_magic(stream)
        read = {(1, 0): np.lib.format.read_array_header_1_0}
        shape, _, kind = read.get(version, np.lib.format.read_array_header_2_0)(stream)
    except Exception:  # for the reader to refuse
        return
    _check_memory(name, shape, kind.itemsize)


def _check_memory(name: str, shape: Sequence[int], itemsize: int) -> None:
    # what is computed with takes 8 bytes an entry
    needed, room = max(itemsize, 8) * math.prod(shape), available_bytes()
    if needed > room:
        raise InputError(
            [f"{name} is {' x '.join(map(str, shape))} and would take {needed / 2**30:.3g} GiB; "
             f"{room / 2**30:.3g} GiB of memory are available"]
        )  # fmt: skip


def read_torch(file: Path) -> Arrays:
    """Tensors by name, or X and y, or one; other pickled objects are never loaded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of how the file was pickled
        found = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(found, torch.Tensor):
        found = {ONE: found}
    elif isinstance(found, list | tuple) and len(found) == 2:
        found = dict(zip(("X", "y"), found, strict=True))
    if not isinstance(found, dict) or not all(isinstance(x, torch.Tensor) for x in found.values()):
        raise ValueError("it must hold tensors X and y: torch.save({'X': X, 'y': y}, path)")
    return {str(name): _array(tensor) for name, tensor in found.items()}


def read_libsvm(file: Path) -> Arrays:
    """X and y of lines "y column:value ...", with columns counted from 0 or 1."""
    with naming_extra():
        from sklearn.datasets import load_svmlight_file

    X, y = load_svmlight_file(str(file))[:2]
    return {"X": dense_of("X", X), "y": y}


def _array(tensor: torch.Tensor) -> np.ndarray:
    if tensor.layout != torch.strided:
        check_size("X", tensor.shape)
    _check_memory("a tensor", tensor.shape, tensor.element_size())
    dense = tensor.detach().to_dense() if tensor.layout != torch.strided else tensor.detach()
    return (dense.double() if dense.is_floating_point() else dense).numpy()


def _squeezed(array: np.ndarray, dimensions: int) -> np.ndarray:
    """A column [n, 1] as a vector, where one is wanted."""
    column = dimensions == 1 and array.ndim == 2 and array.shape[1] == 1
    return array[:, 0] if column else array
