"""How far every recorded theta_k is from the minimisers that the theory names, in one batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot
from dln_momentum.engine.parallel import for_each
from dln_momentum.engine.power_snapshot import PowerSnapshot
from dln_momentum.engine.problems import ProblemGroup, flat_problem
from dln_momentum.outputs.minimisers import (
    distance,
    in_one_rate,
    kappa_of,
    minimiser,
    minimisers,
    potential,
    power_limit,
)
from dln_momentum.problem import Problem
from dln_momentum.theory.minimizers import Case

AT_ONCE = 2**20
"""Entries of X over all runs and steps of a stack that are solved at once; of theta an eighth."""

DISTANCES = ("own_level_set_distance", "distance_to_minimizer", "distance_to_limit")


def limit(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    """argmin D_{psi_Delta}(., theta~_0) over the interpolators, [R, d], as ``minimizer``.

    It is nan for classification, which ends at no interpolator.
    """
    if problem.is_classification:
        return {"minimizer": torch.full_like(snapshot.theta, torch.nan)}
    if isinstance(snapshot, PowerSnapshot):
        found = power_limit(snapshot, problem, snapshot.predicted_scale, snapshot.log_init)
        return {"minimizer": found}
    data, kappa = in_one_rate(problem, kappa_of(snapshot))
    target, (delta, c) = data.row_space.target(data.y), potential(snapshot)
    found = minimiser(data, target, delta / kappa, c, snapshot.theta / kappa)
    return {"minimizer": kappa * found}


def has_path_distances(snapshot: Snapshot, problem: Problem) -> bool:
    """Whether `distances_along_path` is about these runs: theta = u v, which interpolates."""
    deep = isinstance(snapshot, PowerSnapshot)
    return snapshot.certifies and not deep and not problem.is_classification


def distances_along_path(
    recorded: Mapping[str, Tensor],
    minimizer: Tensor,
    groups: Sequence[ProblemGroup],
    *,
    certifies: bool,
    kappa: Tensor | None = None,
    workers: int = 1,
) -> dict[str, Tensor]:
    """Distances of theta_k to the minimisers of D_{psi_{Delta_k}}(., theta~_0), [T, R] each.

    (docs/theory.md#along-the-path.)

    ``own_level_set_distance``: over {X theta = X theta_k}, 0 at every step, converged or not;
    ``distance_to_minimizer``: over S = {X theta = y}; ``distance_to_limit``: to the minimiser of
    the end. Batches of records and runs cost a fortieth of one solve after the other.

    Args:
        recorded: theta, balancedness and log_init, [T, R, d] each.
        minimizer: the minimiser of the end, [R, d].
        groups: the runs by their problem.
        certifies: whether S_+- was summed from the iterates; without it all distances are nan.
        kappa: rates of the coordinates, [d], if they have any.
        workers: threads.
    """
    T, R, d = recorded["theta"].shape
    found = {name: recorded["theta"].new_full((T, R), torch.nan) for name in DISTANCES}

    def solve(part: tuple[Problem, Tensor | float, Tensor, Tensor]) -> None:
        problem, scale, runs, steps = part
        shape, here = (len(steps), len(runs)), (steps[:, None], runs)
        # a stack has a matrix for each run, which is repeated for every step
        data = flat_problem(problem, shape) if problem.X.ndim > 2 else problem
        theta, delta, c = (
            recorded[name][here].reshape(-1, d).to(problem.X)
            for name in ("theta", "balancedness", "log_init")
        )
        near, delta = theta / scale, delta / scale
        own = data.row_space.coordinates(near.nan_to_num())
        target = problem.row_space.target(problem.y).expand(*shape, -1).flatten(0, 1)
        end = minimizer[runs].to(theta).expand(len(steps), -1, -1).reshape(-1, d)
        # the minimiser of the end is nearer to that over S than theta_k is
        cases = [Case(own, c, near), Case(target, c, end / scale)]
        of_both = minimisers(data, delta, cases)
        values = (*(distance(theta, scale * x) for x in of_both), distance(theta, end))
        for name, value in zip(DISTANCES, values, strict=True):
            found[name][here] = value.reshape(len(steps), -1).cpu()

    parts = []
    for group in groups if certifies else ():
        problem, scale = in_one_rate(group.problem, kappa)
        runs = torch.arange(R) if group.runs is None else group.runs.cpu()
        stacked = problem.X.ndim > 2
        entries = problem.X.numel() if stacked else 8 * len(runs) * d
        at_once = max(1, AT_ONCE // entries)
        parts += [(problem, scale, runs, steps) for steps in torch.arange(T).split(at_once)]
    for_each(solve, parts, workers)
    return found
