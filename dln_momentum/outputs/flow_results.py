"""``results.nc`` of flows of many lambda: their numbers at output times, or at their ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from dln_momentum.flows import FlowStatus
from dln_momentum.outputs.history import labelled, with_theta_star
from dln_momentum.outputs.minimisers import distance, minimiser
from dln_momentum.outputs.summary import recovery
from dln_momentum.problem import Problem
from dln_momentum.theory.continuous_bias import path_integrals, running_bias
from dln_momentum.theory.discrete_bias import log_init, log_perturbed_init_norm

if TYPE_CHECKING:
    from dln_momentum.flows.batched import Flows


def flows_dataset(problem: Problem, flows: Flows, times: Tensor | None) -> xr.Dataset:
    """Flows over the dimensions ``lam``, ``coordinate`` and, with output times, ``time`` first.

    The certificates of a single flow are not among them: many flows are integrated together, and
    keep no sums of I_+- by their definition.

    Args:
        problem: the data, shared by all flows.
        flows: R flows, at t = 0 and at the output times or their ends.
        times: the output times, [T], t = 0 not among them; a flow that failed is nan after its end.
            Without them the numbers are those of the end of each flow, which is ``time``.

    Returns:
        Scalars and vectors under the names of every other file.
    """
    kept = slice(-1, None) if times is None else slice(0, None)
    wanted = None if times is None else torch.cat([times.new_zeros(1), times])[:, None]
    here, bias = flows.at(kept), running_bias(flows)
    theta, delta, c = here.theta, bias.balancedness[kept], bias.log_init[kept]
    start = flows.balancedness[:1]
    scalars = {
        "train_loss": here.loss,
        "energy": here.energy,
        "error_estimate": here.error_estimate,
        **_by_rows(theta, problem),
        "balancedness_l1": here.balancedness.sum(-1),
        "balancedness_ratio": here.balancedness.sum(-1) / start.sum(-1),
        "min_balancedness_ratio": (here.balancedness / start).amin(-1),
        "log_perturbed_init_norm": log_perturbed_init_norm(delta, c),
        **_distances(problem, flows, theta, delta),
    }
    vectors = {
        "theta": theta,
        "balancedness": here.balancedness,
        "log_init": c,
        **dict(zip(("i_plus", "i_minus"), path_integrals(flows)[:, kept], strict=True)),
    }
    if wanted is not None:
        # the last state is repeated where a flow ended before
        there = here.t >= wanted
        scalars = {name: value.where(there, torch.nan) for name, value in scalars.items()}
        vectors = {k: value.where(there[..., None], torch.nan) for k, value in vectors.items()}
    dims, coords = ("time", "lam", "coordinate"), {"lam": flows.lam[:, 0].numpy()}
    found = labelled(scalars | vectors, dims, coords)
    found["status"] = ("lam", np.array([status.value for status in flows.status]))
    found["sign_changes"] = ("lam", flows.sign_changes.numpy())
    found["solver_steps"] = ("lam", flows.steps.numpy())
    if wanted is None:
        found = found.isel(time=0)
        found["time"] = ("lam", here.t[0].numpy())
    else:
        found = found.assign_coords(time=wanted[:, 0].numpy())
    return with_theta_star(found, problem)


def _by_rows(theta: Tensor, problem: Problem) -> dict[str, Tensor]:
    found = recovery(theta.reshape(-1, problem.d), problem)
    return {name: value.reshape(theta.shape[:-1]) for name, value in found.items()}


def _distances(
    problem: Problem, flows: Flows, theta: Tensor, balancedness: Tensor
) -> dict[str, Tensor]:
    """To argmin psi_Delta, without theta~_0, and to where gradient flow ends."""
    target = problem.row_space.target(problem.y)
    flat = theta.reshape(-1, problem.d)
    zero = torch.zeros_like(flat)
    w = flows.w[:, 0]
    from_start = minimiser(
        problem, target, flows.balancedness[0, :1], log_init(w[0, :1], w[1, :1], zero[:1], zero[:1])
    )
    unperturbed = minimiser(problem, target, balancedness.reshape(-1, problem.d), zero, flat)
    return {
        "distance_to_unperturbed_minimizer": distance(theta, unperturbed.reshape(theta.shape)),
        "distance_to_gradient_flow_minimizer": distance(theta, from_start),
    }


def counted(results: xr.Dataset) -> dict[str, int]:
    """How many flows ended in each way."""
    labels = results["status"].to_numpy()
    counts = {status.value: int((labels == status.value).sum()) for status in FlowStatus}
    return {label: count for label, count in counts.items() if count}
