"""Shards of one sweep, each with the runs of some points of the grid, as one dataset."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr

from dln_momentum.outputs.quantities import NOT_RUN


def join(shards: Sequence[xr.Dataset]) -> xr.Dataset:
    """The whole grid from datasets that hold the results of different points of it.

    A value over the grid is that of the shard that has run the point; where none has, status stays
    ``not run`` and floats nan. What does not depend on the points is that of the first shard that
    knows it.

    Args:
        shards: one or more results of one sweep: the same dimensions and coordinates, but for
            ``step`` and the length of ``coordinate``.

    Returns:
        The dataset of the sweep that was not cut, in every byte of every variable. Attributes that
        differ between shards hold each value once, one a line.

    Raises:
        ValueError: if the coordinates of the grids differ.

    >>> first = xr.Dataset({"status": ("seed", ["converged", "not run"]),
    ...                     "l1_norm": ("seed", [1.0, np.nan])}, {"seed": [0, 1]})
    >>> second = xr.Dataset({"status": ("seed", ["not run", "diverged"]),
    ...                      "l1_norm": ("seed", [np.nan, 2.0])}, {"seed": [0, 1]})
    >>> joined = join([first, second])
    >>> joined["status"].values.tolist(), joined["l1_norm"].values.tolist()
    (['converged', 'diverged'], [1.0, 2.0])
    """
    if len(shards) == 1:
        return shards[0]
    shards = _aligned(shards)
    first = shards[0]
    ran = [shard["status"] != NOT_RUN for shard in shards]
    grid = set(first["status"].dims)
    names = dict.fromkeys(name for shard in shards for name in shard.variables)
    found = {}
    for name in names:
        holders = [i for i, shard in enumerate(shards) if name in shard.variables]
        variables = [shards[i][name].variable for i in holders]
        if name == "status" or grid <= set(variables[0].dims):
            known = [ran[i].variable for i in holders]
        else:
            known = [_known(variable) for variable in variables]
        found[name] = _first_known(variables, known)
    coords = {name: found.pop(name) for name in names if name in first.coords}
    attrs = {key: _every(shards, key) for key in first.attrs}
    return xr.Dataset(found, coords, attrs)


def _aligned(shards: Sequence[xr.Dataset]) -> list[xr.Dataset]:
    """The shards over all records and coordinates that any has; the grids must be equal already."""
    grid = shards[0]["status"].dims
    for shard in shards[1:]:
        for dim in grid:
            if shard.sizes.get(dim) != shards[0].sizes[dim] or (
                dim in shard.coords and not shard[dim].equals(shards[0][dim])
            ):
                raise ValueError(f"the shards differ in {dim}")
    return list(xr.align(*shards, join="outer", exclude=set(grid)))


def _known(variable: xr.Variable) -> xr.Variable:
    """Where a value is known: numbers that are not nan, text that is not empty."""
    if variable.dtype.kind in "OUST":
        return variable.notnull() & (variable != "")
    return variable.notnull()


def _first_known(variables: Sequence[xr.Variable], known: Sequence[xr.Variable]) -> xr.Variable:
    """Each entry from the first variable that knows it, else from the first of all."""
    found = variables[0].copy()
    missing = ~known[0]
    for variable, here in zip(variables[1:], known[1:], strict=True):
        take = _spread(missing & here, found)
        values = found.values if found.ndim else found.values[()]
        chosen = np.where(take, variable.transpose(*found.dims).values, values)
        found = xr.Variable(found.dims, chosen.astype(found.dtype), found.attrs, found.encoding)
        missing = missing & ~here
    return found


def _spread(mask: xr.Variable, like: xr.Variable) -> np.ndarray:
    """A mask over some dimensions of a variable, to be broadcast against its values."""
    sizes = [mask.sizes.get(dim, 1) for dim in like.dims]
    return mask.transpose(*(dim for dim in like.dims if dim in mask.dims)).values.reshape(sizes)


def _every(shards: Sequence[xr.Dataset], key: object) -> object:
    values = list(dict.fromkeys(shard.attrs.get(key) for shard in shards if key in shard.attrs))
    return values[0] if len(values) == 1 else "\n".join(map(str, values))
