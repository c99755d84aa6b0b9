"""The results of a study, put together from its pieces."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from dln_momentum.outputs.axis_keys import AXES, key_of
from dln_momentum.outputs.quantities import SEEDS
from dln_momentum.outputs.results import grid_dataset
from dln_momentum.sweeps.assembly import Study


def dataset(study: Study, pieces: Sequence[xr.Dataset]) -> xr.Dataset:
    """`grid_dataset` of a study, with alpha and the seeds as coordinates if they are not swept."""
    points, grid = study.points, study.grid
    gamma, beta = points.rates
    data = [name for name in grid.names if key_of(name).startswith("data.")]
    fixed = {}
    for name in ("alpha", *SEEDS):
        section, _, leaf = AXES[name].rpartition(".")
        value = (points.config[section] if section else points.config).get(leaf)
        if value is not None and name not in grid.names:
            fixed[name] = value
    return grid_dataset(
        pieces,
        grid,
        gamma,
        beta,
        (points.data.made, points.data.index, data),
        fixed=fixed,
        valid=points.valid,
    )
