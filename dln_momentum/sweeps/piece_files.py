"""The results of a piece on disk: arrays in an ``.npz``, a tenth of the time of a NetCDF file.

A sweep has many pieces, and reads them again when it puts its results together: what `read_piece`
gives holds no values, but reads those of a variable whenever they are asked for.
"""

from __future__ import annotations

import json
import logging
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray
from xarray.core import indexing

from dln_momentum.errors import InputError
from dln_momentum.outputs.files import write_whole

log = logging.getLogger("dln_momentum")

LAYOUT = "layout"
"""The entry with the dimensions of every array and the attributes, as JSON."""


def write_piece(path: Path, piece: xr.Dataset) -> None:
    """Write a dataset of numbers, whole or not at all."""
    layout = {
        "dims": {str(name): list(variable.dims) for name, variable in piece.variables.items()},
        "coords": [str(name) for name in piece.coords],
        "attrs": piece.attrs,
    }
    arrays: dict[str, Any] = {str(name): v.to_numpy() for name, v in piece.variables.items()}
    arrays[LAYOUT] = np.array(json.dumps(layout))

    def write(target: Path) -> None:
        with target.open("wb") as file:
            # older versions of NumPy know no allow_pickle here; what is read back has no pickles
            np.savez(file, **arrays)

    write_whole(path, write, durable=True)


def finished_piece(path: Path) -> xr.Dataset | None:
    """The dataset of a file, None without one, or with one that a crash of the machine has cut."""
    if not path.exists():
        return None
    try:
        return read_piece(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        log.warning("%s cannot be read; what it held is done anew", path)
        return None


def kept_piece(path: Path, data: str, make: Callable[[], xr.Dataset]) -> xr.Dataset:
    """The piece of a file, made and written first if it is not there; always read from the file.

    Args:
        path: the file.
        data: the hash of the data that the piece is about, an attribute of what is written.
        make: makes it.

    Raises:
        InputError: for a piece of other data.
    """
    found = finished_piece(path)
    if found is None:
        write_piece(path, make().assign_attrs(data_hash=data))
        found = read_piece(path)
    if found.attrs["data_hash"] != data:
        raise InputError([f"data: the data have changed since {path} was made; start anew"])
    return found


def read_piece(path: Path) -> xr.Dataset:
    """The dataset that `write_piece` has written, the same bits; read whole once, to check it.

    Its values stay in the file, but for those of its indices.
    """
    with np.load(path, allow_pickle=False) as archive:
        layout = json.loads(str(archive[LAYOUT]))
        found = {
            name: xr.Variable(dims, indexing.LazilyIndexedArray(_Entry(path, name, archive[name])))
            for name, dims in layout["dims"].items()
        }
    coords = {name: found.pop(name) for name in layout["coords"]}
    return xr.Dataset(found, coords, layout["attrs"])


class _Entry(BackendArray):
    """An array of a file, which has been read for its shape and its type."""

    def __init__(self, path: Path, name: str, array: np.ndarray) -> None:
        self._path, self._name = path, name
        self.shape, self.dtype = array.shape, array.dtype

    def __getitem__(self, key: indexing.ExplicitIndexer) -> Any:
        return indexing.explicit_indexing_adapter(
            key, self.shape, indexing.IndexingSupport.OUTER_1VECTOR, self._read
        )

    def _read(self, key: Any) -> np.ndarray:
        with np.load(self._path, allow_pickle=False) as archive:
            return archive[self._name][key]
