"""Shards of one sweep, each with the runs of some points of the grid, as one dataset."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

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
    ...                     "l1_norm": ("seed", [1.0, float("nan")])}, {"seed": [0, 1]})
    >>> second = xr.Dataset({"status": ("seed", ["not run", "diverged"]),
    ...                      "l1_norm": ("seed", [float("nan"), 2.0])}, {"seed": [0, 1]})
    >>> joined = join([first, second])
    >>> joined["status"].values.tolist(), joined["l1_norm"].values.tolist()
    (['converged', 'diverged'], [1.0, 2.0])
    """
    if len(shards) == 1:
        return shards[0]
    first = shards[0]
    for shard in shards[1:]:
        for dim in first["status"].dims:
            same = dim not in shard.coords or shard[dim].equals(first[dim])
            if shard.sizes.get(dim) != first.sizes[dim] or not same:
                raise ValueError(f"the shards differ in {dim}")
    found = reduce(_joined, shards)
    # coordinates that differ by rounding, as of two processors, are those of the first
    found = found.assign_coords({name: first[name] for name in first.coords if name not in found})
    return found.assign_attrs({key: _every(shards, key) for key in first.attrs})


def _joined(found: xr.Dataset, shard: xr.Dataset) -> xr.Dataset:
    """A dataset with what another has run, and what only that knows."""
    ran = shard["status"] != NOT_RUN
    over_grid = [name for name, value in found.items() if set(ran.dims) <= set(value.dims)]
    filled = found.combine_first(shard)
    for name in over_grid:
        # also where the other shard has nan, or this one the filler of what it has not run
        if name in shard:
            own, other = xr.align(found[name], shard[name], join="outer")
            filled[name] = other.where(ran, own).transpose(*found[name].dims)
    return filled


def _every(shards: Sequence[xr.Dataset], key: object) -> object:
    values = list(dict.fromkeys(shard.attrs.get(key) for shard in shards if key in shard.attrs))
    return values[0] if len(values) == 1 else "\n".join(map(str, values))
