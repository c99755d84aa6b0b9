"""Our NetCDF files against what xarray reads from them and writes itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dln_momentum.outputs.files import write_dataset

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0", exclude_categories=["Cs"]))


@st.composite
def datasets(draw: st.DrawFn) -> xr.Dataset:
    """Variables of every kind over some of three dimensions, which may be empty or lack labels."""
    sizes = {name: draw(st.integers(0, 4)) for name in ("step", "lam", "coordinate")}
    rng = np.random.default_rng(draw(st.integers(0, 9)))

    def variable(kind: str) -> xr.Variable:
        dims = [name for name in sizes if draw(st.booleans())]
        shape = tuple(sizes[name] for name in dims)
        values = np.full(shape, np.nan) if draw(st.booleans()) else rng.normal(size=shape)
        if kind == "i":
            values = rng.integers(-(2**62), 2**62, size=shape)
        if kind == "t":
            values = np.full(shape, draw(TEXTS), dtype=object)
        if kind == "b":
            values = np.full(shape, draw(st.booleans()))
        attrs = {"long_name": draw(TEXTS), "number": draw(st.floats(allow_nan=False))}
        return xr.Variable(dims, np.asarray(values), attrs)

    kinds = draw(st.lists(st.sampled_from("fitb"), max_size=6))
    found = xr.Dataset({f"v{i}": variable(kind) for i, kind in enumerate(kinds)})
    coords = {name: np.arange(size) for name, size in sizes.items() if draw(st.booleans())}
    coords = {name: value for name, value in coords.items() if name in found.sizes}
    found = found.assign_coords(coords)
    for name in draw(st.sets(st.sampled_from(list(found.data_vars) or ["none"]), max_size=2)):
        found = found.set_coords(name) if name in found else found
    return found.assign_attrs(config=draw(TEXTS))


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(dataset=datasets())
def test_xarray_reads_what_was_written(dataset: xr.Dataset, tmp_path: Path) -> None:
    write_dataset(tmp_path / "a.nc", dataset)
    found = xr.load_dataset(tmp_path / "a.nc", engine="h5netcdf")
    xr.testing.assert_identical(found, dataset)
    for name, variable in dataset.variables.items():
        if variable.dtype.kind != "O":
            assert found[name].dtype == variable.dtype


def test_other_readers_open_it(tmp_path: Path) -> None:
    netcdf = pytest.importorskip("netCDF4")
    steps = np.arange(5)
    dataset = xr.Dataset(
        {"theta": (("step", "coordinate"), np.ones((5, 3))), "status": ("step", ["a"] * 5)},
        {"step": steps, "eps": 0.1},
    )
    write_dataset(tmp_path / "a.nc", dataset)
    with netcdf.Dataset(tmp_path / "a.nc") as file:
        assert file["theta"].dimensions == ("step", "coordinate")
        assert file.dimensions["coordinate"].size == 3
        assert file["status"][:].tolist() == ["a"] * 5
    assert xr.load_dataset(tmp_path / "a.nc", engine="netcdf4").identical(dataset)
