"""``history.nc``: a run over recorded steps, or a flow over times, as a labelled dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.outputs.changing_rates import times_at
from dln_momentum.outputs.quantities import describe
from dln_momentum.outputs.summary import rates
from dln_momentum.problem import Problem
from dln_momentum.schedules import Schedule


class History:
    """Values of every run at the recorded steps.

    >>> history = History()
    >>> history.record(0, {"train_loss": torch.tensor([1.0]), "theta": torch.zeros(1, 3)})
    >>> history.record(10, {"train_loss": torch.tensor([0.5]), "theta": torch.ones(1, 3)})
    >>> history.steps, history.column("theta").shape
    ([0, 10], torch.Size([2, 1, 3]))
    """

    def __init__(self) -> None:
        self.values: dict[str, dict[int, Tensor]] = {}

    def record(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Keep values [R] or [R, d] of one step; a value given again replaces the first."""
        for name, value in values.items():
            self.values.setdefault(name, {})[step] = value.detach().cpu().clone()

    @property
    def steps(self) -> list[int]:
        """The recorded steps, in order."""
        return sorted({step for column in self.values.values() for step in column})

    def column(self, name: str) -> Tensor:
        """One value at every step it was recorded at, [steps, R] or [steps, R, d]."""
        return torch.stack([value for _, value in sorted(self.values[name].items())])

    def columns(self) -> dict[str, Tensor]:
        """Every value at every recorded step, nan where it was not recorded."""
        return {name: self._filled(column) for name, column in self.values.items()}

    def _filled(self, column: Mapping[int, Tensor]) -> Tensor:
        blank = torch.full_like(next(iter(column.values())), torch.nan, dtype=torch.float64)
        return torch.stack([column.get(step, blank) for step in self.steps])

    def state_dict(self) -> dict[str, dict[str, Any]]:
        """Plain tensors, for a checkpoint."""
        return {
            name: {"steps": sorted(column), "values": self.column(name)}
            for name, column in self.values.items()
        }

    def load_state_dict(self, saved: Mapping[str, Mapping[str, Any]]) -> None:
        """Take back what a checkpoint holds."""
        self.values = {
            name: dict(zip(column["steps"], column["values"], strict=True))
            for name, column in saved.items()
        }


def run_history(
    columns: Mapping[str, Tensor],
    steps: Sequence[int],
    snapshot: Snapshot,
    schedule: Schedule,
    shape: tuple[int, ...] = (),
    dims: tuple[str, ...] = (),
) -> xr.Dataset:
    """Recorded values of runs over the dimensions step, those of the runs, and coordinate.

    Args:
        columns: values [T, R] or [T, R, d] by name.
        steps: the recorded steps, [T].
        snapshot: the runs at their end.
        schedule: of the runs.
        shape, dims: of the R runs; () for one.

    Returns:
        The values, with the coordinates step, time (step * eps, or the sum of eps_k over the steps
        where the rates change), coordinate, gamma, beta, lam, eps and lam_ks.
    """
    shaped = {
        name: value.reshape((len(steps), *shape, *value.shape[2:]))
        for name, value in columns.items()
    }
    found = labelled(shaped, ("step", *dims, "coordinate"), {"step": list(steps)})
    of_runs = {
        name: (dims, value.cpu().numpy().reshape(shape)) for name, value in rates(snapshot).items()
    }
    found = found.assign_coords(of_runs)
    if schedule.is_constant:
        found = found.assign_coords(time=found["step"] * found["eps"])
    else:
        times = times_at(schedule, snapshot.gamma[:, 0], snapshot.beta[:, 0], steps)
        found = found.assign_coords(time=(("step", *dims), times.reshape(len(steps), *shape)))
    return describe(found)


def flow_history(
    values: Mapping[str, Tensor], times: Tensor, problem: Problem, minimizer: Tensor
) -> xr.Dataset:
    """Values [T] or [T, d] of a flow at its times, with `with_targets`."""
    found = labelled(values, ("time", "coordinate"), {"time": times.numpy()})
    return with_targets(found, problem, minimizer)


def with_targets(history: xr.Dataset, problem: Problem, minimizer: Any) -> xr.Dataset:
    """The history of one run or flow with ``minimizer`` [d] and, if it is known, ``theta_star``."""
    history["minimizer"] = ("coordinate", np.asarray(minimizer))
    return with_theta_star(history, problem)


def with_theta_star(found: xr.Dataset, problem: Problem) -> xr.Dataset:
    """The described dataset, changed in place, with ``theta_star`` [d] if it is known."""
    if problem.theta_star is not None:
        found["theta_star"] = ("coordinate", problem.theta_star.cpu().numpy().reshape(-1))
    return describe(found)


def labelled(
    values: Mapping[str, Tensor], dims: Sequence[str], coords: Mapping[str, Any]
) -> xr.Dataset:
    """Tensors by name as a described dataset; each has as many of the first dimensions as it needs.

    >>> labelled({"energy": torch.ones(2), "theta": torch.ones(2, 3)}, ("time", "i"), {}).sizes
    Frozen({'time': 2, 'i': 3})
    """
    found = xr.Dataset(
        {name: (dims[: value.ndim], value.cpu().numpy()) for name, value in values.items()},
        coords=dict(coords),
    )
    if "coordinate" in found.dims:
        found = found.assign_coords(coordinate=np.arange(found.sizes["coordinate"]))
    return describe(found)
