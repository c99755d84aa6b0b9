"""A run of the optimizer beside the flows that it discretises, at t_k = k eps."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dln_momentum.flows import FlowPath, FlowStatus
from dln_momentum.outputs.history import with_theta_star
from dln_momentum.outputs.summary import recovery
from dln_momentum.problem import Problem

FLOWS = ("flow", "flow_ks")
"""The flows of lambda and of lambda_KS, as the dimension ``path`` calls them; the run is "run"."""

VECTORS = ("theta", "w_plus", "w_minus", "balancedness")
SCALARS = (
    "train_loss", "recovery_error", "test_error", "l1_norm", "balancedness_l1",
)  # fmt: skip


def comparable_times(history: xr.Dataset, at_rest: bool) -> dict[str, Tensor]:
    """The time at which each flow is compared with the k-th step of a run, by its name.

    MGD(gamma, beta) is first order for MGF(lambda) at t_k = k eps. It is second order for
    MGF(lambda_KS), whose instant of zero speed lies half-way between the two equal iterates that
    rest means (docs/theory.md#order). These are steps -1 and 0 of a run, which starts to move with
    its first step: so step k is compared with w((k + 1/2) eps), and step 0 with w(0).

    >>> history = xr.Dataset(coords={"step": [0, 1, 10], "eps": 0.5})
    >>> for name, times in comparable_times(history, at_rest=True).items():
    ...     print(name, times.tolist())
    flow [0.0, 0.5, 5.0]
    flow_ks [0.0, 0.75, 5.25]
    """
    steps = torch.from_numpy(history["step"].to_numpy().astype(np.float64))
    eps = float(history["eps"])
    later = (steps + 0.5) * (steps > 0) if at_rest else steps
    return dict(zip(FLOWS, (steps * eps, later * eps), strict=True))


def compared(
    history: xr.Dataset,
    problem: Problem,
    flows: Mapping[str, FlowPath],
    times: Mapping[str, Tensor],
) -> xr.Dataset:
    """A run and its flows over the dimensions path, step and coordinate.

    Args:
        history: of the run, over the recorded steps, with ``theta`` and ``balancedness``.
        problem: its data.
        flows: the flows by their names in `FLOWS`, at ``times``.
        times: as `comparable_times` gives them.

    Returns:
        The vectors and scalars that both have; ``time`` over path and step;
        ``distance_to_flow`` = ||theta_k - theta(t_k)|| and ``distance_to_flow_ks`` over step. What
        comes after the end of a flow that failed, or of a run that diverged, is nan.
    """
    parts = {"run": {name: history[name].to_numpy() for name in (*VECTORS, *SCALARS)}}
    parts |= {name: _of_flow(path, times[name], problem) for name, path in flows.items()}
    found: dict[str, Any] = {
        name: (
            ("path", "step", "coordinate")[: 3 if name in VECTORS else 2],
            np.stack([part[name] for part in parts.values()]),
        )
        for name in (*VECTORS, *SCALARS)
    }
    for name in flows:
        gap = parts["run"]["theta"] - parts[name]["theta"]
        found[f"distance_to_{name}"] = ("step", np.linalg.norm(gap, axis=-1))
    clock = [history["time"].to_numpy(), *(times[name].numpy() for name in flows)]
    coords: dict[str, Any] = {
        "path": list(parts),
        "step": history["step"].to_numpy(),
        "coordinate": np.arange(problem.d),
        "time": (("path", "step"), np.stack(clock)),
        **{name: float(history[name]) for name in ("gamma", "beta", "eps", "lam", "lam_ks")},
    }
    return with_theta_star(xr.Dataset(found, coords), problem)


def _of_flow(path: FlowPath, times: Tensor, problem: Problem) -> dict[str, np.ndarray]:
    """The values of a path at some of its times, nan at those that it did not reach."""
    places = torch.searchsorted(path.t, times).clamp(max=len(path.t) - 1)
    reached = path.t[places] == times
    here = path.at(places)
    found = {
        **{name: getattr(here, name) for name in VECTORS},
        "train_loss": here.loss,
        **recovery(here.theta, problem),
        "balancedness_l1": here.balancedness.sum(-1),
    }
    return {
        name: torch.where(
            reached[:, None] if value.ndim == 2 else reached, value, torch.nan
        ).numpy()
        for name, value in found.items()
    }


def distances(found: xr.Dataset) -> dict[str, float]:
    """The distances to both flows at the last step, and the largest of all recorded steps."""
    names = [f"distance_to_{name}" for name in FLOWS]
    last = {name: float(found[name][-1]) for name in names}
    return last | {f"max_{name}": float(found[name].max()) for name in names}


def status_of(flows: Mapping[str, FlowPath]) -> str:
    """``time_reached``, or ``failed`` if one of the flows did."""
    failed = any(path.status is FlowStatus.FAILED for path in flows.values())
    return (FlowStatus.FAILED if failed else FlowStatus.TIME_REACHED).value
