"""What runs leave behind: labelled histories and one-line summaries."""

from __future__ import annotations

import json
import math
import os
import platform
import tempfile
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

PACKAGES = ("dln-momentum", "torch", "lightning", "hydra-core", "numpy", "numba", "scipy")

LONG_NAMES = {
    "theta": "predictor u v",
    "balancedness": "Delta = |u^2 - v^2|",
    "balancedness_l1": "||Delta||_1",
    "min_balancedness_ratio": "min_i Delta_i / Delta_{0,i}",
    "sign_changes": "sign changes of the entries of w_+- so far",
    "s_plus": "path sum S_+",
    "s_minus": "path sum S_-",
    "s_plus_total": "sum of S_+ over the coordinates",
    "s_minus_total": "sum of S_- over the coordinates",
    "i_plus": "path integral I_+",
    "i_minus": "path integral I_-",
    "path_sum_balancedness_error": "max_i |Delta / (Delta_0 exp(-(S_+ + S_-))) - 1|",
    "path_identity_error": "the same with the boundary terms of S_+-",
    "path_integral_balancedness_error": "max_i error of Delta against Delta_0 exp(-(I_+ + I_-))",
    "path_integral_identity_error": "the same with the boundary terms of I_+-",
    "energy": "F(w) + lambda/2 ||w'||^2",
    "dissipated": "integral of ||w'||^2",
    "train_loss": "1/(2n) ||X theta - y||^2",
    "recovery_error": "||theta - theta*||_2",
    "test_error": "1/(2m) ||X_test theta - y_test||^2",
    "l1_norm": "||theta||_1",
    "kkt_residual": "relative norm of the part of the mirror image outside the row space",
    "log_perturbed_init_norm": "ln ||theta~_0||",
    "own_level_set_distance": "distance to argmin D(., theta~_0) over X theta' = X theta",
    "distance_to_minimizer": "distance to argmin D(., theta~_0) over X theta' = y",
    "distance_to_unperturbed_minimizer": "distance to argmin psi_Delta over X theta' = y",
    "distance_to_gradient_flow_minimizer": "distance to argmin D_{Delta_0}(., theta_0) over S",
    "distance_to_limit": "distance to argmin D(., theta~_0) over S, Delta and theta~_0 of the end",
}


class History:
    """Values of every run at the recorded steps.

    >>> history = History()
    >>> history.record(0, {"loss": torch.tensor([1.0]), "theta": torch.zeros(1, 3)})
    >>> history.record(10, {"loss": torch.tensor([0.5]), "theta": torch.ones(1, 3)})
    >>> dict(history.dataset().sizes)
    {'step': 2, 'coordinate': 3}
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

    def dataset(self) -> xr.Dataset:
        """Everything, labelled: dims step, run (left out for one run), coordinate."""
        steps = self.steps
        variables = {}
        for name, column in self.values.items():
            blank = torch.full_like(next(iter(column.values())), torch.nan, dtype=torch.float64)
            variables[name] = torch.stack([column.get(step, blank) for step in steps])
        dataset = labelled(variables, ("step", "run", "coordinate"), {"step": steps})
        return dataset.squeeze("run") if dataset.sizes.get("run") == 1 else dataset

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


def labelled(
    values: Mapping[str, Tensor], dims: Sequence[str], coords: Mapping[str, Any]
) -> xr.Dataset:
    """Tensors by name as a dataset; each has the first of the dimensions, as many as it needs.

    >>> labelled({"loss": torch.ones(2), "theta": torch.ones(2, 3)}, ("time", "i"), {}).sizes
    Frozen({'time': 2, 'i': 3})
    """
    variables = {
        name: xr.Variable(
            dims[: value.ndim],
            value.numpy(),
            {"long_name": LONG_NAMES[name]} if name in LONG_NAMES else {},
        )
        for name, value in values.items()
    }
    return xr.Dataset(variables, coords=dict(coords))


def versions() -> dict[str, str]:
    """The versions that a result was computed with."""
    return {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}


def plain(value: Any) -> Any:
    """A value as JSON can hold it: numbers that are not finite become null."""
    if isinstance(value, Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return value


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a dictionary as JSON, whole or not at all."""
    text = json.dumps(plain(dict(value)), indent=2, allow_nan=False) + "\n"
    _replace(path, lambda target: target.write_text(text))


def write_dataset(path: Path, dataset: xr.Dataset) -> None:
    """Write a labelled dataset as NetCDF, whole or not at all."""
    packed = {name: {"zlib": True, "complevel": 4} for name in dataset.data_vars}
    numeric = {k: v for k, v in packed.items() if dataset[k].dtype.kind in "fiub"}
    _replace(path, lambda target: dataset.to_netcdf(target, engine="h5netcdf", encoding=numeric))


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside the file and move it into place: no reader ever sees half a result."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        write(Path(name))
        Path(name).chmod(0o644)
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)
