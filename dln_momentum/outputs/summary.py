"""Every number of the theory at one step of R runs; what flows share is here too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dln_momentum.engine import Snapshot, Status
from dln_momentum.engine.power_snapshot import PowerSnapshot
from dln_momentum.errors import raise_if_any
from dln_momentum.flows.trajectory import RecordedTrajectory
from dln_momentum.outputs.minimisers import (
    distance,
    in_one_rate,
    kappa_of,
    minimiser_distances,
    potential,
)
from dln_momentum.outputs.references import references
from dln_momentum.problem import Problem
from dln_momentum.rates import named_rates
from dln_momentum.row_space import apply
from dln_momentum.theory.curvature import sharpness
from dln_momentum.theory.discrete_bias import log_free_balance
from dln_momentum.theory.small_lambda import lambda_threshold

BY_CONSTRUCTION = (
    "path_sum_balancedness_error",
    "path_identity_error",
    "kkt_residual",
    "own_level_set_distance",
    "distance_to_minimizer",
    "distance_to_limit",
)
"""What no fault of a run could show in, where S_+- is read off the sum of the gradients: the
theorem then holds by construction, and these numbers, which would test it, are nan."""


def summarise(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    """The scalar results of R runs, each [R]; nan where a quantity is not defined.

    Distances are Euclidean, from theta_K to the minimiser over S = {X theta = y}; they say
    something about the theory once the run has converged, and the numbers that must hold at every
    step say it always (`path_sum_balancedness_error`, `kkt_residual`).
    """
    raise_if_any(
        f"{key} is a {type(value).__name__}; it must be a {kind.__name__}"
        for key, value, kind in (("snapshot", snapshot, Snapshot), ("problem", problem, Problem))
        if not isinstance(value, kind)
    )
    steps = snapshot.steps_to_tol.double()
    return {
        **rates(snapshot),
        "small_lambda_threshold": _threshold(snapshot, problem),
        "initial_balancedness_l1": snapshot.balancedness_start.sum(-1),
        "train_loss": snapshot.loss,
        **recovery(snapshot.theta, problem),
        **references(snapshot.theta, problem),
        **balancedness_scalars(snapshot),
        **balancedness_errors(snapshot),
        "log_free_error": log_free_error(snapshot),
        **minimiser_distances(snapshot, problem),
        "steps": snapshot.steps,
        "steps_to_tol": torch.where(steps >= 0, steps, torch.nan),
    }


def _threshold(snapshot: Snapshot, problem: Problem) -> Tensor:
    """lambda below which Delta never vanishes, [R]; nan at depth D > 2, where none is known."""
    if isinstance(snapshot, PowerSnapshot):
        return torch.full_like(snapshot.loss, torch.nan)
    return lambda_threshold(problem, *snapshot.w_start.unbind())


def numbers_of_run(ends: Mapping[str, Tensor], run: int) -> dict[str, Any]:
    """The scalars of `end_of_runs` of one run as numbers; steps_to_tol is None if not reached."""
    found = {name: value[run].item() for name, value in ends.items() if value.ndim == 1}
    reached = found.pop("status") == Status.CONVERGED
    return found | {"steps_to_tol": found["steps"] if reached else None}


def end_of_runs(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    """`summarise`, the rank of X, the status code, and theta, Delta and S_+- of R runs."""
    vectors = coordinates(snapshot)
    return {
        **summarise(snapshot, problem),
        "rank": problem.row_space.ranks.expand_as(snapshot.loss),
        "status": snapshot.status,
        **{name: vectors[name] for name in ("theta", "balancedness", "s_plus", "s_minus")},
    }


def rates(snapshot: Snapshot) -> dict[str, Tensor]:
    """gamma, beta, lambda, eps and lambda_KS, [R] each."""
    return named_rates(snapshot.gamma[:, 0], snapshot.beta[:, 0])


def coordinates(snapshot: Snapshot) -> dict[str, Tensor]:
    """What is recorded of each coordinate, [R, d] each."""
    s_plus, s_minus = snapshot.path_sums
    return {
        "theta": snapshot.theta,
        "w_plus": snapshot.w[0],
        "w_minus": snapshot.w[1],
        "balancedness": snapshot.balancedness,
        "log_init": potential(snapshot)[1],
        "s_plus": s_plus,
        "s_minus": s_minus,
    }


def recovery(theta: Tensor, problem: Problem) -> dict[str, Tensor]:
    """How well theta [R, d] does: distance to theta*, error on the test rows, l1 norm.

    Of classification its margins too, the least y_i <x_i, theta> as it is and over a norm of theta.
    """
    missing = torch.full_like(theta[:, 0], torch.nan)
    star = problem.theta_star
    found = {
        "recovery_error": missing if star is None else distance(theta, star),
        "test_error": problem.test_error(theta),
        "l1_norm": theta.abs().sum(-1),
    }
    if not problem.is_classification:
        return found
    margin = (problem.y * apply(problem.X, theta)).amin(-1)
    norm = torch.linalg.vector_norm(theta, dim=-1)
    # at theta = 0 there is no direction
    return found | {
        "min_margin": margin,
        "l1_margin": torch.where(norm > 0, margin / found["l1_norm"], torch.nan),
        "l2_margin": torch.where(norm > 0, margin / norm, torch.nan),
    }


def curvature(snapshot: Snapshot, problem: Problem) -> dict[str, Tensor]:
    """The sharpness of R runs, and that above which their last step is unstable on a quadratic.

    Both in the variables in which all coordinates have one step size.
    """
    data, kappa, depth = of_one_rate(snapshot, problem)
    found = sharpness(data, snapshot.w / kappa**0.5, depth)
    return {"sharpness": found, "sharpness_threshold": snapshot.threshold[:, 0]}


def of_one_rate(snapshot: Snapshot, problem: Problem) -> tuple[Problem, Tensor, Tensor | float]:
    """The data of the runs w/sqrt(kappa) with one step size for all, kappa, and D, [R, 1] or 2."""
    depth = snapshot.depth if isinstance(snapshot, PowerSnapshot) else 2.0
    return *in_one_rate(problem, kappa_of(snapshot)), depth


def path_sum_scalars(snapshot: Snapshot) -> dict[str, Tensor]:
    """Totals of S_+- over the coordinates, `balancedness_errors` and `log_free_error`, [R] each."""
    s_plus, s_minus = snapshot.path_sums
    return {
        **balancedness_errors(snapshot),
        "log_free_error": log_free_error(snapshot),
        "s_plus_total": s_plus.sum(-1),
        "s_minus_total": s_minus.sum(-1),
    }


def balancedness_errors(snapshot: Snapshot) -> dict[str, Tensor]:
    """How well the path sums predict the balancedness; the first tends to 0 as a run converges.

    ``path_sum_balancedness_error`` = max_i |Delta_k / (Delta_0 exp(-(S_+ + S_-))) - 1|, and
    ``path_identity_error``, the same with the boundary terms kept, 0 to rounding at every step.
    Both are nan where they would be 0 by construction (see `BY_CONSTRUCTION`).
    """
    scale = 1.0 if snapshot.certifies else torch.nan
    return {
        name: scale * (snapshot.balancedness / predicted - 1).abs().amax(-1)
        for name, predicted in (
            ("path_sum_balancedness_error", snapshot.limit_balancedness),
            ("path_identity_error", snapshot.predicted_balancedness),
        )
    }


def balancedness_scalars(runs: Snapshot | RecordedTrajectory) -> dict[str, Tensor]:
    """||Delta||_1, Delta relative to Delta_0, and the sign changes of w_+-, [R] or [T] each."""
    now, start = runs.balancedness, runs.balancedness_start
    return {
        "balancedness_l1": now.sum(-1),
        "balancedness_ratio": now.sum(-1) / start.sum(-1),
        "min_balancedness_ratio": (now / start).amin(-1),
        "sign_changes": runs.sign_changes,
    }


def log_free_error(snapshot: Snapshot) -> Tensor:
    """max_i |q - q_K| / max_i |q_0|, q_K = u^2 - v^2 and q its log-free prediction, [R].

    It is nan unless the increments were summed (not with ``path_sums = gradient_sum``).
    """
    if snapshot.increment_products is None:
        return torch.full_like(snapshot.loss, torch.nan)
    predicted = log_free_balance(
        snapshot.w_start,
        snapshot.previous,
        snapshot.w,
        snapshot.increment_products,
        snapshot.beta,
        snapshot.initial_increment,
    )
    measured = snapshot.w[0] * snapshot.w[1]
    return (predicted - measured).abs().amax(-1) / snapshot.balancedness_start.amax(-1)
