"""The results of a piece on disk: arrays in an ``.npz``, a tenth of the time of a NetCDF file."""

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
        raise InputError([changed(path)])
    return found


def changed(path: Path) -> str:
    """What to say of a piece that is not the one that would be made today."""
    return f"data: the data have changed since {path} was made; start anew"


def read_piece(path: Path) -> xr.Dataset:
    """The dataset that `write_piece` has written, the same bits."""
    with np.load(path, allow_pickle=False) as archive:
        arrays = dict(archive)
    layout = json.loads(str(arrays.pop(LAYOUT)))
    found = {name: xr.Variable(layout["dims"][name], array) for name, array in arrays.items()}
    coords = {name: found.pop(name) for name in layout["coords"]}
    return xr.Dataset(found, coords, layout["attrs"])
