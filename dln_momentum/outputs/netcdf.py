"""A labelled dataset as a NetCDF-4 file, in a fifth of the time that xarray takes to write it.

A history has forty variables of a few thousand numbers. Their layout costs h5netcdf 5 ms a
variable, more than everything else that a job of a multirun writes. A NetCDF-4 file is an HDF5 file
in which each dimension is a dimension scale and each variable is attached to the scales of its
dimensions; that is written here as xarray writes it, and xarray reads it back identically.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

CHUNK = 2**17
"""Numbers of a variable up to which it is one chunk; larger ones are divided by HDF5's own rule."""

LEAST = 2**13
"""Numbers of a variable from which it is compressed; smaller ones are hardly smaller for it."""


def write(dataset: xr.Dataset, path: Path) -> None:
    """Write a dataset of numbers and text.

    Args:
        dataset: its variables hold integers, floats or text; anything else is left to xarray.
        path: the file.
    """
    arrays = {name: variable.to_numpy() for name, variable in dataset.variables.items()}
    if not all(map(_is_plain, arrays.values())):
        dataset.to_netcdf(path, engine="h5netcdf")
        return
    import h5py

    dims = {name: variable.dims for name, variable in dataset.variables.items()}
    labels, sizes = set(dataset.coords), dict(dataset.sizes)
    others = {c: set(dims[c]) for c in dataset.coords if c not in sizes}
    with h5py.File(path, "w", libver=("earliest", "v108"), track_order=True) as file:
        _describe(file, dataset.attrs)
        scales: dict[Hashable, Any] = {}
        told = set[Hashable]()

        def created(name: Hashable) -> Any:
            attrs = dataset.variables[name].attrs
            return _created(file, str(name), arrays[name], attrs, is_label=name in labels)

        for number, (dim, size) in enumerate(sizes.items()):
            if dim in arrays:
                scale = created(dim)
            else:
                # how NetCDF-4 marks a dimension that no variable has the name of
                scale = file.create_dataset(str(dim), (size,), dtype=">f4")
            without = f"This is a netCDF dimension but not a netCDF variable. {size:>10}"
            scale.make_scale(str(dim) if dim in arrays else without)
            scale.attrs["_Netcdf4Dimid"] = np.int32(number)
            scales[dim] = scale
        for name, own in dims.items():
            if name not in scales:
                made = created(name)
                for place, dim in enumerate(own):
                    h5py.h5ds.attach_scale(made.id, scales[dim].id, place)
                with_it = [c for c, needed in others.items() if needed <= set(own)]
                if with_it and name not in others:
                    _describe(made, {"coordinates": " ".join(map(str, with_it))})
                    told |= set(with_it)
        if rest := [str(c) for c in others if c not in told]:
            file.attrs["coordinates"] = " ".join(rest)


def _is_plain(array: np.ndarray) -> bool:
    text = array.dtype.kind == "O" and all(isinstance(value, str) for value in array.flat)
    return array.dtype.kind in "fiuU" or text


def _created(
    file: Any, name: str, array: np.ndarray, attrs: Mapping[Hashable, Any], *, is_label: bool
) -> Any:
    """The HDF5 dataset of one variable, with its attributes."""
    import h5py

    if array.dtype.kind in "OU":
        text = {"dtype": h5py.string_dtype(), "track_order": True}
        created = file.create_dataset(name, data=array.astype(object), **text)
    elif array.ndim and array.size >= LEAST and not is_label:
        chunks = array.shape if array.size <= CHUNK else True
        options = {"chunks": chunks, "compression": "gzip", "compression_opts": 4, "shuffle": True}
        created = file.create_dataset(name, data=array, track_order=True, **options)
    else:
        created = _plain(file, name, array)
    if array.dtype.kind == "f" and not is_label:
        kind, one, missing = _missing(array.dtype)
        h5py.h5a.create(created.id, b"_FillValue", kind, one).write(missing)
    _describe(created, attrs)
    return created


def _plain(file: Any, name: str, array: np.ndarray) -> Any:
    """A dataset of numbers as they are, in a third of the time that h5py takes to consider more."""
    import h5py

    kind, options = _plain_options(array.dtype)
    space = h5py.h5s.create_simple(array.shape)
    made = h5py.h5d.create(file.id, name.encode(), kind, space, dcpl=options)
    made.write(h5py.h5s.ALL, h5py.h5s.ALL, np.asarray(array, order="C"))
    return h5py.Dataset(made)


@cache
def _plain_options(dtype: np.dtype) -> tuple[Any, Any]:
    """What h5py asks of HDF5 for numbers that are not divided, with their attributes in order."""
    import h5py

    found = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    found.set_obj_track_times(False)
    found.set_attr_creation_order(h5py.h5p.CRT_ORDER_TRACKED | h5py.h5p.CRT_ORDER_INDEXED)
    return h5py.h5t.py_create(dtype, logical=True), found


@cache
def _missing(dtype: np.dtype) -> tuple[Any, Any, np.ndarray]:
    """What stands for no value, as an attribute."""
    import h5py

    kind, one = h5py.h5t.py_create(dtype, logical=True), h5py.h5s.create_simple((1,))
    return kind, one, np.array([np.nan], dtype=dtype)


def _describe(place: Any, attrs: Mapping[Hashable, Any]) -> None:
    """Write attributes; a history has a hundred of text."""
    import h5py

    for key, value in attrs.items():
        content = value.encode() if isinstance(value, str) else b""
        if content and b"\0" not in content:
            kind, scalar = _text_type(len(content))
            h5py.h5a.create(place.id, str(key).encode(), kind, scalar).write(
                np.array(content), kind
            )
        else:
            place.attrs[str(key)] = value


@cache
def _text_type(size: int) -> tuple[Any, Any]:
    """Text of so many bytes, and the space of one: NetCDF's characters.

    Text of any length, which h5py writes, HDF5 keeps in a heap of its own, which takes longer.
    """
    import h5py

    found = h5py.h5t.C_S1.copy()
    found.set_size(size)
    found.set_strpad(h5py.h5t.STR_NULLPAD)
    found.set_cset(h5py.h5t.CSET_UTF8)
    return found, h5py.h5s.create(h5py.h5s.SCALAR)
